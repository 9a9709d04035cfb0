r"""Empirical Fisher of whole documents, inverted in the space of the documents: no P x P matrix is formed.

With the N documents' gradients as rows of G ``[N, P]``, of all sites in one block or of one site a block,

    F = G^T G / N,        (F + lambda I)^-1 G^T = N G^T (G G^T + lambda N I)^-1

(Woodbury), so the score g_q^T (F + lambda I)^-1 g_i of documents that F was measured on needs products of gradients,

    scores = N K_q (K + lambda N I)^-1,    K = G G^T [N, N],    K_q = G_q G^T [Q, N],

and for any other document the direction is V_q = (g_q - G^T (K + lambda N I)^-1 K_q^T) / lambda. lambda is ``damping``
times the mean of F's P eigenvalues, trace(K) / (N P). Sums and solutions are in float64.

Source: the natural gradient with the empirical Fisher (Kunstner et al. 2019 on what it is not); the identity is
Woodbury's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.directional import query_gradients
from winnow.attribution.gradient_sums import GradientSums
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

WHOLE = ""  # the name of the block that holds every site
HELD_BYTES = 1 << 29


@dataclass(frozen=True)
class EmpiricalFisher:
    """``kernels`` float64 ``[N, N]`` by block; ``sizes`` P by block; ``usable`` bool ``[N]``; see above."""

    source: GradientSums
    kernels: dict[str, torch.Tensor]
    sizes: dict[str, int]
    usable: np.ndarray

    @classmethod
    def fit(cls, model: nn.Module, docs: Sequence[np.ndarray], scope: str, *, by_site: bool = False) -> EmpiricalFisher:
        """Measure K of token arrays: about N / (documents whose gradients fit in ``HELD_BYTES``) passes over them.

        Raises :class:`UserError` when no document has a finite gradient.
        """
        import torch

        from winnow.attribution.sites import find_sites

        source = GradientSums(model, docs, scope)
        sizes = {name: site.shape[0] * site.shape[1] for name, site in find_sites(model, scope).items()}
        blocks = {name: name if by_site else WHOLE for name in sizes}
        kernels = {block: torch.zeros(len(docs), len(docs), dtype=torch.float64) for block in set(blocks.values())}
        usable = np.zeros(len(docs), dtype=np.bool_)
        step = max(1, HELD_BYTES // (4 * sum(sizes.values())))
        for start in range(0, len(docs), step):
            found = query_gradients(model, docs[start : start + step], scope)
            held = {name: torch.nan_to_num_(value, 0.0, 0.0, 0.0) for name, value in found.items()}
            products, usable = source.products(held)
            for name, product in products.items():
                kernels[blocks[name]][start : start + step] += product
        if not usable.any():
            raise UserError(f"none of the {len(docs)} documents has a finite loss and gradient; check the checkpoint")
        totals: dict[str, int] = {}
        for name, block in blocks.items():
            totals[block] = totals.get(block, 0) + sizes[name]
        return cls(source, {name: (k + k.T) / 2 for name, k in sorted(kernels.items())}, totals, usable)

    def scores(self, queries: dict[str, torch.Tensor], damping: float) -> np.ndarray:
        """Return g_q^T (F + lambda)^-1 g_i, float64 ``[Q, N]``, on the documents that F was measured on."""
        import torch

        products, _ = self.source.products(queries)
        count = int(self.usable.sum())
        total = np.zeros((len(next(iter(queries.values()))), len(self.usable)))
        for block, crossed in self._gather(products).items():
            damped = self._damped(block, damping)
            total += count * torch.linalg.solve(damped, crossed.T).T.numpy()
        return total

    def directions(self, queries: dict[str, torch.Tensor], damping: float) -> dict[str, torch.Tensor]:
        """Return V_q = (F + lambda)^-1 g_q, float64 ``[Q, O, I]`` by site, for any documents."""
        import torch

        if damping <= 0.0:
            raise UserError(f"damping {damping}: the inverse of the empirical Fisher needs a positive one")
        products, _ = self.source.products(queries)
        crossed = self._gather(products)
        weights = {block: torch.linalg.solve(self._damped(block, damping), k.T).T for block, k in crossed.items()}
        sums = self.source.weighted_sums({name: weights[self._block(name)] for name in queries})
        return {
            name: (value.double() - sums[name]) / self.floor(self._block(name), damping)
            for name, value in queries.items()
        }

    def floor(self, block: str, damping: float) -> float:
        """Return lambda of a block."""
        trace = float(self.kernels[block].diagonal().sum())
        return damping * trace / (int(self.usable.sum()) * self.sizes[block])

    def _damped(self, block: str, damping: float) -> torch.Tensor:
        import torch

        kernel = self.kernels[block]
        floor = self.floor(block, damping) * int(self.usable.sum())
        # Documents that cannot be used are rows of zeros: any positive diagonal keeps the solution finite, theirs zero.
        extra = (
            torch.from_numpy(~self.usable).double() if floor == 0.0 else torch.zeros(len(kernel), dtype=torch.float64)
        )
        return kernel + torch.diag(extra + floor)

    def _gather(self, products: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gathered: dict[str, torch.Tensor] = {}
        for name, product in products.items():
            block = self._block(name)
            gathered[block] = gathered[block] + product if block in gathered else product
        return gathered

    def _block(self, name: str) -> str:
        return name if name in self.kernels else WHOLE
