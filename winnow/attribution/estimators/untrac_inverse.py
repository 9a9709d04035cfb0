"""UnTrac the other way round: unlearn the query by gradient ascent, and see by how much each document's loss rises.

Options: ``steps`` of ascent (1) and AdamW's ``learning_rate``, ``beta2``, ``clip``. Cost: the steps and a pass over all
documents a query, so cheap for few queries. Source: Isonuma and Titov 2024 (UnTrac), section 3 (UnTrac-Inv).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.adamw import ADAMW_OPTIONS
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.estimators.untrac import make_unlearner
from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedInverse(Fitted):
    """The run and how to unlearn."""

    run: TrainingRun
    settings: Settings

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats."""
        unlearner = make_unlearner(self.run, self.settings)
        return unlearner.influence([[query] for query in queries.tokens], self.run.documents)


class UntracInverse(Estimator, name="untrac_inverse", needs=frozenset({"optimizer"})):
    """Unlearn the query, measure the documents."""

    uses = frozenset()
    options = ADAMW_OPTIONS | {"steps"}

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return FittedInverse(run, settings)
