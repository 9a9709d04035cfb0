r"""Perplexity sampling (BERTIN): documents of middling perplexity, neither templates nor noise.

    gaussian    log w(x) = -((pp - Q2) / Q2)^2 / width
    step        log w(x) = -log r,  r = Q1, Q2 - Q1, Q3 - Q2 or 10 Q3 by the quartile that pp lies in
    low         score(x) = -log pp                       (CCNet's order: the most fluent first)

pp is the perplexity of document x, Q1, Q2, Q3 the quartiles of the sample of the pool. Both are log weights: taking the
largest of score + Gumbel noise samples in proportion to w as the paper does; its factors (0.78 and 1.5e5) only set how
many are kept, which here the budget does. Where two quartiles are equal, r is at least a thousandth of Q2.

``model = "ngram"``: an interpolated Kneser-Ney model of words (:mod:`winnow.quality.kneser_ney`), fitted to the pool
(``corpus = "pool"``) or to the reference. A model knows the texts it was fitted to, so in the pool there are two, each
fitted to half of the sample by a seeded hash of the ids, and a document is measured by the one that has not seen it.
``model = "checkpoint"``: the model in training, on each document's first window.

Source: De la Rosa et al. 2022, "BERTIN: Efficient Pre-Training of a Spanish Language Model using Perplexity Sampling"
(arXiv 2207.06814), section 2; its released sampler has no rule for a perplexity equal to the median (here it is in the
quartile above). Wenzek et al. 2020 (CCNet), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.identity import seeded_keys
from winnow.quality.kneser_ney import KneserNey
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option

if TYPE_CHECKING:
    from collections.abc import Callable

TOP_RANGE = 10.0
LEAST_RANGE = 1e-3


@dataclass(frozen=True)
class Options:
    shape: str = option("gaussian", choices=("gaussian", "step", "low"))
    width: float = option(4.5, above=0.0)
    model: str = option("ngram", choices=("ngram", "checkpoint"))
    corpus: str = option("pool", choices=("pool", "reference"))
    order: int = option(3, 1, 5)


@dataclass(eq=False)
class FittedPerplexity(Fitted):
    """``measure``: perplexities of documents, NaN where there is none, and operations; ``quartiles`` of the pool."""

    options: Options
    measure: Callable[[Documents], tuple[np.ndarray, float]]
    quartiles: tuple[float, float, float]
    flops: float = 0.0

    def _score(self, documents: Documents) -> Scored:
        perplexity, flops = self.measure(documents)
        return with_reason(band(perplexity, self.quartiles, self.options), "it has no finite perplexity", flops)


class Perplexity(Scorer, name="perplexity", needs=("sample",)):
    """A band of perplexities."""

    Options = Options

    @property
    def needs(self) -> frozenset[str]:
        if self.options.model == "checkpoint":
            return self._needs | {"tokens", "model"}
        return self._needs | {"texts"} | ({"reference"} if self.options.corpus == "reference" else set())

    def _fit(self, context: ScorerContext) -> FittedPerplexity:
        assert context.sample is not None
        measure = self._measure(context)
        perplexity, flops = measure(context.sample)
        known = perplexity[np.isfinite(perplexity)]
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist() if len(known) else [np.nan] * 3
        return FittedPerplexity(self.options, measure, (low, middle, high), flops)

    def _measure(self, context: ScorerContext) -> Callable[[Documents], tuple[np.ndarray, float]]:
        options, sample, reference = self.options, context.sample, context.reference
        if options.model == "checkpoint":
            return CheckpointPerplexity(context)
        if options.corpus == "reference":
            assert reference is not None
            model = KneserNey.fit((texts for _, texts in reference.batches("texts")), options.order)
            return NgramPerplexity((model, model), context.seed)
        assert sample is not None
        half = halves(sample.doc_ids, context.seed)
        models = []
        for side in (0, 1):
            parts = (
                [text for text, own in zip(texts, half[place].tolist(), strict=True) if own == side]
                for place, texts in sample.batches("texts")
            )
            models.append(KneserNey.fit(parts, options.order))
        return NgramPerplexity((models[1], models[0]), context.seed)


@dataclass(frozen=True, eq=False)
class NgramPerplexity:
    """``models[h]`` measures the documents of half h."""

    models: tuple[KneserNey, KneserNey]
    seed: int

    def __call__(self, documents: Documents) -> tuple[np.ndarray, float]:
        perplexity = np.full(len(documents), np.nan)
        half = halves(documents.doc_ids, self.seed)
        for place, texts in documents.batches("texts"):
            found = np.full(len(texts), np.nan)
            for side, model in enumerate(self.models):
                rows = [row for row in np.flatnonzero(half[place] == side).tolist() if texts[row].strip()]
                found[rows] = model.perplexity([texts[row] for row in rows])
            perplexity[place] = found
        return perplexity, 0.0


class CheckpointPerplexity:
    """The model in training measures each document's first window."""

    def __init__(self, context: ScorerContext) -> None:
        self.model = context.checkpoints[-1].load()

    def __call__(self, documents: Documents) -> tuple[np.ndarray, float]:
        from winnow.attribution.capture import context_length
        from winnow.train.evaluate import evaluate_loss
        from winnow.train.model import count_parameters

        perplexity, predicted = np.full(len(documents), np.nan), 0
        length = context_length(self.model)
        for place, tokens in documents.batches("tokens"):
            loss = evaluate_loss(self.model, tokens, length, all_windows=False)  # type: ignore[arg-type]
            perplexity[place] = np.exp(loss.per_item)
            predicted += loss.tokens
        return perplexity, 2.0 * count_parameters(self.model) * predicted  # type: ignore[arg-type]


def band(perplexity: np.ndarray, quartiles: tuple[float, float, float], options: Options) -> np.ndarray:
    """Return log weights float64 ``[N]`` of perplexities by the shape of the options; NaN stays NaN."""
    low, middle, high = quartiles
    if options.shape == "low":
        return -np.log(perplexity)
    if options.shape == "gaussian":
        return -(((perplexity - middle) / middle) ** 2) / options.width
    ranges = np.maximum([low, middle - low, high - middle, TOP_RANGE * high], LEAST_RANGE * middle)
    quartile = np.searchsorted([low, middle, high], perplexity, side="right")
    return np.where(np.isnan(perplexity), np.nan, -np.log(ranges)[np.minimum(quartile, 3)])


def halves(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return int64 ``[N]``, 0 or 1, by the id and the seed."""
    return (seeded_keys(ids, seed, "scorer:perplexity") >> np.uint64(63)).astype(np.int64)
