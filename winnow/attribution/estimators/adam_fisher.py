"""Diagonal Fisher influence: V = g_ref / (v + epsilon), v = the optimiser's second moment per weight.

v is the mean squared gradient of recent batches: the diagonal of the empirical Fisher, which AdamW keeps for nothing.
Where ``adam_dot`` asks what one step of AdamW does and divides by sqrt(v) once, this asks where training ends when a
document gains weight, and divides by the curvature itself, as ``ekfac`` does in a better basis. On the head that weighs
a shared token by how rarely it is predicted. epsilon = ``damping`` times the layer's mean v. The scope decides more
than the damping: ``embeddings+head`` first. Source: Amari 1998 (natural gradient), with the diagonal that Kingma and Ba
2015, section 3 say v approximates.

``options["beta2"]`` (as recorded, else 0.95): the optimiser's, to correct the bias of its first steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional
from winnow.attribution.second_moments import damped_quotient

if TYPE_CHECKING:
    import torch


class AdamFisher(Directional, name="adam_fisher", needs=frozenset({"optimizer"})):
    """The inverse of the diagonal that the optimiser has measured."""

    requires_second_moments = True
    options = frozenset({"beta2"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.second_moments is None:
            raise ValueError("adam_fisher needs the optimiser's second moments")
        quotients = {}
        for name, value in gradients.items():
            moment = context.second_moments[name].double()
            quotients[name] = damped_quotient(value, moment.clamp(min=0.0), context.damping)
        return quotients
