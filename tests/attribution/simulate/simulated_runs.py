"""Runs whose losses follow planted effects, for tests of simulators."""

from __future__ import annotations

import numpy as np

from winnow.attribution.simulate.linear import roll
from winnow.attribution.simulate.runs import Reading, RunRecord, read_batches, step_weights


def planted_runs(
    multiplicative: np.ndarray, additive: np.ndarray, runs: int, steps: int = 40, batch: int = 4, every: int = 1
) -> list[RunRecord]:
    """Runs over N documents with effects ``[Q, N]`` a whole step, measured after every ``every`` steps."""
    generator = np.random.default_rng(runs)
    found = []
    for _ in range(runs):
        pool = generator.permutation(multiplicative.shape[1])[: max(batch, multiplicative.shape[1] * 2 // 3)]
        batches = [generator.choice(pool, batch, replace=False) for _ in range(steps)]
        reading = read_batches(batches, np.linspace(1.5, 0.5, steps))
        losses = true_curve(reading, multiplicative, additive)
        losses[[step for step in range(1, steps) if step % every]] = np.nan
        found.append(RunRecord(reading, losses))
    return found


def true_curve(reading: Reading, multiplicative: np.ndarray, additive: np.ndarray, start: float = 6.0) -> np.ndarray:
    weights = step_weights(reading, multiplicative.shape[1])
    return roll(weights @ multiplicative.T, weights @ additive.T, np.full(len(additive), start))


def effects(queries: int, documents: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Losses that sink from 6 towards about 3, by documents of different use."""
    generator = np.random.default_rng(seed)
    use = 0.04 * (1 + 0.5 * generator.normal(size=(queries, documents)))
    return -use, use * (3.0 + 0.5 * generator.normal(size=(queries, documents)))
