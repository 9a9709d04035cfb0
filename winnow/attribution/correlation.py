"""Rank correlation and its interval."""

from __future__ import annotations

import numpy as np

BOOTSTRAPS = 1000


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Return Spearman's correlation of two float ``[N]`` arrays, ties at their mean rank; 0.0 if one is constant."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0.0 else 0.0


def bootstrap_interval(left: np.ndarray, right: np.ndarray, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of :func:`spearman` over 1,000 seeded resamples of the pairs.

    The resamples are drawn by position: give the pairs in an order of their own (by doc_id).
    """
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(left), len(left)) for _ in range(BOOTSTRAPS)]
    values = np.array([spearman(left[draw], right[draw]) for draw in draws])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
