"""Gradient cosine: <g_q, G_i> / (|g_q| |G_i|), over all parameters of the scope together.

Unlike the product it does not favour documents with large gradients (short, odd or badly predicted ones). A document
whose gradient is zero scores zero. Source: Pruthi et al. 2020 (TracIn); Xia et al. 2024 (LESS) normalise so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    from winnow.attribution.gradient_sums import GradientSums
    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedGradCos(Fitted):
    """The run's documents and their squared gradient norms, float64 ``[N]``."""

    source: GradientSums
    norms: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, scope_size

        return in_blocks(queries, scope_size(self.source.model, self.source.scope), self._score)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients

        directions = query_gradients(self.source.model, queries.tokens, self.source.scope)
        return self.source.cosines(directions, self.norms)


class GradCos(Estimator, name="grad_cos"):
    """Cosine of gradients at the last checkpoint."""

    uses = frozenset({"scope"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedGradCos:
        from winnow.attribution.gradient_sums import GradientSums

        source = GradientSums(run.final.load(), run.documents, settings.scope)
        return FittedGradCos(source, source.total_norms())
