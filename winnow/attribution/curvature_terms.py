"""What one batch adds to the factors of a model's curvature, taken site by site in its backward pass.

A site's inputs and output gradients are freed when its term is taken, so memory is that of the pass and of the terms
themselves: the covariances, or one number a parameter. Terms are float32; what they are added to is float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from winnow.attribution.ghost import LinearGradients, SiteGradients
from winnow.attribution.kronecker import Basis
from winnow.attribution.sites import Site

if TYPE_CHECKING:
    import torch

DENSE_ROWS = 4096
_CACHED = 1 << 18  # numbers of rotated gradients formed at once: they are squared while the processor's cache has them
_BLOCK = 96  # columns of a Gram matrix multiplied at once


class Terms(Protocol):
    """Takes the sites of one batch, the last first, and says what it has made of them."""

    def add(self, site: Site, gradients: SiteGradients) -> None:
        """Add what one site saw. Layers that read one tensor come one after the other."""

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield all that was made: not finite where a document was not."""


class CovarianceTerms:
    """``right`` and ``left`` by site, see :class:`winnow.attribution.curvature.Covariances`.

    ``same`` and ``linear`` are those of the whole sum: which layers read one tensor is decided in the first batch, as a
    matter of the model's structure. ``mask`` bool ``[B, T]``: positions that count.
    """

    def __init__(self, same: dict[str, str], linear: set[str], mask: torch.Tensor) -> None:
        self.right: dict[str, torch.Tensor] = {}
        self.left: dict[str, torch.Tensor] = {}
        self._same, self._linear, self._counts = same, linear, mask.sum(dim=1).float()
        self._longest = self._counts.max()
        # Rows of no document are zero, whatever their factor.
        self._alike = bool(((self._counts == self._longest) | (self._counts == 0.0)).all())
        self._last: tuple[torch.Tensor, str] | None = None

    def add(self, site: Site, gradients: SiteGradients) -> None:
        if not isinstance(gradients, LinearGradients):
            self._same[site.name] = site.name
            self._add_whole(site, gradients)
            return
        self._linear.add(site.name)
        given, taken = gradients.inputs, gradients.gradients.float()
        if self._last is None or self._last[0] is not given:
            self._last = (given, site.name)
        if self._same.setdefault(site.name, self._last[1]) == site.name:
            self.right[site.name] = gram(given.float().flatten(0, 1))
        flat = (taken if self._alike else taken * self._counts[:, None, None]).flatten(0, 1)
        wide = site.kind == "head" and flat.shape[1] > DENSE_ROWS
        left = flat.square().sum(dim=0) if wide else gram(flat)
        self.left[site.name] = left * self._longest.square() if self._alike else left

    def _add_whole(self, site: Site, gradients: SiteGradients) -> None:
        import torch

        if site.kind == "norm":
            values = gradients.per_example()
            self.right[site.name] = torch.einsum("boi,boj->ij", values, values)
            self.left[site.name] = torch.einsum("boi,bpi->op", values, values)
            return
        width = site.shape[1]
        left, right = [], None
        for start, stop in gradients.chunks():
            values = gradients.rows(start, stop)
            left.append(values.square().sum(dim=(0, 2)))
            term = gram(values.reshape(-1, width)).double()
            right = term if right is None else right + term
        if right is not None:
            self.right[site.name], self.left[site.name] = right, torch.cat(left)

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from self.right.values()
        yield from self.left.values()


class MomentTerms:
    """``squares``: the sum over documents of (Q_S^T G_n Q_A)^2, float32 ``[O, I]`` by site."""

    def __init__(self, bases: Mapping[str, Basis]) -> None:
        self.squares: dict[str, torch.Tensor] = {}
        self._bases, self._inputs = bases, RotatedInputs()

    def add(self, site: Site, gradients: SiteGradients) -> None:
        import torch

        basis = self._bases[site.name]
        rows = [rows.square_().sum(dim=0) for _, _, rows in rotated_rows(gradients, basis.q_s, basis.q_a, self._inputs)]
        self.squares[site.name] = torch.cat(rows)

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from self.squares.values()


class RotatedInputs:
    """The inputs last rotated: layers that read one tensor have one basis, and come one after the other."""

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def rotate(self, given: torch.Tensor, q_a: torch.Tensor) -> torch.Tensor:
        """Return inputs ``[B, T, I]`` times the basis, float32."""
        if self._last is None or self._last[0] is not given or self._last[1] is not q_a:
            self._last = (given, q_a, given.float() @ q_a)
        return self._last[2]


def rotated_rows(
    gradients: SiteGradients,
    q_s: torch.Tensor | None,
    q_a: torch.Tensor | None,
    inputs: RotatedInputs | None = None,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield (start, stop, rows ``start:stop`` of Q_S^T G_n Q_A, float32 ``[B, stop - start, I]``) of every document.

    The rows are the caller's to change. ``inputs`` is kept from site to site of one batch.
    """
    import torch

    height, width = gradients.site.shape
    if isinstance(gradients, LinearGradients):
        given, taken = gradients.inputs, gradients.gradients.float()
        if given.shape[1] * (height**2 + width**2) <= height * width * (height + width):
            turned = given.float() if q_a is None else (inputs or RotatedInputs()).rotate(given, q_a)
            taken = taken if q_s is None else taken @ q_s
            step = max(64, _CACHED // (len(gradients) * width)) if given.device.type == "cpu" else height
            for top, bottom in gradients.chunks():
                for start in range(top, bottom, step):
                    stop = min(start + step, bottom)
                    yield start, stop, torch.bmm(taken[:, :, start:stop].transpose(1, 2), turned)
            return
    if q_s is None:
        for start, stop in gradients.chunks():
            values = gradients.rows(start, stop)
            yield start, stop, values.clone() if q_a is None else values @ q_a
        return
    # Formed before it is rotated: cheaper for documents longer than the layer is wide.
    values = gradients.per_example()
    yield 0, height, q_s.T @ (values if q_a is None else values @ q_a)


def gram(flat: torch.Tensor) -> torch.Tensor:
    """Return X^T X on and above the diagonal, float32 ``[W, W]``, of X ``[n, W]``; what is below it means nothing."""
    width = flat.shape[1]
    if width < 2 * _BLOCK or flat.device.type != "cpu":
        return flat.T @ flat
    product = flat.new_zeros(width, width)
    step = -(-width // (width // _BLOCK))
    for start in range(0, width, step):
        part = slice(start, start + step)
        product[part, start:] = flat[:, part].T @ flat[:, start:]
    return product
