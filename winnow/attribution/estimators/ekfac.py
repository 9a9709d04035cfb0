"""EK-FAC influence: V = iHVP(g_ref), the reference gradient divided by the damped curvature of the loss.

V = Q_S [(Q_S^T g_ref Q_A) / (Lambda + lambda)] Q_A^T for every layer, attention projections included; shapes and
conventions in :mod:`winnow.attribution.kronecker`. ``options["empirical"] = 1`` takes the text's labels instead of
sampled ones. <iHVP(g_ref), G> estimates how far the reference loss falls when the document gains weight in training
and the model is trained on to its new optimum. Source: Grosse et al. 2023, section 2; used for data selection by Quad
(Zhang et al. 2024), whose released code multiplies by the curvature where its text divides; this is the division.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional

if TYPE_CHECKING:
    import torch


class Ekfac(Directional, name="ekfac"):
    """Inverse curvature in the Kronecker eigenbasis."""

    requires_curvature = True
    options = frozenset({"empirical"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.curvature is None:
            raise ValueError("ekfac needs a fitted curvature")
        layers = context.curvature.layers
        return {name: layers[name].solve(value, context.damping) for name, value in gradients.items()}
