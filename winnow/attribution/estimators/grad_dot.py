"""Plain gradient product: V = g_ref, influence = sum over layers of <g_ref, G>.

To first order, a gradient step of size eta on the document lowers the reference loss by eta times this influence.
Source: Pruthi et al. 2020 (TracIn), one checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional

if TYPE_CHECKING:
    import torch


class GradDot(Directional, name="grad_dot"):
    """No preconditioning."""

    uses = frozenset({"scope"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        return dict(gradients)
