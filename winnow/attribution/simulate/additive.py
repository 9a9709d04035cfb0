r"""The TracIn-style simulator: every step lowers a loss by the influence of what it reads, whatever the loss is.

    L_t(q) = L_{t-1}(q) - sum_{i in c_t} w_i (s_q tau(q, i) + r_q)

with any estimator's scores tau, and a scale s_q and rate r_q fitted to the recorded runs by least squares. It is the
baseline that simulators with a multiplicative part have to beat. Source: Guu et al. 2023 (Simfluence), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.simulate.linear import mean_rate, require_runs, roll
from winnow.attribution.simulate.runs import Reading, RunRecord, intervals, step_weights


@dataclass(frozen=True)
class AdditiveSimulator:
    """``change`` float64 ``[Q, N]``: what a whole step on a document, at the mean learning rate, adds to a loss."""

    change: np.ndarray
    rate: float

    def simulate(self, reading: Reading, start: np.ndarray) -> np.ndarray:
        """Return the queries' losses, float64 ``[T + 1, Q]``, from ``start`` ``[Q]`` through the steps of a reading."""
        added = step_weights(reading, self.change.shape[1]) @ self.change.T / self.rate
        return roll(np.zeros_like(added), added, start)


def fit_additive(runs: Sequence[RunRecord], scores: np.ndarray) -> AdditiveSimulator:
    """Scale scores ``[Q, N]`` (positive = helpful, NaN counts as the query's mean) to runs over the N documents.

    Raises :class:`UserError` when there are fewer than two runs.
    """
    require_runs(runs)
    rate = mean_rate(runs)
    finite = np.isfinite(scores)
    mean = np.where(finite, scores, 0.0).sum(axis=1, keepdims=True) / np.maximum(finite.sum(axis=1, keepdims=True), 1)
    filled = np.where(finite, scores, mean)
    parts = [intervals(run, scores.shape[1]) for run in runs]
    weights = np.concatenate([part.weights for part in parts]) / rate
    changes = np.concatenate([part.after - part.before for part in parts])
    result = np.empty_like(filled)
    for query, row in enumerate(filled):
        spread = row.std() or 1.0
        standard = (row - row.mean()) / spread
        design = np.stack([weights @ standard, weights.sum(axis=1)], axis=1)
        scale, common = np.linalg.lstsq(design, changes[:, query], rcond=None)[0]
        result[query] = scale * standard + common
    return AdditiveSimulator(result, rate)
