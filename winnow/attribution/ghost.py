r"""Norms and products of per-document gradients from what a layer saw, in the cheaper of two forms.

A linear layer with inputs a_t in R^I and output gradients d_t in R^O has for document i the gradient
G_i = sum_t d_t a_t^T ``[O, I]``. Two ways to a product of B documents with others:

- *ghost*: <G_i, G_j> = sum_{t,u} (a_{i,t} . a_{j,u}) (d_{i,t} . d_{j,u}), no gradient is formed, T^2 (O + I) a pair;
- *dense*: G_i is formed, T O I a document (as much as the weight gradient of training), then O I a pair in one matrix
  product. Wide layers are formed a few rows of O at a time, so that no more than ``BUFFER`` numbers are held.

Against Q dense directions V_q, <V_q, G_i> takes the dense form for Q > 1: (T + Q) O I instead of T Q O I.

Products are in float32, sums over chunks in float64. Where captured tensors *and* directions are bfloat16, <V_q, G_i>
is multiplied in bfloat16, which accumulates in float32 and is rounded once a site (2^-9 of the site's product).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch

    from winnow.attribution.sites import Site

BUFFER = 1 << 24  # numbers of formed gradients held at once: 64 MiB in float32


@dataclass(frozen=True)
class SiteGradients(ABC):
    """The gradients of the documents in one batch with respect to one site: B documents, each ``[O, I]``."""

    site: Site

    @abstractmethod
    def __len__(self) -> int:
        """Return B."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start:stop`` of every document's gradient, float32 ``[B, stop - start, I]``."""

    def per_example(self) -> torch.Tensor:
        """Return every document's gradient, float32 ``[B, O, I]``."""
        return self.rows(0, self.site.shape[0])

    def total(self) -> torch.Tensor:
        """Return the sum of the documents' gradients, float64 ``[O, I]``."""
        import torch

        return torch.cat([self.rows(start, stop).double().sum(dim=0) for start, stop in self.chunks()])

    def norms(self) -> torch.Tensor:
        """Return every document's squared Frobenius norm, float64 ``[B]``."""
        import torch

        total = torch.zeros(len(self), dtype=torch.float64, device=self._device)
        for start, stop in self.chunks():
            total += self.rows(start, stop).square().flatten(1).sum(dim=1).double()
        return total

    def along(self, directions: torch.Tensor) -> torch.Tensor:
        """Return <V_q, G_i>, float64 ``[B, Q]``, for dense directions V ``[Q, O, I]``."""
        import torch

        total = torch.zeros(len(self), len(directions), dtype=torch.float64, device=self._device)
        for start, stop in self.chunks():
            total += products(self._rows_as(directions.dtype, start, stop), directions[:, start:stop])
        return total

    def _rows_as(self, dtype: torch.dtype, start: int, stop: int) -> torch.Tensor:
        return self.rows(start, stop).to(dtype)

    def dots(self, other: SiteGradients) -> torch.Tensor:
        """Return <G_i, G_j>, float64 ``[B, B2]``, with the documents of another batch at the same site."""
        import torch

        total = torch.zeros(len(self), len(other), dtype=torch.float64, device=self._device)
        for start, stop in self.chunks(len(self) + len(other)):
            total += products(self.rows(start, stop), other.rows(start, stop))
        return total

    def project(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return L G_i R^T, float32 ``[B, p, p']``, for L ``[p, O]`` and R ``[p', I]``."""
        import torch

        total = torch.zeros(len(self), len(left), len(right), device=self._device)
        for start, stop in self.chunks():
            total += left[:, start:stop].float() @ (self.rows(start, stop) @ right.float().T)
        return total

    @abstractmethod
    def finite(self) -> torch.Tensor:
        """Return bool ``[B]``: every number of the document is finite."""

    @abstractmethod
    def kept(self, mask: torch.Tensor) -> Self:
        """Return the same with the documents where ``mask`` (bool ``[B]``) is false set to zero."""

    @property
    @abstractmethod
    def _device(self) -> torch.device: ...

    def chunks(self, documents: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of rows few enough to be formed at once, for so many documents (the batch's B)."""
        height, width = self.site.shape
        step = max(1, BUFFER // (max(1, documents or len(self)) * width))
        for start in range(0, height, step):
            yield start, min(start + step, height)


@dataclass(frozen=True)
class LinearGradients(SiteGradients):
    """``inputs`` ``[B, T, I]`` (a column of ones last where the bias counts) and ``gradients`` ``[B, T, O]``."""

    inputs: torch.Tensor
    gradients: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        import torch

        return torch.bmm(self.gradients[:, :, start:stop].transpose(1, 2).float(), self.inputs.float())

    def total(self) -> torch.Tensor:
        return (self.gradients.float().flatten(0, 1).T @ self.inputs.float().flatten(0, 1)).double()

    def norms(self) -> torch.Tensor:
        positions, (height, width) = self.inputs.shape[1], self.site.shape
        if positions * (height + width) > height * width:
            return super().norms()
        return ghost_norms(self)

    def along(self, directions: torch.Tensor) -> torch.Tensor:
        if len(directions) > 1:
            return super().along(directions)
        turned = self.gradients.float() @ directions[0].float()
        return turned.mul_(self.inputs).sum(dim=2).double().sum(dim=1)[:, None]

    def _rows_as(self, dtype: torch.dtype, start: int, stop: int) -> torch.Tensor:
        import torch

        return torch.bmm(self.gradients[:, :, start:stop].transpose(1, 2).to(dtype), self.inputs.to(dtype))

    def dots(self, other: SiteGradients) -> torch.Tensor:
        height, width = self.site.shape
        if not isinstance(other, LinearGradients):
            return super().dots(other)
        here, there = self.inputs.shape[1], other.inputs.shape[1]
        pairs = len(self) * len(other)
        dense = height * width * (len(self) * here + len(other) * there + pairs)
        return ghost_dots(self, other) if pairs * here * there * (height + width) < dense else super().dots(other)

    def project(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        turned = self.gradients.float() @ left.float().T
        return turned.transpose(1, 2) @ (self.inputs.float() @ right.float().T)

    def finite(self) -> torch.Tensor:
        return finite_rows(self.inputs) & finite_rows(self.gradients)

    def kept(self, mask: torch.Tensor) -> Self:
        return replace(self, inputs=kept_rows(self.inputs, mask), gradients=kept_rows(self.gradients, mask))

    @property
    def _device(self) -> torch.device:
        return self.inputs.device


@dataclass(frozen=True)
class DenseGradients(SiteGradients):
    """``values`` float32 ``[B, O, I]``: gradients small enough to be formed at once (gains and biases)."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        return self.values[:, start:stop]

    def finite(self) -> torch.Tensor:
        return finite_rows(self.values)

    def kept(self, mask: torch.Tensor) -> Self:
        return replace(self, values=kept_rows(self.values, mask))

    @property
    def _device(self) -> torch.device:
        return self.values.device


def ghost_norms(one: LinearGradients) -> torch.Tensor:
    """Return squared norms, float64 ``[B]``, without forming a gradient."""
    given, taken = one.inputs.float(), one.gradients.float()
    return (given @ given.transpose(1, 2)).mul_(taken @ taken.transpose(1, 2)).sum(dim=2).double().sum(dim=1)


def ghost_dots(one: LinearGradients, other: LinearGradients) -> torch.Tensor:
    """Return dot products, float64 ``[B, B2]``, without forming a gradient."""
    import torch

    total = torch.empty(len(one), len(other), dtype=torch.float64, device=one.inputs.device)
    there_in, there_out = other.inputs.float().flatten(0, 1).T, other.gradients.float().flatten(0, 1).T
    for row, (given, taken) in enumerate(zip(one.inputs.float(), one.gradients.float(), strict=True)):
        met = (given @ there_in).mul_(taken @ there_out)
        total[row] = met.sum(dim=0).view(len(other), -1).double().sum(dim=1)
    return total


def products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the float64 ``[B, Q]`` products of ``[B, R, I]`` and ``[Q, R, I]``."""
    return (left.flatten(1) @ right.to(left).flatten(1).T).double()


def finite_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return bool ``[B]``: the rows of ``[B, ...]`` that hold finite numbers only."""
    import torch

    return torch.isfinite(tensor.flatten(1).sum(dim=1, dtype=torch.float32))


def kept_rows(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return ``[B, ...]`` with the rows where ``mask`` (bool ``[B]``) is false set to zero."""
    return tensor.masked_fill(~mask.view(-1, *(1,) * (tensor.ndim - 1)), 0.0)
