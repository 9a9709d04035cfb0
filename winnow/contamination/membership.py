"""Whether a model looks as if it had seen a text: statistics of one forward pass over it, and how two groups differ.

All are evidence, not proof. A text that is easy (short, formulaic, famous) looks seen; one read once among billions may
not. So the numbers say something only beside others: items that the data holds against items that it does not
(:func:`compare`), or the same items at two checkpoints.

Sources: Min-K% Prob, Shi et al. 2024 (arXiv 2310.16789), section 4; Min-K%++, Zhang et al. 2024 (arXiv 2404.02936),
section 3; perplexity and n-gram accuracy, Xu et al. 2024 (arXiv 2404.18824), section 3; the ratio to zlib, Carlini et
al. 2021 (arXiv 2012.07805), section 5.2.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.validation.intervals import auc
from winnow.forward import fixed_batches
from winnow.train.evaluate import BATCH_LOGITS, BATCH_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LOOKS_SEEN = {"loss": -1, "min_k": 1, "min_k_plus_plus": 1, "ngram_accuracy": 1, "zlib_ratio": -1}
"""The statistics, each with the sign of what speaks for having been seen: 1 when more does, -1 when less does."""

VOCABULARY_CELLS = 2**22
"""Logits that are worked on at a time; bounds memory and, a position being reduced on its own, changes no result."""

LEAST_DEVIATION = 1e-6
"""Below it a distribution is one token, or even: nothing to normalise by."""

FIRST_START = 2
"""The shortest prefix that n-gram accuracy predicts from (Xu et al. 2024, their code)."""

LEAST_GROUP = 5
"""With fewer items in a group an interval would only pretend."""

BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Reading:
    """What a model gives to the predicted tokens of one text, all but its first.

    ``log_probs`` float64 ``[T]``, nats; ``normalised`` float64 ``[T]``, how many standard deviations of the model's own
    log-probability they lie above its mean; ``hits`` bool ``[T]``, the token is the model's first choice.
    """

    log_probs: np.ndarray
    normalised: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Two groups' values: ``difference`` of the means, found minus others, in the statistic's unit; NaN without both.

    ``low`` and ``high`` are its 95% interval (percentile bootstrap, both groups resampled), NaN below
    :data:`LEAST_GROUP` items in either. ``auc`` is the chance that a found item looks more seen than another one, ties
    counted half.
    """

    found: int
    others: int
    found_mean: float
    others_mean: float
    difference: float
    low: float
    high: float
    auc: float


# -- the forward pass -------------------------------------------------------------------------------------------------


def read_texts(model: PreTrainedModel, items: Sequence[np.ndarray], context: int) -> list[Reading]:
    """Return a causal model's reading of tokenised texts (int arrays), of their first ``context`` tokens.

    Batches have fixed shapes and every position is reduced on its own, so a reading does not depend, to the bit, on the
    other texts. A text of fewer than two tokens has an empty reading.
    """
    import torch

    lengths = np.array([min(len(item), context) for item in items], dtype=np.int64)
    readable = np.flatnonzero(lengths > 1)
    readings = [Reading(np.empty(0), np.empty(0), np.empty(0, bool))] * len(items)
    tokens = min(BATCH_TOKENS, max(1, BATCH_LOGITS // model.config.get_text_config().vocab_size))
    training = model.training
    model.eval()
    with torch.inference_mode():
        for width, rows, members in fixed_batches(lengths[readable], context, tokens):
            batch = np.zeros((rows, width), dtype=np.int64)  # on the right, where a causal model does not look ahead
            for row, index in enumerate(readable[members].tolist()):
                batch[row, : lengths[index]] = items[index][: lengths[index]]
            ids = torch.from_numpy(batch)
            logits = model(input_ids=ids, use_cache=False).logits
            for row, index in enumerate(readable[members].tolist()):
                last = int(lengths[index]) - 1
                readings[index] = read_logits(logits[row, :last], ids[row, 1 : last + 1])
    model.train(training)
    return readings


def read_logits(logits: torch.Tensor, targets: torch.Tensor) -> Reading:
    """Return the reading of one text from its logits ``[T, V]`` and the tokens that followed, int64 ``[T]``.

    With l(z) = log p(z | prefix), the normalised value of token x is (l(x) - mu) / sigma, mu and sigma the mean and the
    standard deviation of l(z) over z ~ p(. | prefix).
    """
    import torch

    step = max(1, VOCABULARY_CELLS // logits.shape[-1])
    parts = []
    for start in range(0, len(targets), step):
        piece, wanted = logits[start : start + step].float(), targets[start : start + step, None]
        log_probs = torch.log_softmax(piece, -1)
        probs = log_probs.exp()
        possible = torch.where(probs > 0, log_probs, 0.0)  # where the probability underflows, p log p is 0
        mean = (probs * possible).sum(-1, keepdim=True)
        deviation = (probs * torch.where(probs > 0, log_probs - mean, 0.0).square()).sum(-1, keepdim=True).sqrt()
        own = log_probs.gather(-1, wanted)
        normalised = (own - mean) / deviation.clamp_min(LEAST_DEVIATION)
        parts.append((own[:, 0], normalised[:, 0], piece.argmax(-1) == wanted[:, 0]))
    if not parts:
        return Reading(np.empty(0), np.empty(0), np.empty(0, bool))
    log_probs, normalised, hits = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Reading(log_probs.double().numpy(), normalised.double().numpy(), hits.numpy())


# -- statistics of one text -------------------------------------------------------------------------------------------


def statistics(reading: Reading, text: str, percent: float, ngram: int, starts: int) -> dict[str, float]:
    """Return every statistic of :data:`LOOKS_SEEN` for one text by name; NaN where it is too short for one.

    ``text`` is what was read, ``percent`` the k of Min-K%, ``ngram`` and ``starts`` as in :func:`ngram_accuracy`.
    """
    nats = -float(np.sort(reading.log_probs).sum())
    return {
        "loss": nats / len(reading.log_probs) if len(reading.log_probs) else float("nan"),
        "min_k": lowest_mean(reading.log_probs, percent),
        "min_k_plus_plus": lowest_mean(reading.normalised, percent),
        "ngram_accuracy": ngram_accuracy(reading.hits, ngram, starts),
        "zlib_ratio": zlib_ratio(nats, text) if len(reading.log_probs) else float("nan"),
    }


def lowest_mean(values: np.ndarray, percent: float) -> float:
    """Return the mean of the lowest ``percent`` percent of the values, rounded down but at least one; NaN for none.

    Of log-probabilities it is Min-K% Prob, of normalised ones Min-K%++.
    """
    if not len(values):
        return float("nan")
    return float(np.sort(values)[: max(1, int(len(values) * percent / 100))].mean())


def ngram_accuracy(hits: np.ndarray, ngram: int, starts: int) -> float:
    """Return the share of ``starts`` places whose next ``ngram`` tokens greedy decoding gives; NaN if too short.

    The places are spread evenly from a prefix of two tokens to the last whole n-gram (Xu et al. 2024). Greedy decoding
    repeats the text as long as each next token is the model's first choice after the *true* prefix, so the hits of one
    forward pass tell what it would have written, without decoding anything. A text too short for so many places is
    asked at each place it has.
    """
    last = len(hits) + 1 - ngram
    if last < FIRST_START:
        return float("nan")
    places = np.unique(np.linspace(FIRST_START, last, num=starts).astype(np.int64))
    return float(np.mean([hits[place - 1 : place - 1 + ngram].all() for place in places]))


def zlib_ratio(nats: float, text: str) -> float:
    """Return the model's bits for a text over zlib's (level 9): how much better than a general compressor it knows it.

    Zlib also pays for the first token, which the model is not asked for, and a header of 11 bytes.
    """
    return nats / np.log(2) / (8 * len(zlib.compress(text.encode(), 9)))


# -- statistics of a set ----------------------------------------------------------------------------------------------


def compare(values: np.ndarray, found: np.ndarray, sign: int, seed: int) -> Comparison:
    """Compare the values of found items with those of the others.

    ``values`` float ``[N]``, NaN where an item has none; ``found`` bool ``[N]``; ``sign`` is that of
    :data:`LOOKS_SEEN`. The order of the items changes nothing.
    """
    known = np.isfinite(values)
    inside, outside = np.sort(values[known & found]), np.sort(values[known & ~found])
    means = [float(group.mean()) if len(group) else float("nan") for group in (inside, outside)]
    low = high = area = float("nan")
    if len(inside) and len(outside):
        area = auc(inside, outside) if sign > 0 else auc(outside, inside)
    if min(len(inside), len(outside)) >= LEAST_GROUP:
        generator = np.random.default_rng(seed)
        draws = [
            generator.choice(inside, len(inside)).mean() - generator.choice(outside, len(outside)).mean()
            for _ in range(BOOTSTRAPS)
        ]
        low, high = (float(bound) for bound in np.quantile(draws, [0.025, 0.975]))
    return Comparison(len(inside), len(outside), means[0], means[1], means[0] - means[1], low, high, area)
