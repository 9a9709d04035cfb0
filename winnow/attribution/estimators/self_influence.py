"""Self-influence as an estimator: the same row for every query, for comparison with methods that look at the query.

The squared gradient norm summed over the run's checkpoints, each weighted by learning rate and steps. Large = odd, rare
or corrupt, so as a score of helpfulness it is a baseline to beat. See :mod:`winnow.attribution.self_influence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedSelfInfluence(Fitted):
    """``values`` float64 ``[N]``: what every query is given."""

    values: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        return np.tile(self.values, (len(queries), 1))


class SelfInfluence(Estimator, name="self_influence"):
    """Squared gradient norms along the path of training."""

    uses = frozenset({"scope"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedSelfInfluence:
        from winnow.attribution.self_influence import self_influence

        total = np.zeros(len(run.documents))
        for checkpoint in run.checkpoints:
            weight = checkpoint.travelled
            total += weight * self_influence(checkpoint.load(), run.documents, settings.scope)
        return FittedSelfInfluence(total)
