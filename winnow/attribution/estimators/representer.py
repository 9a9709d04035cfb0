r"""Generalized representers: what a document taught the model in all, times how alike it and the query are.

    score(q, i) = sum_c eta_c <alpha_i, alpha_q>_M k(i, q),    alpha = mean over predicted tokens of (onehot(y) - p)

over the run's checkpoints c with learning rate times steps eta_c. alpha_i, over the vocabulary, is the step that the
document's loss asks of the model's outputs: its global importance, summed over training (the tracking representer);
alpha_q reads it out for the target "log-likelihood of q". The product divides coordinate v by (s_v + sqrt(damping)
mean s)^2 with s_v^2 the mean of alpha_v^2 over documents, the diagonal of the outputs' empirical Fisher: without it,
the commonest tokens decide alone. k is a Gaussian kernel between the documents' mean last hidden states, its width
twice their median distance. Only forward passes, and no gradient of a parameter: one a checkpoint, and one more a set
of queries, since no alpha_i ``[V]`` is kept. Source: Tsai et al. 2023 (Sample based explanations via generalized
representers), sections 3 and 4; the metric is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents
from winnow.attribution.capture import context_length, frozen, vocabulary_size
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun

if TYPE_CHECKING:
    import torch
    from torch import nn


WIDTH_SAMPLE = 2000
"""Documents whose distances set the kernel's width."""


@dataclass(frozen=True)
class Representation:
    """Of M documents: ``residuals`` float32 ``[M, V]``, ``states`` float64 ``[M, H]``; NaN without a finite loss."""

    residuals: torch.Tensor
    states: torch.Tensor


@dataclass(frozen=True)
class Known:
    """Of all documents at one checkpoint: ``states`` float64 ``[N, H]`` and ``size`` float32 ``[V]``, the s above."""

    states: torch.Tensor
    size: torch.Tensor

    @property
    def usable(self) -> torch.Tensor:
        import torch

        return torch.isfinite(self.states).all(dim=1)


def represented(model: nn.Module, docs: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, Representation]]:
    """Yield places int64 ``[R]`` of some documents with mean residuals onehot(y) - p and mean last hidden states.

    Means are over predicted tokens. Documents of fewer than two tokens never come.
    """
    import torch

    check_documents(docs, vocabulary_size(model))
    with frozen(model), torch.inference_mode():
        device = next(model.parameters()).device
        for batch in batches(docs, context_length(model)):
            inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
            weights = torch.from_numpy(batch.weights).to(device)[:, :, None]
            output = model(input_ids=inputs, use_cache=False, output_hidden_states=True)
            mean = torch.zeros(len(inputs), output.logits.shape[-1], device=device)
            mean.scatter_add_(1, targets, weights[:, :, 0])
            # Padding has weight zero, but zero times infinity is not zero.
            probabilities = torch.softmax(output.logits.float(), dim=-1).masked_fill(weights == 0.0, 0.0)
            mean -= (probabilities * weights).sum(dim=1)
            hidden = output.hidden_states[-1].float().masked_fill(weights == 0.0, 0.0)
            count = len(batch.rows)
            states = (hidden * weights).sum(dim=1)[:count].double().cpu()
            states[~torch.isfinite(mean[:count].sum(dim=1)).cpu()] = torch.nan
            yield batch.rows, Representation(mean[:count].cpu(), states)


def represent(model: nn.Module, docs: Sequence[np.ndarray]) -> Representation:
    """Return mean residuals and mean last hidden states of documents, all of them held: for queries, which are few."""
    import torch

    residuals = torch.full((len(docs), vocabulary_size(model)), torch.nan)
    states = torch.full((len(docs), 1), torch.nan, dtype=torch.float64)
    for rows, found in represented(model, docs):
        if states.shape[1] == 1:
            states = states.expand(-1, found.states.shape[1]).clone()
        residuals[rows], states[rows] = found.residuals, found.states
    return Representation(residuals, states)


def known_of(model: nn.Module, docs: Sequence[np.ndarray]) -> Known:
    """Return states and sizes of documents: one pass, whose residuals are not kept."""
    import torch

    total = torch.zeros(vocabulary_size(model), dtype=torch.float64)
    states, count = torch.full((len(docs), 1), torch.nan, dtype=torch.float64), 0
    for rows, found in represented(model, docs):
        if states.shape[1] == 1:
            states = states.expand(-1, found.states.shape[1]).clone()
        states[rows] = found.states
        usable = torch.isfinite(found.states).all(dim=1)
        total += found.residuals[usable].double().square().sum(dim=0)
        count += int(usable.sum())
    return Known(states, (total / max(1, count)).sqrt().float())


def similarity(
    model: nn.Module, queries: Representation, docs: Sequence[np.ndarray], known: Known, damping: float
) -> torch.Tensor:
    """Return <alpha_q, alpha_i>_M k(i, q), float64 ``[Q, N]``: another pass over the documents."""
    import torch

    metric = 1.0 / (known.size + damping**0.5 * known.size.mean()).clamp(min=1e-12)
    asked = queries.residuals * metric.square()
    importance = torch.full((len(queries.states), len(docs)), torch.nan, dtype=torch.float64)
    for rows, found in represented(model, docs):
        importance[:, rows] = (asked @ found.residuals.T).double()
    usable = known.usable
    if int(usable.sum()) < 2:
        return importance
    width = 2.0 * torch.pdist(known.states[usable][:WIDTH_SAMPLE]).median().clamp(min=1e-12)
    return importance * torch.exp(-((torch.cdist(queries.states, known.states) / width) ** 2) / 2.0)


@dataclass(frozen=True)
class FittedRepresenter(Fitted):
    """What is known of the documents at every checkpoint; the models are loaded again for the queries.

    ``order[k]`` is the document of row k: a canonical one, so that the kernel's sample is the same in any order given.
    """

    run: TrainingRun
    order: np.ndarray
    known: tuple[Known, ...]
    damping: float

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``; NaN where the document or the query has no finite loss."""
        docs = [self.run.documents[place] for place in self.order]
        total = np.zeros((len(queries), len(docs)))
        for checkpoint, known in zip(self.run.checkpoints, self.known, strict=True):
            model = checkpoint.load()
            asked = represent(model, queries.tokens)
            total += checkpoint.travelled * similarity(model, asked, docs, known, self.damping).numpy()
        scores = np.empty_like(total)
        scores[:, self.order] = total
        return scores

    def _damped(self, damping: float) -> FittedRepresenter:
        return replace(self, damping=damping)


class Representer(Estimator, name="representer"):
    """Global importance times kernel similarity, summed over checkpoints."""

    uses = frozenset({"damping"})

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        order = canonical_order(run.documents)
        docs = [run.documents[place] for place in order]
        known = tuple(known_of(one.load(), docs) for one in run.checkpoints)
        return FittedRepresenter(run, order, known, settings.damping)
