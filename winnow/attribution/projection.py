r"""Seeded two-sided random projections of a layer's gradient: what of it is kept where there is no room for all.

A gradient G of shape [O, I] becomes

    L G R^T    [p, p],    L in {-1, +1}^[p, O] / sqrt(p),    R in {-1, +1}^[p, I] / sqrt(p),

so E[L^T L] and E[R^T R] are identities, and since L and R are independent the dot product is unbiased:
E[<L G R^T, L H R^T>] = <G, H>. A side of at most p rows (or columns) is not projected: its matrix is the identity. For
a linear layer G = sum_t d_t a_t^T is never formed: L G R^T = sum_t (L d_t) (R a_t)^T.

The signs come from the raw bits of a counter-based generator keyed by the seed, the layer's name and the side, so a
projection is the same on every machine and does not depend on which other layers are projected.

Source: Choe et al. 2024 (LoGra), section 3.1; Chang et al. 2024 (TrackStar), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import xxhash

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Projection:
    """Rows and columns (``dimension``) that every layer's gradient is projected to; 0 = nothing is projected."""

    dimension: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimension < 0:
            raise UserError(f"projection {self.dimension}: give the rows kept of a layer's gradient, or 0 for all")

    @property
    def id(self) -> str:
        """What is recorded beside projected gradients; equal ids of equal layers mean equal matrices."""
        return f"two-sided signs {self.dimension} seed {self.seed}" if self.dimension else "none"

    def shape(self, gradient_shape: tuple[int, int]) -> tuple[int, int]:
        """Return the shape that a gradient of shape ``[O, I]`` has after projection."""
        rows, columns = gradient_shape
        return (min(rows, self.dimension), min(columns, self.dimension)) if self.dimension else (rows, columns)

    def matrix(self, name: str, side: Side, size: int) -> np.ndarray:
        """Return one side's matrix of one layer, float32 ``[min(p, size), size]``; the identity where p >= size."""
        if not self.dimension or self.dimension >= size:
            return np.eye(size, dtype=np.float32)
        count = self.dimension * size
        key = xxhash.xxh3_128_intdigest(f"{self.seed}:{name}:{side}".encode())
        words = np.asarray(np.random.Philox(key=key).random_raw(-(-count // 64)), dtype="<u8")
        bits = np.unpackbits(words.view(np.uint8), count=count).astype(np.float32)
        return ((bits * 2.0 - 1.0) / np.float32(np.sqrt(self.dimension))).reshape(self.dimension, size)

    def sides(
        self, name: str, shape: tuple[int, int], scales: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return L and R, float32 ``[p, O]`` and ``[p, I]``, of a layer whose gradients have shape ``[O, I]``.

        ``scales``: vectors r ``[O]`` and c ``[I]`` that divide the gradient's rows and columns first (a second moment
        of rank one costs nothing so): L diag(r)^-1 G diag(c)^-1 R^T.
        """
        import torch

        left = torch.from_numpy(self.matrix(name, "left", shape[0]))
        right = torch.from_numpy(self.matrix(name, "right", shape[1]))
        return (left / scales[0].to(left), right / scales[1].to(right)) if scales is not None else (left, right)


@dataclass(frozen=True)
class Layout:
    """Where each layer's projected gradient lies in a flat row of ``width`` numbers: name to its shape, in order."""

    shapes: Mapping[str, tuple[int, int]]

    @property
    def width(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes.values())

    @property
    def blocks(self) -> dict[str, slice]:
        """The columns of each layer."""
        found, start = {}, 0
        for name, (rows, columns) in self.shapes.items():
            found[name] = slice(start, start + rows * columns)
            start += rows * columns
        return found
