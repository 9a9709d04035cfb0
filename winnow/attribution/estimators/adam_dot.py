"""Gradient product in Adam's metric: V = g_ref / (sqrt(v) + epsilon), v = the optimiser's second moment per weight.

To first order, one Adam step of size eta on the document (momentum aside) lowers the reference loss by eta times the
influence <V, G>: Adam divides the document's gradient by sqrt(v), and the product does not mind which side is divided.
epsilon = ``damping`` times the layer's mean sqrt(v), so weights that never moved do not dominate.
Source: Xia et al. 2024 (LESS), the optimiser-aware product, without momentum, projection or unit norms.

``options["beta2"]`` (as recorded, else 0.95): the optimiser's, to correct the bias of its first steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional
from winnow.attribution.second_moments import damped_quotient

if TYPE_CHECKING:
    import torch


class AdamDot(Directional, name="adam_dot", needs=frozenset({"optimizer"})):
    """The training optimiser's own diagonal preconditioner."""

    requires_second_moments = True
    options = frozenset({"beta2"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.second_moments is None:
            raise ValueError("adam_dot needs the optimiser's second moments")
        quotients = {}
        for name, value in gradients.items():
            moment = context.second_moments[name].double()
            quotients[name] = damped_quotient(value, moment.clamp(min=0.0).sqrt(), context.damping)
        return quotients
