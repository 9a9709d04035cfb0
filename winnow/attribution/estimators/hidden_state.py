r"""RDS+: how alike document and query are to the model itself, by its last hidden states.

    score(q, i) = cos(h_q, h_i),    h = sum over positions t = 1 ... n of t h_t / sum of t

h_t is the last layer's hidden state, which the head reads; later positions have read more of the text and weigh more
(option ``position_weighted`` = 0: they weigh alike). Source: Ivison et al. 2025, section 3 (RDS+).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import batches, check_documents
from winnow.attribution.capture import context_length, frozen, vocabulary_size
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun

if TYPE_CHECKING:
    from torch import nn


class HiddenState(Estimator, name="hidden_state"):
    """The model's own embedding, at the last checkpoint."""

    uses = frozenset()
    options = frozenset({"position_weighted"})

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        model = run.final.load()
        weighted = bool(settings.options.get("position_weighted", 1.0))
        return _Fitted(model, weighted, represent(model, run.documents, weighted))


@dataclass(frozen=True)
class _Fitted(Fitted):
    model: nn.Module
    weighted: bool
    documents: np.ndarray

    def score(self, queries: Queries) -> np.ndarray:
        return represent(self.model, queries.tokens, self.weighted) @ self.documents.T


def represent(model: nn.Module, documents: Sequence[np.ndarray], weighted: bool) -> np.ndarray:
    """Return unit vectors float64 ``[N, H]``, NaN for a document without two tokens or finite hidden states."""
    import torch

    check_documents(documents, vocabulary_size(model))
    context = context_length(model)
    device = next(model.parameters()).device
    found: dict[int, np.ndarray] = {}
    with frozen(model), torch.no_grad():
        for batch in batches(documents, context):
            inputs = torch.from_numpy(batch.inputs).to(device)
            states = model(input_ids=inputs, output_hidden_states=True, use_cache=False).hidden_states[-1].double()
            weights = torch.from_numpy(batch.weights > 0).to(device).double()
            if weighted:
                weights = weights * torch.arange(1, inputs.shape[1] + 1, device=device)
            hidden = states.masked_fill(weights[:, :, None] == 0, 0.0)
            mean = (weights[:, None] @ hidden)[:, 0]
            unit = (mean / torch.linalg.vector_norm(mean, dim=1, keepdim=True)).cpu().numpy()
            found |= {int(row): unit[place] for place, row in enumerate(batch.rows)}
    width = len(next(iter(found.values()))) if found else 0
    vectors = np.array([found.get(row, np.full(width, np.nan)) for row in range(len(documents))])
    return np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, np.nan)
