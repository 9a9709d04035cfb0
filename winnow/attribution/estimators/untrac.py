"""UnTrac document by document: unlearn it by gradient ascent, and see by how much each query's loss rises.

Options: ``steps`` of ascent (1) and AdamW's ``learning_rate``, ``beta2``, ``clip``. Cost: the steps and a pass over all
queries a document. Source: Isonuma and Titov 2024 (UnTrac), section 3; whole sources are unlearnt by
:func:`winnow.attribution.untrac.source_influence`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.adamw import ADAMW_OPTIONS, run_optimizer
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.attribution.untrac import Unlearner


@dataclass(frozen=True)
class FittedUntrac(Fitted):
    """The run and how to unlearn."""

    run: TrainingRun
    settings: Settings

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats."""
        unlearner = make_unlearner(self.run, self.settings)
        return unlearner.influence([[doc] for doc in self.run.documents], queries.tokens).T


class Untrac(Estimator, name="untrac", needs=frozenset({"optimizer"})):
    """Unlearn the document, measure the queries."""

    uses = frozenset()
    options = ADAMW_OPTIONS | {"steps"}

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return FittedUntrac(run, settings)


def make_unlearner(run: TrainingRun, settings: Settings) -> Unlearner:
    """Return the unlearner of a run's last checkpoint."""
    steps = int(settings.options.get("steps", 1))
    return Unlearner(run.final.load(), run_optimizer(run, settings), run.final.optimizer, steps=steps)
