"""The one-step oracle as an estimator: each document's own AdamW step, measured on every query.

The score is the fall of the query's loss beyond what momentum and weight decay do without any document. It is exact for
one more step from the last checkpoint, and the slowest method here: a step and a pass over all queries a document.
Options: ``learning_rate``, ``beta1``, ``beta2``, ``weight_decay``, ``clip`` of AdamW. Source: Yu et al. 2024 (MATES),
section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.adamw import ADAMW_OPTIONS, AdamW, run_optimizer
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.oracle import OneStepOracle, measurable
from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedOracle(Fitted):
    """The last checkpoint and its optimiser."""

    run: TrainingRun
    optimizer: AdamW

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats; NaN where the document or the query has no finite loss."""
        model = self.run.final.load()
        scores = np.full((len(queries), len(self.run.documents)), np.nan)
        places = measurable(model, queries.tokens)
        if len(places):
            measured = [queries.tokens[place] for place in places]
            oracle = OneStepOracle(model, measured, self.optimizer, self.run.final.optimizer, reference_tokens=None)
            shares = oracle.probe_each(self.run.documents)[1] - oracle.drifts
            scores[places[oracle.reference_used]] = shares.T
        return scores


class Oracle(Estimator, name="oracle", needs=frozenset({"optimizer"})):
    """Take the step, measure again."""

    uses = frozenset()
    options = ADAMW_OPTIONS

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return FittedOracle(run, run_optimizer(run, settings))
