"""Worlds: arms with documents whose rewards are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from winnow.selection.draws import uniforms
from winnow.selection.facts import ArmFacts


@dataclass(frozen=True, eq=False)
class Ground:
    """What is true in R runs of a world: N documents, grouped by arm, each arm's in the order in which it is probed.

    ``sizes`` int64 ``[K]``, the same in every run; ``tokens`` int64 ``[R, N]``; ``rewards`` float64 ``[R, S, N]``, a
    document's influence a token at each of S stages; ``centroids`` float64 ``[R, K, D]`` or None; ``scores`` float64
    ``[R, N]``, what a predictor says of the documents, or None.
    """

    sizes: np.ndarray
    tokens: np.ndarray
    rewards: np.ndarray
    centroids: np.ndarray | None = None
    scores: np.ndarray | None = None

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each arm's documents begin, int64 ``[K + 1]``."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @cached_property
    def arm_tokens(self) -> np.ndarray:
        """Tokens of each arm, int64 ``[R, K]``."""
        return self.sums(self.tokens)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of ``[R, N]`` values over each arm, ``[R, K]``; an empty arm has 0."""
        total = np.concatenate([np.zeros((len(values), 1), values.dtype), np.cumsum(values, axis=1)], axis=1)
        return np.diff(total[:, self.starts], axis=1)

    def facts(self) -> ArmFacts:
        """Return what a policy is told; the arms' mean scores, if there are scores, are their features."""
        sizes = np.broadcast_to(self.sizes, self.arm_tokens.shape)
        features = None
        if self.scores is not None:
            features = (self.sums(self.scores) / np.maximum(sizes, 1))[..., None]
        return ArmFacts(sizes, self.arm_tokens, self.centroids, features)


class World(Protocol):
    """A family of grounds, one a seed: the same seed gives the same ground in whatever company."""

    def draw(self, seeds: np.ndarray) -> Ground:
        """Return the grounds of ``seeds`` int64 ``[R]``."""


@dataclass(frozen=True)
class Planted:
    """K arms of normal documents; rewards have mean 0 over the pool and, with the defaults, variance 1.

    reward = arm's mean + within * noise. ``between``: standard deviation of the arms' means. ``size_spread``: standard
    deviation of the log of the arms' sizes (their mean is ``documents``). ``noise_spread``: of the log of the noise's
    deviation, an arm. ``tail``: degrees of freedom of Student's noise (scaled to the same variance), 0 = normal.
    ``explained``: share of the arms' variance that the ``dimension``-dimensional centroids explain (0: they say
    nothing), by a ``linear`` function or, ``curved``, by one of their squares. ``stages``; ``drift`` ``walk``: the
    means keep a share 1 - ``speed`` of their variance from stage to stage and get the rest anew (an autoregression,
    so the spread stays); ``switch``: at the middle stage a share ``speed`` of the arms get new means. ``prediction``:
    correlation inside an arm of the documents' scores with their rewards at the first stage, ``arm_prediction``
    between arms (their scores vary as rewards do; 0 and 0: no scores). ``unit``: what all rewards are multiplied by,
    for policies that take them raw.
    """

    arms: int = 100
    documents: int = 100
    between: float = 0.7
    within: float = 0.714
    size_spread: float = 0.0
    noise_spread: float = 0.0
    tail: float = 0.0
    explained: float = 0.0
    shape: str = "linear"
    dimension: int = 8
    stages: int = 1
    drift: str = "walk"
    speed: float = 0.0
    prediction: float = 0.0
    arm_prediction: float = 0.0
    unit: float = 1.0

    def sizes(self) -> np.ndarray:
        """Return the documents of each arm, int64 ``[K]``: quantiles of a log-normal, so that no seed changes them."""
        from scipy.special import ndtri

        logs = self.size_spread * ndtri((np.arange(self.arms) + 0.5) / self.arms)
        shares = np.exp(logs - self.size_spread**2 / 2)
        shuffled = np.random.default_rng(0).permutation(shares)
        return np.maximum(np.rint(self.documents * shuffled), 1).astype(np.int64)

    def draw(self, seeds: np.ndarray) -> Ground:
        """Return the grounds of ``seeds``."""
        sizes = self.sizes()
        drawn = [self._draw(int(seed), sizes) for seed in seeds]
        rewards, centroids, scores = (np.stack(parts) for parts in zip(*drawn, strict=True))
        tokens = np.ones((len(seeds), int(sizes.sum())), dtype=np.int64)
        return Ground(sizes, tokens, rewards, centroids, scores if self.prediction or self.arm_prediction else None)

    def _draw(self, seed: int, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng((seed, 20240611))
        centroids = rng.standard_normal((self.arms, self.dimension))
        means = np.empty((self.stages, self.arms))
        means[0] = self._means(rng, centroids)
        for stage in range(1, self.stages):
            fresh = self._means(rng, centroids)
            if self.drift == "walk":
                means[stage] = np.sqrt(1 - self.speed) * means[stage - 1] + np.sqrt(self.speed) * fresh
            else:
                moves = (rng.random(self.arms) < self.speed) & (stage == (self.stages + 1) // 2)
                means[stage] = np.where(moves, fresh, means[stage - 1])
        count = int(sizes.sum())
        noise = rng.standard_normal(count)
        if self.tail:
            noise = rng.standard_t(self.tail, count) * np.sqrt((self.tail - 2) / self.tail)
        scale = np.exp(self.noise_spread * rng.standard_normal(self.arms) - self.noise_spread**2)
        rewards = np.repeat(means, sizes, axis=1) + self.within * np.repeat(scale, sizes) * noise
        doubt = np.sqrt(1 - self.prediction**2) * rng.standard_normal(count)
        level = self.arm_prediction * means[0]
        level += self.between * np.sqrt(1 - self.arm_prediction**2) * rng.standard_normal(self.arms)
        scores = np.repeat(level, sizes) + self.within * (self.prediction * noise + doubt)
        return self.unit * rewards, centroids, scores

    def _means(self, rng: np.random.Generator, centroids: np.ndarray) -> np.ndarray:
        inputs = centroids if self.shape == "linear" else (centroids**2 - 1) / np.sqrt(2)
        line = inputs @ rng.standard_normal(self.dimension) / np.sqrt(self.dimension)
        own = rng.standard_normal(self.arms)
        return self.between * (np.sqrt(self.explained) * line + np.sqrt(1 - self.explained) * own)


@dataclass(frozen=True, eq=False)
class Replay:
    """An exhaustive measurement replayed: every seed probes the same documents in another order.

    ``arm_of`` int64 ``[N]`` in 0 .. K-1; ``tokens`` int64 ``[N]``; ``rewards`` float64 ``[N]`` or ``[S, N]``, finite;
    ``centroids`` ``[K, D]`` and ``scores`` ``[N]`` if there are any.
    """

    arm_of: np.ndarray
    tokens: np.ndarray
    rewards: np.ndarray
    arms: int
    centroids: np.ndarray | None = None
    scores: np.ndarray | None = None

    def draw(self, seeds: np.ndarray) -> Ground:
        """Return the grounds of ``seeds``."""
        keys = uniforms(np.asarray(seeds), 0, 0, len(self.arm_of))
        order = np.stack([np.lexsort((key, self.arm_of)) for key in keys])
        rewards = np.moveaxis(np.atleast_2d(self.rewards)[:, order], 0, 1)
        centroids = (
            None if self.centroids is None else np.broadcast_to(self.centroids, (len(keys), *self.centroids.shape))
        )
        scores = None if self.scores is None else self.scores[order]
        sizes = np.bincount(self.arm_of, minlength=self.arms).astype(np.int64)
        return Ground(sizes, self.tokens[order], rewards, centroids, scores)
