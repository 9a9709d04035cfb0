"""What estimators are given: a training run with its documents and checkpoints, and the queries to explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.bank import SubsetBank


@dataclass(frozen=True)
class RunCheckpoint:
    """A state of the model in training.

    ``load`` gives the model, a fresh one each time; ``learning_rate`` is that of the step at the checkpoint and
    ``steps`` how many optimiser steps its segment (since the checkpoint before) took; ``optimizer`` maps a parameter's
    name to AdamW's exp_avg, exp_avg_sq and step, or is None where it was not kept.
    """

    name: str
    load: Callable[[], nn.Module]
    learning_rate: float = 1.0
    steps: int = 1
    optimizer: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class TrainingRun:
    """A run over N documents; what it does not know is None, and estimators that need it say so.

    ``documents``: token arrays int ``[n]`` as the model read them; ``checkpoints``: oldest first, the last is the model
    whose losses are explained; ``texts``: the N texts; ``encode``: texts to float32 ``[M, E]`` unit embeddings;
    ``bank``: losses of models trained on subsets of the documents.
    """

    documents: Sequence[np.ndarray]
    checkpoints: tuple[RunCheckpoint, ...]
    texts: Sequence[str] | None = None
    encode: Callable[[Sequence[str]], np.ndarray] | None = None
    bank: SubsetBank | None = None

    @property
    def final(self) -> RunCheckpoint:
        return self.checkpoints[-1]


@dataclass(frozen=True)
class Queries:
    """What is explained: the losses of Q token arrays at the run's last checkpoint; ``texts`` where they are known."""

    tokens: Sequence[np.ndarray]
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Settings:
    """How to estimate; recorded with every score.

    ``scope``: the parameters whose gradients count, see ``winnow.attribution.sites``; ``damping``: relative to the mean
    eigenvalue of a layer's curvature; ``projection``: rows and columns that a layer's gradient is projected to, 0 = not
    projected; ``seed`` of projections and sampled labels; ``options`` of one estimator alone, by name.
    """

    scope: str = "blocks"
    damping: float = 0.1
    projection: int = 0
    seed: int = 0
    options: Mapping[str, float] = field(default_factory=dict)
