"""Gradient product in Adafactor's metric: V = g_q / (sqrt(r c^T) + epsilon), the optimiser's second moment of rank one.

r c^T has the row and column means of Adam's second moment (or is Adafactor's own), see
:mod:`winnow.attribution.second_moments`; epsilon = ``damping`` times its mean root. To first order, one step of size
eta on the document lowers the query's loss by eta times the influence. Source: Shazeer and Stern 2018; Chang et al.
2024 (TrackStar) normalise gradients so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional

if TYPE_CHECKING:
    import torch


class AdafactorDot(Directional, name="adafactor_dot", needs=frozenset({"optimizer"})):
    """Adafactor's factored preconditioner."""

    requires_second_moments = True

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.second_moments is None:
            raise ValueError("adafactor_dot needs the optimiser's second moments")
        return {
            name: _divide(value, context.second_moments[name], context.damping) for name, value in gradients.items()
        }


def _divide(gradient: torch.Tensor, second_moment: torch.Tensor, damping: float) -> torch.Tensor:
    from winnow.attribution.second_moments import rank_one

    rows, columns = (side.sqrt() for side in rank_one(second_moment))
    root = rows[:, None] * columns
    mean = float(root.mean())
    return gradient / (root + damping * mean) if mean > 0.0 else gradient.double()
