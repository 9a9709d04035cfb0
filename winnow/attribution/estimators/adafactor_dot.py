"""Gradient product in Adafactor's metric: V = g_q / (sqrt(r c^T) + epsilon), the optimiser's second moment of rank one.

r c^T has the row and column means of Adam's second moment (or is Adafactor's own), see
:mod:`winnow.attribution.second_moments`; epsilon = ``damping`` times its mean root. To first order, one step of size
eta on the document lowers the query's loss by eta times the influence. Source: Shazeer and Stern 2018; Chang et al.
2024 (TrackStar) normalise gradients so.

``options["beta2"]`` (as recorded, else 0.95): the optimiser's, to correct the bias of its first steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional
from winnow.attribution.second_moments import damped_quotient, rank_one

if TYPE_CHECKING:
    import torch


class AdafactorDot(Directional, name="adafactor_dot", needs=frozenset({"optimizer"})):
    """Adafactor's factored preconditioner."""

    requires_second_moments = True
    options = frozenset({"beta2"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.second_moments is None:
            raise ValueError("adafactor_dot needs the optimiser's second moments")
        quotients = {}
        for name, value in gradients.items():
            rows, columns = (side.sqrt() for side in rank_one(context.second_moments[name]))
            quotients[name] = damped_quotient(value, rows[:, None] * columns, context.damping)
        return quotients
