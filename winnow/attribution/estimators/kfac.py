"""K-FAC influence: V = iHVP(g_q) with the Kronecker product's own eigenvalues.

V = Q_S [(Q_S^T g_q Q_A) / (L_S L_A^T + lambda)] Q_A^T for every layer; lambda = ``damping`` times the mean of the
eigenvalues. EK-FAC measures the eigenvalues instead of multiplying them. ``options["empirical"] = 1`` takes the text's
labels instead of sampled ones. Source: Martens and Grosse 2015; shapes and conventions in
:mod:`winnow.attribution.kronecker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from winnow.attribution.estimators import Context, Directional

if TYPE_CHECKING:
    import torch


class Kfac(Directional, name="kfac"):
    """Inverse Kronecker-factored curvature."""

    requires_curvature = True
    options = frozenset({"empirical"})

    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        if context.curvature is None:
            raise ValueError("kfac needs a fitted curvature")
        layers = context.curvature.layers
        return {name: layers[name].solve(value, context.damping, kfac=True) for name, value in gradients.items()}
