r"""Diagonal Fisher influence, measured on the documents: the gradient of the query over the mean square of theirs.

    V = g_q / (F + lambda),    F = (1/N) sum_i G_i^2 (entry by entry),    lambda = damping * mean(F), per site

``adam_fisher`` takes F from the optimiser, which has seen batches and the last few dozens of steps; here it is every
document's own gradient at the checkpoint, for one more pass over them. The scope decides more than the damping:
``head`` or ``embeddings+head`` first. The labels are the text's (the empirical Fisher). Source: Kirkpatrick et al.
2017, section 2, the diagonal approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents
from winnow.attribution.capture import capturing, context_length, vocabulary_size
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


class DiagonalFisher(Estimator, name="diagonal_fisher"):
    """The inverse of the mean squared gradient of the documents."""

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        if settings.damping <= 0.0:
            raise UserError(f"damping {settings.damping}: weights that no document moves need a positive one")
        model = run.final.load()
        diagonal = fisher_diagonal(model, run.documents, settings.scope)
        return _Fitted(model, run.documents, settings, diagonal)


def fisher_diagonal(model: nn.Module, documents: Sequence[np.ndarray], scope: str) -> dict[str, torch.Tensor]:
    """Return the mean over documents of their squared gradients, float64 ``[O, I]`` by site, in any order the same.

    Raises :class:`UserError` when no document has a finite loss and gradient.
    """
    import torch

    check_documents(documents, vocabulary_size(model))
    ordered = [documents[position] for position in canonical_order(documents)]
    count = 0
    with capturing(model, scope) as capture:
        sums = {
            name: torch.zeros(site.shape, dtype=torch.float64, device=capture.device)
            for name, site in capture.sites.items()
        }
        for batch in batches(ordered, context_length(model)):
            captured = capture.run(batch)
            kept = torch.nonzero(captured.usable).flatten().to(capture.device)
            count += len(kept)
            for name, gradients in captured.sites.items():
                for start, stop in gradients.chunks():
                    sums[name][start:stop] += gradients.rows(start, stop)[kept].double().square().sum(dim=0)
    if not count:
        raise UserError("none of the run's documents has a finite loss and gradient; check the checkpoint")
    return {name: value / count for name, value in sums.items()}


@dataclass(frozen=True)
class _Fitted(Fitted):
    model: nn.Module
    documents: Sequence[np.ndarray]
    settings: Settings
    diagonal: dict[str, torch.Tensor]

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, scope_size

        return in_blocks(queries, scope_size(self.model, self.settings.scope), self._score)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients, score_along

        directions = query_gradients(self.model, queries.tokens, self.settings.scope)
        for name, value in self.diagonal.items():
            # A site without any gradient has zero directions too, and gives zero.
            damped = value + max(self.settings.damping * float(value.mean()), 1e-300)
            directions[name] = (directions[name] / damped).float()
        return score_along(self.model, self.documents, directions, self.settings.scope).influence
