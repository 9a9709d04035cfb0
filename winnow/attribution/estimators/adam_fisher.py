"""Diagonal Fisher influence: V = g_ref / (v + epsilon), v = the optimiser's second moment per weight.

v is the mean squared gradient of recent batches: the diagonal of the empirical Fisher, which AdamW keeps for nothing.
Where ``adam_dot`` asks what one step of AdamW does and divides by sqrt(v) once, this asks where training ends when a
document gains weight, and divides by the curvature itself, as ``ekfac`` does in a better basis. On the head that weighs
a shared token by how rarely it is predicted. epsilon = ``damping`` times the layer's mean v. The scope decides more
than the damping: ``embeddings+head`` first. Source: Amari 1998 (natural gradient), with the diagonal that Kingma and Ba
2015, section 3 say v approximates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional

if TYPE_CHECKING:
    import torch


class AdamFisher(Directional, name="adam_fisher", needs=frozenset({"optimizer"})):
    """The inverse of the diagonal that the optimiser has measured."""

    requires_second_moments = True

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.second_moments is None:
            raise ValueError("adam_fisher needs the optimiser's second moments")
        return {
            name: _divide(value, context.second_moments[name], context.damping) for name, value in gradients.items()
        }


def _divide(gradient: torch.Tensor, second_moment: torch.Tensor, damping: float) -> torch.Tensor:
    curvature = second_moment.double().clamp(min=0.0)
    mean = float(curvature.mean())
    return gradient / (curvature + damping * mean) if mean > 0.0 else gradient.double()
