"""Percentile bootstrap intervals that do not depend on the order of what is resampled, and the area under the curve."""

from __future__ import annotations

import numpy as np

BOOTSTRAPS = 1000
LEVEL = 0.95
NONE = (float("nan"), float("nan"))
"""The interval of fewer than two units."""


def mean_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the interval of the mean of float ``[U]`` over resampled units; :data:`NONE` for fewer than two."""
    return crossed_interval(np.asarray(values)[:, None], seed)


def crossed_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the interval of the mean of float ``[U, S]`` over resampled rows and, independently, resampled columns.

    Rows are units (queries), columns repetitions (training seeds) that all rows share. An axis of length one is not
    resampled; :data:`NONE` when neither is longer. Rows are taken in the order of their numbers, columns as they are.
    """
    values = np.asarray(values, dtype=np.float64)
    units, repetitions = values.shape
    if values.size < 2:
        return NONE
    values = values[np.lexsort(values.T[::-1])]
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, units, (BOOTSTRAPS, units))
    columns = generator.integers(0, repetitions, (BOOTSTRAPS, repetitions))
    return percentiles(values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)))


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of the central 95% of float draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive's value is above a negative's, ties counted half; NaN without both."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.sum()) / (2 * len(positive) * len(negative))


def auc_interval(positive: np.ndarray, negative: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the interval of :func:`auc`, both groups resampled; :data:`NONE` with fewer than two in either."""
    if min(len(positive), len(negative)) < 2:
        return NONE
    positive, negative = np.sort(positive), np.sort(negative)
    generator = np.random.default_rng(seed)
    left, right = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    areas = np.empty(BOOTSTRAPS)
    for index in range(BOOTSTRAPS):
        # A resample is a count for each member, and a positive wins over the counts of the negatives below it.
        rows = generator.multinomial(len(positive), np.full(len(positive), 1 / len(positive)))
        columns = generator.multinomial(len(negative), np.full(len(negative), 1 / len(negative)))
        below = np.concatenate([[0], np.cumsum(columns)])
        areas[index] = rows @ (below[left] + below[right]) / (2 * len(positive) * len(negative))
    return percentiles(areas)
