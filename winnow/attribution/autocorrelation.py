r"""Second moments of gradient rows, their inverse and inverse root, block by block.

For rows g_1 .. g_N (``[D]``; rows without a usable gradient do not count) and a block of d columns,

    R = (1/N) sum_i g_i g_i^T    [d, d],    (R + mu I)^-e,    mu = damping * trace(R) / d.

Where a block has more columns than rows, R is never formed: with R = Y^T Y, Y = [g_i / sqrt(N)], the eigenvectors come
from Y Y^T [N, N], and the columns' remaining directions all have eigenvalue mu. So gradients that are not projected at
all can be whitened too. Products are in float32; sums over chunks and eigendecompositions in float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.projection import Layout

RANK_TOLERANCE = 1e-6  # eigenvalues below so much of the largest are the rounding errors of products in float32
BLOCK_BYTES = 16 * 2**20
CHUNK = 1 << 21  # numbers of a wide block that are multiplied at once


def block_height(width: int) -> int:
    """Return how many float32 rows of ``width`` are worked on at once, 16 to 4,096: 16 MiB where rows are no longer."""
    return int(np.clip(BLOCK_BYTES // (4 * max(1, width)), 16, 4096))


class GradientRows(Protocol):
    """N gradients of D numbers, in memory or in a store; a row that is not usable is zero."""

    @property
    def layout(self) -> Layout: ...

    @property
    def usable(self) -> np.ndarray: ...

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, float32 ``[block_height(D), D]`` (fewer at the end), and where they lie."""
        ...


@dataclass(frozen=True)
class Factor:
    """Y ``[n, d]`` of R = Y^T Y, kept as float32 rows (often views of all documents' rows) and a weight each."""

    pieces: tuple[tuple[float, torch.Tensor], ...]
    width: int

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.pieces)

    def columns(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield Y, float32 ``[n, w]``, a few columns at a time."""
        import torch

        step = max(1, CHUNK // max(1, len(self)))
        for start in range(0, self.width, step):
            where = slice(start, min(start + step, self.width))
            yield where, torch.cat([weight * rows[:, where] for weight, rows in self.pieces])

    def gram(self) -> torch.Tensor:
        """Return Y Y^T, float64 ``[n, n]``."""
        import torch

        total = torch.zeros((len(self), len(self)), dtype=torch.float64)
        for _, part in self.columns():
            total += part @ part.T
        return total

    def onto(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows Y^T, float64 ``[m, n]``, for rows ``[m, d]``."""
        import torch

        total = torch.zeros((len(rows), len(self)), dtype=torch.float64)
        for where, part in self.columns():
            total += rows[:, where].float() @ part.T
        return total

    def back(self, weights: torch.Tensor) -> torch.Tensor:
        """Return weights Y, float64 ``[m, d]``, for weights ``[m, n]``."""
        import torch

        return torch.cat([weights @ part.double() for _, part in self.columns()], dim=1)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of R that are not zero, float64 ``[r]``, and their eigenvectors.

    ``basis`` float64 ``[d, r]`` holds the eigenvectors, or with ``factor`` the ``[n, r]`` that makes them: Y^T basis.
    """

    width: int
    basis: torch.Tensor
    values: torch.Tensor
    factor: Factor | None = None

    @property
    def mean(self) -> float:
        """The mean of all d eigenvalues, trace(R) / d."""
        return float(self.values.sum()) / max(1, self.width)

    def power(self, rows: torch.Tensor, exponent: float, damping: float) -> torch.Tensor:
        """Return (R + mu I)^exponent applied to each row, float64 ``[n, d]``; mu = ``damping`` times the mean.

        Without damping directions outside R's range are dropped (the pseudo-inverse). A block without any gradient
        gives zeros.
        """
        import torch

        if self.mean <= 0.0:
            return torch.zeros(rows.shape, dtype=torch.float64)
        floor = damping * self.mean
        along = self._along(rows)
        weights = (self.values + floor) ** exponent
        if floor > 0.0 and len(self.values) < self.width:
            rest = floor**exponent
            return self._back(along * (weights - rest)).add_(rows, alpha=rest)
        return self._back(along * weights)

    def form(self, rows: torch.Tensor, exponent: float, damping: float) -> torch.Tensor:
        """Return g^T (R + mu I)^exponent g of each row g, float64 ``[n]``, as :meth:`power` would give it."""
        import torch

        if self.mean <= 0.0:
            return torch.zeros(len(rows), dtype=torch.float64)
        floor = damping * self.mean
        along = self._along(rows).square()
        out = along @ (self.values + floor) ** exponent
        if floor > 0.0 and len(self.values) < self.width:
            out += floor**exponent * (rows.double().square().sum(dim=1) - along.sum(dim=1)).clamp(min=0.0)
        return out

    def _along(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.double() if self.factor is None else self.factor.onto(rows)) @ self.basis

    def _back(self, along: torch.Tensor) -> torch.Tensor:
        return along @ self.basis.T if self.factor is None else self.factor.back(along @ self.basis.T)


@dataclass(frozen=True)
class Autocorrelation:
    """R of one block: itself, float64 ``[d, d]``, or its factor."""

    held: torch.Tensor | Factor

    def matrix(self) -> torch.Tensor:
        """Return R, ``[d, d]``."""
        import torch

        if isinstance(self.held, torch.Tensor):
            return self.held
        parts = torch.cat([part for _, part in self.held.columns()], dim=1).double()
        return parts.T @ parts

    def mixed(self, other: Autocorrelation, share: float) -> Autocorrelation:
        """Return ``share`` of this R plus the rest of the other's."""
        mine, theirs = self.held, other.held
        if isinstance(mine, Factor) and isinstance(theirs, Factor) and len(mine) + len(theirs) < mine.width:
            pieces = [(weight * share**0.5, rows) for weight, rows in mine.pieces]
            pieces += [(weight * (1.0 - share) ** 0.5, rows) for weight, rows in theirs.pieces]
            return Autocorrelation(Factor(tuple(pieces), mine.width))
        return Autocorrelation(share * self.matrix() + (1.0 - share) * other.matrix())

    def eigenvalues(self) -> torch.Tensor:
        """Return the eigenvalues of R or Y Y^T, ascending; all others are zero."""
        import torch

        return torch.linalg.eigvalsh(self.held.gram() if isinstance(self.held, Factor) else self.held)

    def spectrum(self) -> Spectrum:
        """Return the eigenvectors and eigenvalues of R that are not zero."""
        import torch

        factor = self.held if isinstance(self.held, Factor) else None
        values, basis = torch.linalg.eigh(self.held.gram() if isinstance(self.held, Factor) else self.held)
        keep = values > RANK_TOLERANCE * float(values[-1])
        values, basis = values[keep], basis[:, keep]
        if factor is None:
            return Spectrum(len(basis), basis, values)
        return Spectrum(factor.width, basis / values.sqrt(), values, factor)


def autocorrelations(rows: GradientRows, blocks: Mapping[str, slice]) -> dict[str, Autocorrelation]:
    """Return R of every block of columns over the usable rows, in one pass."""
    import torch

    count = max(1, int(rows.usable.sum()))
    sums: dict[str, torch.Tensor] = {}
    kept: dict[str, list[tuple[float, torch.Tensor]]] = {}
    for name, columns in blocks.items():
        width = columns.stop - columns.start
        if width > len(rows.usable):
            kept[name] = []
        else:
            sums[name] = torch.zeros((width, width), dtype=torch.float64)
    for _, values in rows.blocks():
        for name, total in sums.items():
            block = values[:, blocks[name]]
            total += block.T @ block
        for name, pieces in kept.items():
            pieces.append((count**-0.5, values[:, blocks[name]]))
    found = {name: Autocorrelation(total / count) for name, total in sums.items()}
    for name, pieces in kept.items():
        found[name] = Autocorrelation(Factor(tuple(pieces), blocks[name].stop - blocks[name].start))
    return {name: found[name] for name in blocks}


def save_spectra(spectra: Mapping[str, Spectrum], path: Path) -> None:
    """Write spectra to one safetensors file, by temporary file and rename; nothing where one leans on its rows."""
    from safetensors.torch import save_file

    if any(spectrum.factor is not None for spectrum in spectra.values()):
        return
    tensors = {f"{name}/basis": spectrum.basis.contiguous() for name, spectrum in spectra.items()}
    tensors |= {f"{name}/values": spectrum.values.contiguous() for name, spectrum in spectra.items()}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


def load_spectra(path: Path) -> dict[str, Spectrum]:
    """Read what :func:`save_spectra` wrote. Raises :class:`UserError` for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = [name.removesuffix("/basis") for name in file.keys() if name.endswith("/basis")]  # noqa: SIM118
            found = {name: (file.get_tensor(f"{name}/basis"), file.get_tensor(f"{name}/values")) for name in names}
        return {name: Spectrum(len(basis), basis, values) for name, (basis, values) in found.items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not the spectra of a gradient store ({error}); delete this file") from error


def powered(
    values: torch.Tensor, spectra: Mapping[str, Spectrum], blocks: Mapping[str, slice], exponent: float, damping: float
) -> torch.Tensor:
    """Return float64 ``[n, D]``: every block of ``values`` (``[n, D]``) times (R + mu I)^exponent of that block."""
    import torch

    out = torch.zeros(values.shape, dtype=torch.float64)
    for name, columns in blocks.items():
        out[:, columns] = spectra[name].power(values[:, columns], exponent, damping)
    return out


def products(directions: torch.Tensor, rows: GradientRows) -> np.ndarray:
    """Return float64 ``[Q, N]``: the dot product of every direction (``[Q, D]``) with every row, NaN for unusable rows.

    Products are in float32. Holds one block of rows at a time; every block is multiplied at its full height, so that
    a row's bits depend neither on how many there are nor on how a store cuts them into parts.
    """
    import torch

    out = np.full((len(directions), len(rows.usable)), np.nan)
    flat, height = directions.float().T.contiguous(), block_height(rows.layout.width)
    for where, values in rows.blocks():
        count = len(values)
        full = values if count == height else torch.cat([values, values.new_zeros(height - count, values.shape[1])])
        out[:, where] = (full @ flat)[:count].double().T.numpy()
    out[:, ~rows.usable] = np.nan
    return out
