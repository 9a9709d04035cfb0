r"""Per-document gradients of embeddings, and of a weight that is embedding and head at once.

An embedding's gradient is a sum of d_t into the row of token x_t, so <E_i, E_j> = sum_{t,u} 1[x_t = x_u] d_t . d_u and
<V, E_i> = sum_t V[x_t] . d_t. A tied weight has the gradient H_i + E_i, and products hold the cross terms
<H_i, E_j> = sum_{t,u} d_t[x_u] (a_t . e_u). Rows of documents that do not count are zero throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from winnow.attribution.ghost import BUFFER, LinearGradients, SiteGradients, finite_rows, kept_rows, products

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EmbeddingGradients(SiteGradients):
    """``tokens`` int64 ``[B, T]``, the rows looked up, and ``gradients`` ``[B, T, E]`` of the vectors found."""

    tokens: torch.Tensor
    gradients: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        import torch

        batch, width = len(self), self.gradients.shape[2]
        # One row more gathers what falls outside.
        inside = (self.tokens >= start) & (self.tokens < stop)
        place = torch.where(inside, self.tokens - start, stop - start)
        place = place + torch.arange(batch, device=place.device)[:, None] * (stop - start + 1)
        found = torch.zeros(batch * (stop - start + 1), width, device=place.device)
        found.index_add_(0, place.flatten(), self.gradients.float().flatten(0, 1))
        return found.view(batch, stop - start + 1, width)[:, :-1]

    def norms(self) -> torch.Tensor:
        import torch

        owner, _, summed = self._by_token()
        total = torch.zeros(len(self), dtype=torch.float64, device=self._device)
        return total.index_add_(0, owner, summed.square().sum(dim=1).double())

    def along(self, directions: torch.Tensor) -> torch.Tensor:
        import torch

        directions = directions[:, :, : self.gradients.shape[2]]
        # By shapes alone, so that a document's bits do not depend on the tokens of the documents beside it.
        if self.site.shape[0] <= self.tokens.numel():
            return super().along(directions)
        total = torch.empty(len(self), len(directions), dtype=torch.float64, device=self._device)
        for row, (tokens, gradients) in enumerate(zip(self.tokens, self.gradients.to(directions.dtype), strict=True)):
            total[row] = products(directions.index_select(1, tokens), gradients[None])[:, 0]
        return total

    def dots(self, other: SiteGradients) -> torch.Tensor:
        import torch

        if not isinstance(other, EmbeddingGradients):
            return super().dots(other)
        # Only the rows that both looked up can meet; they are numbered anew.
        common = torch.unique(self.tokens)
        common = common[torch.isin(common, other.tokens)]
        total = torch.zeros(len(self), len(other), dtype=torch.float64, device=self._device)
        step = max(1, BUFFER // ((len(self) + len(other)) * self.gradients.shape[2]))
        for chosen in common.split(step):
            total += products(self._chosen(chosen), other._chosen(chosen))
        return total

    def project(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        turned = self.gradients.float() @ right[:, : self.gradients.shape[2]].float().T
        return left.float().T[self.tokens].transpose(1, 2) @ turned

    def finite(self) -> torch.Tensor:
        return finite_rows(self.gradients)

    def kept(self, mask: torch.Tensor) -> Self:
        return replace(self, gradients=kept_rows(self.gradients, mask))

    @property
    def _device(self) -> torch.device:
        return self.tokens.device

    def _by_token(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return gradients summed by document and token: document ``[U]``, token ``[U]``, sum float32 ``[U, E]``."""
        import torch

        height = self.site.shape[0]
        keys = self.tokens + torch.arange(len(self), device=self._device)[:, None] * height
        unique, place = torch.unique(keys.flatten(), return_inverse=True)
        summed = torch.zeros(len(unique), self.gradients.shape[2], device=self._device)
        summed.index_add_(0, place, self.gradients.float().flatten(0, 1))
        return unique // height, unique % height, summed

    def _chosen(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the gradient's rows at ascending ``chosen`` tokens ``[C]``, float32 ``[B, C, E]``."""
        import torch

        place = torch.searchsorted(chosen, self.tokens.contiguous()).clamp(max=len(chosen) - 1)
        place = torch.where(chosen[place] == self.tokens, place, len(chosen))
        place = place + torch.arange(len(self), device=self._device)[:, None] * (len(chosen) + 1)
        found = torch.zeros(len(self) * (len(chosen) + 1), self.gradients.shape[2], device=self._device)
        found.index_add_(0, place.flatten(), self.gradients.float().flatten(0, 1))
        return found.view(len(self), len(chosen) + 1, -1)[:, :-1]


@dataclass(frozen=True)
class TiedGradients(SiteGradients):
    """One weight used twice: ``head`` (inputs and gradients of the logits) and ``embedding``."""

    head: LinearGradients
    embedding: EmbeddingGradients

    def __len__(self) -> int:
        return len(self.head)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        found = self.head.rows(start, stop)
        found[:, :, : self.embedding.gradients.shape[2]] += self.embedding.rows(start, stop)
        return found

    def along(self, directions: torch.Tensor) -> torch.Tensor:
        return self.head.along(directions) + self.embedding.along(directions)

    def project(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head.project(left, right) + self.embedding.project(left, right)

    def finite(self) -> torch.Tensor:
        return self.head.finite() & self.embedding.finite()

    def kept(self, mask: torch.Tensor) -> Self:
        return replace(self, head=self.head.kept(mask), embedding=self.embedding.kept(mask))

    @property
    def _device(self) -> torch.device:
        return self.head._device
