r"""TracInCP: gradient products summed over the checkpoints of training.

    score(q, i) = sum_k eta_k steps_k <g_q(theta_k), G_i(theta_k)>

with eta_k the learning rate at checkpoint k and steps_k the optimiser steps that it stands for. The first-order change
of the query's loss over plain gradient descent. Source: Pruthi et al. 2020, section 3.3 (evenly spaced checkpoints,
where steps_k is a constant).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedTracIn(Fitted):
    """The run; models are loaded one at a time as queries are scored."""

    run: TrainingRun
    scope: str

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, query_gradients, scope_size, score_along

        total = np.zeros((len(queries), len(self.run.documents)))
        for checkpoint in self.run.checkpoints:
            model = checkpoint.load()

            def products(some: Queries, model: nn.Module = model) -> np.ndarray:
                directions = query_gradients(model, some.tokens, self.scope)
                return score_along(model, self.run.documents, directions, self.scope).influence

            total += checkpoint.travelled * in_blocks(queries, scope_size(model, self.scope), products)
        return total


class TracIn(Estimator, name="tracin", needs=frozenset({"checkpoints"})):
    """Gradient products along the path of training."""

    uses = frozenset({"scope"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedTracIn:
        return FittedTracIn(run, settings.scope)
