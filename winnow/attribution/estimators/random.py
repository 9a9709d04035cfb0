"""Chance: a score that hashes the tokens of document and query with the seed. What every method must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.batching import uniforms
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun


class Random(Estimator, name="random"):
    """Uniform in [0, 1), the same for the same pair wherever they stand."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return _Fitted(run, settings.seed)


@dataclass(frozen=True)
class _Fitted(Fitted):
    run: TrainingRun
    seed: int

    def score(self, queries: Queries) -> np.ndarray:
        # The length of the query says where it ends and the document begins.
        pairs = [
            [
                uniforms(np.concatenate([[len(query)], query, document]), self.seed, 1)[0]
                for document in self.run.documents
            ]
            for query in queries.tokens
        ]
        return np.array(pairs).reshape(len(queries), len(self.run.documents))
