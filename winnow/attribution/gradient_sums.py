"""Sums and products of all documents' gradients site by site, for methods that go over the documents several times.

Products here are in float64 of the float32 gradients, so that an inverse of nearly singular sums of them is the inverse
of these very gradients. Documents are walked in an order of their own, and results come in the order given: neither the
order nor the company of a document changes a bit of what is said about it alone. A document without a finite loss and
gradient has a gradient of zero here and is not ``usable``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents
from winnow.attribution.capture import Captured, capturing, context_length, vocabulary_size
from winnow.attribution.directional import score_along

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class GradientSums:
    """A model and what it is asked about: N ``docs`` (token arrays int ``[n]``) and a ``scope`` of parameters."""

    model: nn.Module
    docs: Sequence[np.ndarray]
    scope: str

    def __post_init__(self) -> None:
        check_documents(self.docs, vocabulary_size(self.model))

    def captured(self) -> Iterator[tuple[torch.Tensor, Captured]]:
        """Yield every batch with its documents' places in ``docs``, int64 ``[R]``."""
        import torch

        order = canonical_order(self.docs)
        ordered = [self.docs[place] for place in order]
        with capturing(self.model, self.scope) as capture:
            for batch in batches(ordered, context_length(self.model)):
                yield torch.from_numpy(order[batch.rows]), capture.run(batch)

    def products(self, directions: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """Return <V_q, G_n>, float64 ``[Q, N]`` by site, for V ``[Q, O, I]``, and which documents are usable."""
        import torch

        usable = np.zeros(len(self.docs), dtype=np.bool_)
        sums = {
            name: torch.zeros(len(value), len(self.docs), dtype=torch.float64) for name, value in directions.items()
        }
        for places, captured in self.captured():
            usable[places.numpy()] = captured.usable.cpu().numpy()
            for name, value in directions.items():
                gradients = captured.sites[name]
                for start, stop in gradients.chunks():
                    rows = gradients.rows(start, stop)[: len(places)].double().flatten(1)
                    sums[name][:, places] += (value[:, start:stop].to(rows).flatten(1) @ rows.T).cpu()
        return sums, usable

    def norms(self) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """Return squared norms, float64 ``[N]`` by site, and which documents are usable, bool ``[N]``."""
        import torch

        usable = np.zeros(len(self.docs), dtype=np.bool_)
        found: dict[str, torch.Tensor] = {}
        for places, captured in self.captured():
            usable[places.numpy()] = captured.usable.cpu().numpy()
            for name, gradients in captured.sites.items():
                if name not in found:
                    found[name] = torch.zeros(len(self.docs), dtype=torch.float64)
                found[name][places] = gradients.norms()[: len(places)].cpu()
        return found, usable

    def total_norms(self) -> np.ndarray:
        """Return the squared norm of every document's gradient over all sites, float64 ``[N]``; NaN if not usable."""
        norms, usable = self.norms()
        total = np.zeros(len(self.docs))
        for values in norms.values():
            total += values.numpy()
        return np.where(usable, total, np.nan)

    def weighted_sums(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return sum_n w_qn G_n, float64 ``[Q, O, I]`` by site, for weights float64 ``[Q, N]`` by site."""
        import torch

        sums: dict[str, torch.Tensor] = {}
        for places, captured in self.captured():
            for name, weight in weights.items():
                gradients = captured.sites[name]
                height, width = gradients.site.shape
                for start, stop in gradients.chunks():
                    rows = gradients.rows(start, stop)[: len(places)].double()
                    if name not in sums:
                        sums[name] = torch.zeros(len(weight), height, width, dtype=torch.float64, device=rows.device)
                    term = weight[:, places].to(rows) @ rows.flatten(1)
                    sums[name][:, start:stop] += term.view(len(weight), stop - start, width)
        return sums

    def cosines(self, directions: Mapping[str, torch.Tensor], norms: np.ndarray) -> np.ndarray:
        """Return <V_q, G_n> / (|V_q| |G_n|), float64 ``[Q, N]``, from V ``[Q, O, I]`` and :meth:`total_norms`.

        Zero where a gradient is zero, NaN where one is not finite.
        """
        lengths = np.zeros(len(next(iter(directions.values()))))
        for value in directions.values():
            lengths += value.double().square().flatten(1).sum(dim=1).cpu().numpy()
        scores = score_along(self.model, self.docs, directions, self.scope).influence
        scale = np.sqrt(lengths[:, None] * norms[None, :])
        return np.divide(scores, scale, out=scores * 0.0, where=scale != 0.0)
