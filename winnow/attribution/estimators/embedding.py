"""Embedding cosine: how alike document and query are to a text encoder that knows nothing of the model or its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.errors import UserError


class Embedding(Estimator, name="embedding", needs=frozenset({"encode", "texts"})):
    """The semantic baseline."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        if run.encode is None or run.texts is None:
            raise UserError("embedding compares texts by an encoder; give the run's texts and encode")
        return _Fitted(run.encode, run.encode(run.texts).astype(np.float64))


@dataclass(frozen=True)
class _Fitted(Fitted):
    encode: Callable[[Sequence[str]], np.ndarray]
    documents: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        if queries.texts is None:
            raise UserError("embedding compares texts; give the queries' texts")
        return self.encode(queries.texts).astype(np.float64) @ self.documents.T
