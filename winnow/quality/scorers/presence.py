r"""PRESENCE: weights of samples by self-influence, novelty first and stability later.

    s_i = |G_i|^2,    z_i = (s_i - mean s) / std s,    w_i = exp(t z_i) / sum_j exp(t z_j)

G_i is the gradient of the sample's mean token loss over the layers of ``scope``; t (``temperature``) is positive in the
first steps of training, where what has a large gradient is new, and negative after, where it is noise.

In training the batch is the minibatch or the microbatches of it: :func:`presence_weights`. As a scorer, z is taken
against the sample of the pool at one checkpoint and the score is the log weight t z: ranking by it with t < 0 is
PRESENCE-Sequential, which drops the largest self-influence. The paper takes the first encoder and decoder layer of mT5;
its t and the step at which the sign turns are not known.

Source: Thakkar et al. 2023, "Self-Influence Guided Data Reweighting for Language Model Pre-training"
(arXiv 2311.00913), sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option

if TYPE_CHECKING:
    from torch import nn

BATCH = 8_192


@dataclass(frozen=True)
class Options:
    temperature: float = option(-1.0)
    scope: str = option("blocks")


@dataclass(eq=False)
class FittedPresence(Fitted):
    """``mean`` and ``std`` of the self-influence of the pool."""

    model: nn.Module
    options: Options
    mean: float
    std: float
    flops: float = 0.0

    def _score(self, documents: Documents) -> Scored:
        found, flops = _self_influence(self.model, documents, self.options.scope)
        values = self.options.temperature * _standardised(found, self.mean, self.std)
        return with_reason(values, "it has no finite gradient", flops)


class Presence(Scorer, name="presence", needs=("tokens", "sample", "model")):
    """Standardised self-influence times a temperature."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedPresence:
        assert context.sample is not None
        model = context.checkpoints[-1].load()
        found, flops = _self_influence(model, context.sample, self.options.scope)
        known = np.sort(found[np.isfinite(found)])  # sorted: a sum is then the same in any order of the documents
        mean, std = (float(known.mean()), float(known.std())) if len(known) else (np.nan, np.nan)
        return FittedPresence(model, self.options, mean, std, flops)


def presence_weights(self_influence: np.ndarray, temperature: float) -> np.ndarray:
    """Return the weights of a batch's B samples (or microbatches), float64 ``[B]``, at least 0, sum 1.

    ``self_influence`` ``[B]``: squared gradient norms; one that is not finite weighs 0. Equal ones weigh alike.
    """
    values = np.asarray(self_influence, dtype=np.float64)
    finite = np.isfinite(values)
    weights = np.zeros(len(values))
    if finite.any():
        known = values[finite]
        exponent = temperature * _standardised(known, float(known.mean()), float(known.std()))
        weights[finite] = np.exp(exponent - exponent.max())
        weights /= weights.sum()
    return weights


def _standardised(values: np.ndarray, mean: float, std: float) -> np.ndarray:
    return (values - mean) / std if std > 0.0 else values * 0.0


def _self_influence(model: nn.Module, documents: Documents, scope: str) -> tuple[np.ndarray, float]:
    """Return squared gradient norms float64 ``[N]``, NaN where there is none, and the operations spent."""
    from winnow.attribution.batching import tokens_used
    from winnow.attribution.capture import context_length
    from winnow.attribution.self_influence import self_influence

    found, positions = np.full(len(documents), np.nan), 0
    for place, tokens in documents.batches("tokens", BATCH):
        found[place] = self_influence(model, tokens, scope)
        positions += int(tokens_used(tokens, context_length(model)).sum())
    return found, 6.0 * positions * sum(parameter.numel() for parameter in model.parameters())
