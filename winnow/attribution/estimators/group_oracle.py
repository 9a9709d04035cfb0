"""The group oracle as an estimator: documents' credit by regression on rollouts of ten steps.

Sees what a document does in company and while its momentum lasts; the one-step oracle sees a tenth of it. Options:
``steps`` a rollout (10), ``rounds`` in which every document takes part once (4), and ``learning_rate``, ``beta1``,
``beta2``, ``weight_decay``, ``clip`` of AdamW. Cost: rounds x (a step and a pass over all queries) a document. Source:
Yu et al. 2025 (Group-MATES), section 3; the regression is of :mod:`winnow.attribution.group_oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.adamw import ADAMW_OPTIONS, AdamW, run_optimizer
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.group_oracle import credit, draw_groups, roll_out
from winnow.attribution.oracle import OneStepOracle, measurable
from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedGroups(Fitted):
    """The last checkpoint, its optimiser and the groups, int64 ``[G, k]``."""

    run: TrainingRun
    optimizer: AdamW
    groups: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats; NaN where the document or the query has no finite loss."""
        model = self.run.final.load()
        scores = np.full((len(queries), len(self.run.documents)), np.nan)
        places = measurable(model, queries.tokens)
        if len(places):
            measured = [queries.tokens[place] for place in places]
            oracle = OneStepOracle(model, measured, self.optimizer, self.run.final.optimizer, reference_tokens=None)
            rollouts = roll_out(oracle, self.run.documents, self.groups)
            found = credit(rollouts, len(self.run.documents), self.optimizer.betas[0])
            scores[places[oracle.reference_used]] = found.T
        return scores


class GroupOracle(Estimator, name="group_oracle", needs=frozenset({"optimizer"})):
    """Train on groups, regress on their members."""

    uses = frozenset()
    options = ADAMW_OPTIONS | {"steps", "rounds"}

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        size, rounds = int(settings.options.get("steps", 10)), int(settings.options.get("rounds", 4))
        groups = draw_groups(run.documents, size, rounds, settings.seed)
        return FittedGroups(run, run_optimizer(run, settings), groups)
