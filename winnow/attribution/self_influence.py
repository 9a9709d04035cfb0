r"""Self-influence of documents: how much a document's own training lowers its own loss; large = odd, rare or corrupt.

    gradient norm    |G_i|^2          curvature    G_i^T (H + lambda)^-1 G_i = sum (Q_S^T G_i Q_A)^2 / (Lambda + lambda)

summed over sites. A signal to *filter* by: mislabelled, garbled and memorised documents are large in it. It says
nothing about queries. Source: Pruthi et al. 2020, section 3.1; Koh and Liang 2017; factors as in
:mod:`winnow.attribution.kronecker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.curvature_terms import rotated_rows
from winnow.attribution.gradient_sums import GradientSums
from winnow.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.kronecker import Curvature


def self_influence(
    model: nn.Module,
    docs: Sequence[np.ndarray],
    scope: str = "blocks",
    *,
    curvature: Curvature | None = None,
    damping: float = 0.1,
) -> np.ndarray:
    """Return the self-influence of every document (token arrays), float64 ``[N]``, in one pass.

    With ``curvature`` the curvature form, else the squared gradient norm. NaN for a document without a finite loss and
    gradient. A document's value does not depend on the others. Raises :class:`UserError` for a curvature of another
    scope, or a damping that is not positive with it.
    """
    source = GradientSums(model, docs, scope)
    if curvature is None:
        return source.total_norms()
    if damping <= 0.0:
        raise UserError(f"damping {damping}: self-influence divides by the damped curvature; give a positive one")
    total = np.full(len(docs), np.nan)
    weights = {name: layer.inverse_eigenvalues(damping).float() for name, layer in curvature.layers.items()}
    for places, captured in source.captured():
        if missing := set(captured.sites) - set(weights):
            raise UserError(f"the curvature has no layer {min(missing)}; fit it with scope '{scope}'")
        found = np.zeros(len(places))
        for name, gradients in captured.sites.items():
            layer = curvature.layers[name]
            for start, stop, rotated in rotated_rows(gradients, layer.q_s, layer.q_a):
                values = rotated[: len(places)].square_().mul_(weights[name][start:stop])
                found += values.flatten(1).sum(dim=1).double().cpu().numpy()
        total[places.numpy()] = np.where(captured.usable.cpu().numpy(), found, np.nan)
    return total
