r"""Gradient influence: how much a step on the document lowers the reference loss, for every document of the pool.

    score(x) = sum over layers <P g_ref, G_x>        (positive = helpful, per token: gradients of mean token losses)

at the last checkpoint, by any estimator that streams (``estimator``, ``scope``, ``damping``: see
:mod:`winnow.attribution.influence`); one forward and one backward pass a document. A document longer than the model's
context counts with its first window. Estimators of curvature measure it on ``curvature_documents`` of the sample.

Source: Pruthi et al. 2020 (TracIn); Xia et al. 2024 (LESS) for Adam's metric; the estimators' own pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import tokens_used
from winnow.identity import seeded_keys
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext
from winnow.selection.options import option

if TYPE_CHECKING:
    from winnow.attribution.influence import GradientInfluence

BATCH = 8_192  # documents sorted into batches of one width together: fewer rows of padding


@dataclass(frozen=True)
class Options:
    estimator: str = option("adam_fisher")
    scope: str = option("head")
    damping: float = option(0.01, 0.0)
    curvature_documents: int = option(256, 1)


@dataclass(eq=False)
class FittedGradient(Fitted):
    """The direction P g_ref of the reference."""

    influence: GradientInfluence
    flops: float = 0.0

    def _score(self, documents: Documents) -> Scored:
        values, flops = np.empty(len(documents)), 0.0
        reasons: list[str | None] = []
        for place, tokens in documents.batches("tokens", BATCH):
            found = self.influence.score(tokens)
            values[place] = found.influence
            reasons += found.reason
            flops += _flops(self.influence, int(found.tokens.sum()))
        return Scored(values, tuple(reasons), flops)


class Gradient(Scorer, name="gradient", needs=("tokens", "reference", "model")):
    """Exhaustive gradient influence."""

    Options = Options

    @property
    def needs(self) -> frozenset[str]:
        from winnow.attribution.estimators import make_directional

        estimator = make_directional(self.options.estimator)
        return self._needs | (estimator.needs & {"optimizer"}) | ({"sample"} if estimator.requires_curvature else set())

    def _fit(self, context: ScorerContext) -> FittedGradient:
        from winnow.attribution.influence import GradientInfluence

        assert context.reference is not None
        checkpoint = context.checkpoints[-1]
        reference = list(context.reference.rows("tokens", 0, len(context.reference)))
        curvature: list[np.ndarray] = []
        if "sample" in self.needs and context.sample is not None:
            keys = seeded_keys(context.sample.doc_ids, context.seed, "scorer:curvature")
            tokens = context.sample.rows("tokens", 0, len(context.sample))
            curvature = [tokens[row] for row in np.argsort(keys)[: self.options.curvature_documents].tolist()]
        influence = GradientInfluence.fit(
            checkpoint.load(),
            reference,
            curvature,
            method=self.options.estimator,
            scope=self.options.scope,
            damping=self.options.damping,
            optimizer_state=checkpoint.optimizer,
            seed=context.seed,
        )
        used = int(tokens_used([*reference, *curvature], influence.context).sum())
        return FittedGradient(influence, _flops(influence, used))


def _flops(influence: GradientInfluence, tokens: int) -> float:
    """Two operations a parameter and token forward, and four backward, where the pass ends at the head of it alone."""
    parameters = sum(parameter.numel() for parameter in influence.model.parameters())
    head = sum(direction.numel() for direction in influence.directions.values())
    return tokens * (2.0 * parameters + 4.0 * (head if influence.scope == "head" else parameters))
