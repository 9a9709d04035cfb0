"""Natural-gradient influence: g_q^T (F + lambda)^-1 G_i with the empirical Fisher F of the run's documents.

All layers of the scope are one dense block, so that the curvature between layers counts; ``options["by_site"] = 1``
makes one block a layer. lambda = ``damping`` times the mean of F's eigenvalues (as many as parameters, so most are
zero: values of 1 to 1,000 are usual). With more than ``options["sample"]`` (2,048) documents F is that of so many.
See :mod:`winnow.attribution.fisher`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.estimators import Estimator, Fitted
from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.attribution.fisher import EmpiricalFisher
    from winnow.attribution.run import Queries, Settings, TrainingRun

SAMPLE = 2048


@dataclass(frozen=True)
class FittedFisher(Fitted):
    """``order`` int64: the run's documents that F was measured on, by place, in the order of its rows."""

    fisher: EmpiricalFisher
    run: TrainingRun
    order: np.ndarray
    damping: float

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, scope_size

        # Gradients, their sums in float64, and directions in both.
        return in_blocks(queries, scope_size(self.fisher.source.model, self.fisher.source.scope), self._score, held=5)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients, score_along

        source, count = self.fisher.source, len(self.run.documents)
        gradients = query_gradients(source.model, queries.tokens, source.scope)
        if len(self.order) < count:
            directions = {name: v.float() for name, v in self.fisher.directions(gradients, self.damping).items()}
            return score_along(source.model, self.run.documents, directions, source.scope).influence
        scores = np.full((len(queries), count), np.nan)
        scores[:, self.order] = np.where(self.fisher.usable, self.fisher.scores(gradients, self.damping), np.nan)
        return scores

    def _damped(self, damping: float) -> FittedFisher:
        _require_positive(damping)
        return replace(self, damping=damping)


class Fisher(Estimator, name="fisher"):
    """Inverse empirical Fisher, exact in the space of the documents."""

    options = frozenset({"by_site", "sample"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedFisher:
        from winnow.attribution.fisher import EmpiricalFisher

        _require_positive(settings.damping)
        order = canonical_order(run.documents, settings.seed)[: max(1, int(settings.options.get("sample", SAMPLE)))]
        fisher = EmpiricalFisher.fit(
            run.final.load(),
            [run.documents[place] for place in order],
            settings.scope,
            by_site=bool(settings.options.get("by_site", 0)),
        )
        return FittedFisher(fisher, run, order, settings.damping)


def _require_positive(damping: float) -> None:
    if damping <= 0.0:
        raise UserError(f"damping {damping}: the empirical Fisher is singular; give a positive one")
