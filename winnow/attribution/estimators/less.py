r"""LESS: cosines of the direction that Adam would step in with a document and the query's gradient, over checkpoints.

    Gamma_i = m' / sqrt(v' + epsilon),    m' = b1 m + (1 - b1) g_i,    v' = b2 v + (1 - b2) g_i^2
    I(q, i) = sum_k w_k cos(P Gamma_i(theta_k), P g_q(theta_k)),    w_k the learning rates, scaled to sum to 1

m and v are the training optimiser's, P the two-sided projection. Adam's corrections of m and v for its first steps are
factors common to all weights, which the cosine ignores (epsilon aside). The paper averages a subtask's queries before
the cosine and takes the largest over subtasks; here every query has its own score.
**Positive = helpful.** All Gamma_i share the momentum m, so scores rank documents and have no meaningful zero.

Source: Xia et al. 2024, sections 3 and 4 (there with low-rank adapters; here with the parameters of the scope).
``options``: beta1 and beta2 (as recorded, else 0.9 and 0.95), epsilon (1e-8).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.estimators import Estimator, Fitted
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from winnow.attribution.projected import Making, ProjectedGradients
    from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun


@dataclass(frozen=True)
class FittedLess(Fitted):
    """One entry of ``rows`` a checkpoint: P Gamma of the documents, of length one; ``weights`` sum to 1."""

    checkpoints: tuple[RunCheckpoint, ...]
    weights: np.ndarray
    making: Making
    rows: tuple[ProjectedGradients, ...]
    order: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        import torch

        from winnow.attribution.autocorrelation import products
        from winnow.attribution.projected import projected_gradients

        total = np.zeros((len(queries), len(self.order)))
        for checkpoint, weight, rows in zip(self.checkpoints, self.weights, self.rows, strict=True):
            asked = projected_gradients(checkpoint.load(), queries.tokens, self.making)
            cosines = products(torch.nn.functional.normalize(asked.values.double(), dim=1, eps=1e-300), rows)
            cosines[~asked.usable] = np.nan
            total += weight * cosines
        scores = np.empty_like(total)
        scores[:, self.order] = total
        return scores


class Less(Estimator, name="less", needs=frozenset({"optimizer"})):
    """Adam's own direction, projected, by cosine; over every checkpoint that kept its optimiser."""

    projects = True
    uses = frozenset({"scope"})
    options = frozenset({"beta1", "beta2", "epsilon"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedLess:
        from winnow.attribution.projected import Making, projected_gradients
        from winnow.attribution.projection import Projection

        kept = tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.optimizer is not None)
        rates = np.array([checkpoint.known_rate for checkpoint in kept])
        if rates.sum() <= 0.0:
            raise UserError("less weighs checkpoints by their learning rates; give one that is positive")
        making = Making(settings.scope, Projection(settings.projection, settings.seed))
        order = canonical_order(run.documents)
        found = []
        for checkpoint in kept:
            model = checkpoint.load()
            direction = adam_direction(model, checkpoint, settings)
            adam = Making(making.scope, making.projection, transform=direction)
            rows = projected_gradients(model, [run.documents[place] for place in order], adam)
            for _, block in rows.blocks():
                block.div_(block.norm(dim=1, keepdim=True).clamp(min=1e-30))
            found.append(rows)
        return FittedLess(kept, rates / rates.sum(), making, tuple(found), order)


def adam_direction(model: nn.Module, checkpoint: RunCheckpoint, settings: Settings) -> functools.partial[torch.Tensor]:
    """Return the function of a site's name, rows and gradients there that gives Gamma."""
    from winnow.attribution.sites import find_sites

    state = checkpoint.optimizer or {}
    moments = {}
    for name, site in find_sites(model, settings.scope).items():
        lacking = [one for one in site.parameters if "exp_avg" not in state.get(one, {})]
        if lacking:
            raise UserError(f"the optimiser state has no exp_avg of {lacking[0]}; save it with the checkpoint")
        first, second = (
            site.matrix({one: state[one][key] for one in site.parameters}) for key in ("exp_avg", "exp_avg_sq")
        )
        moments[name] = (first, second)
    options, (beta1, beta2) = settings.options, checkpoint.betas
    return functools.partial(
        _step, moments, options.get("beta1", beta1), options.get("beta2", beta2), options.get("epsilon", 1e-8)
    )


def _step(
    moments: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    beta1: float,
    beta2: float,
    epsilon: float,
    name: str,
    rows: slice,
    gradients: torch.Tensor,
) -> torch.Tensor:
    first, second = (moment[rows].to(gradients) for moment in moments[name])
    root = (second * beta2 + gradients.square() * (1.0 - beta2) + epsilon).sqrt()
    return (first * beta1 + gradients * (1.0 - beta1)) / root
