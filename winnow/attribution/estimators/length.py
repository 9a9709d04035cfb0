"""Length: a document's tokens, the same for every query. What a method must beat that may only prefer long ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun


class Length(Estimator, name="length"):
    """The longer, the more helpful."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return _Fitted(np.array([float(len(document)) for document in run.documents]))


@dataclass(frozen=True)
class _Fitted(Fitted):
    tokens: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        return np.tile(self.tokens, (len(queries), 1))
