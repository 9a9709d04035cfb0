"""Slow twins of the projected estimators' parts: one document at a time, autograd, explicit float64 matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from winnow.attribution.projection import Projection
from winnow.attribution.run import RunCheckpoint, TrainingRun
from winnow.attribution.sites import find_sites


def checkpoint_of(
    model: torch.nn.Module, name: str = "last", rate: float = 1.0, state: dict | None = None
) -> RunCheckpoint:
    return RunCheckpoint(name, lambda: model, learning_rate=rate, optimizer=state)


def run_of(docs: Sequence[np.ndarray], *checkpoints: RunCheckpoint) -> TrainingRun:
    return TrainingRun(documents=docs, checkpoints=checkpoints)


def site_gradients(
    model: torch.nn.Module, doc: np.ndarray, scope: str, objective: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Float64 ``[O, I]`` by site: the gradient of ``objective`` of the document's token log-probabilities."""
    ids = torch.from_numpy(np.asarray(doc))[None]
    model.zero_grad()
    logits = model(input_ids=ids[:, :-1]).logits[0].double()
    objective(torch.log_softmax(logits, dim=-1).gather(1, ids[0, 1:, None])[:, 0]).backward()
    own = {name: value.grad.double() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return {name: site.matrix(own) for name, site in find_sites(model, scope).items()}


def mean_token_loss(log_probabilities: torch.Tensor) -> torch.Tensor:
    return -log_probabilities.mean()


def summed_margin(log_probabilities: torch.Tensor) -> torch.Tensor:
    return (log_probabilities - torch.log1p(-log_probabilities.exp())).sum()


def projected(gradients: dict[str, torch.Tensor], projection: Projection) -> dict[str, np.ndarray]:
    """Float64 vectors by site."""
    found = {}
    for name, value in gradients.items():
        left, right = (side.double() for side in projection.sides(name, tuple(value.shape)))
        found[name] = (left @ value @ right.T).flatten().numpy()
    return found


def stacked(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """``[N, d]`` by site."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def damped(matrix: np.ndarray, damping: float) -> np.ndarray:
    return matrix + damping * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T
