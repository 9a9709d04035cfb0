"""What estimators are given: a training run with its documents and checkpoints, and the queries to explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import AdamW
from winnow.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.bank import SubsetBank


@dataclass(frozen=True)
class RunCheckpoint:
    """A state of the model in training.

    ``load`` gives the model, a fresh one each time; ``learning_rate`` is that of the step at the checkpoint and
    ``steps`` how many optimiser steps its segment (since the checkpoint before) took; ``optimizer`` maps a parameter's
    name to AdamW's exp_avg, exp_avg_sq and step; ``adamw``: its settings there. Each is None where it was not kept.
    """

    name: str
    load: Callable[[], nn.Module]
    learning_rate: float | None = None
    steps: int = 1
    optimizer: Mapping[str, Mapping[str, Any]] | None = None
    adamw: AdamW | None = None

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW's decay rates: those recorded, or else the usual 0.9 and 0.95."""
        return AdamW.betas if self.adamw is None else self.adamw.betas

    @property
    def known_rate(self) -> float:
        """The learning rate. Raises :class:`UserError` where it was not kept."""
        if self.learning_rate is None:
            raise UserError(f"checkpoint '{self.name}' has no learning rate; give that of the step at the checkpoint")
        return self.learning_rate

    @property
    def travelled(self) -> float:
        """Learning rate times steps: how much of the path of training the checkpoint stands for."""
        return self.known_rate * self.steps


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
    """What is explained: the losses of Q >= 1 token arrays at the run's last checkpoint; ``texts`` where known."""

    tokens: Sequence[np.ndarray]
    texts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        require_queries(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, where: slice) -> Queries:
        """Return some of them."""
        return Queries(self.tokens[where], None if self.texts is None else self.texts[where])


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

    def __post_init__(self) -> None:
        require_damping(self.damping)


def require_queries(tokens: Sequence[np.ndarray]) -> None:
    """Raise :class:`UserError` where there is nothing to explain."""
    if not len(tokens):
        raise UserError("there is no query; give at least one text of two or more tokens")


def require_damping(damping: float) -> None:
    """Raise :class:`UserError` for a damping below zero, or none at all (NaN)."""
    if not damping >= 0.0:
        raise UserError(f"damping {damping}: must not be negative")
