r"""Simfluence: every document moves every query's loss by a multiplication and an addition.

    L_t(q) = alpha_q(c_t) L_{t-1}(q) + beta_q(c_t)
    alpha_q(c) = 1 + a0_q W + sum_{i in c} w_i a_qi        beta_q(c) = b0_q W + sum_{i in c} w_i b_qi

with w_i the document's share of step c times its learning rate, W their sum, and a0, b0 what any document does: the
ridge penalty shrinks documents towards each other and not towards "no effect". Fitted query by query on recorded runs;
the penalty is chosen by leaving runs out. A document that no run has read has the common effect.

Source: Guu et al. 2023 (Simfluence), section 3; there without learning rates and common effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.simulate.runs import Intervals, Reading, RunRecord, intervals, step_weights
from winnow.errors import UserError

PENALTIES = np.logspace(-6, 2, 9)
"""Candidates, relative to the mean diagonal of a query's normal equations."""
JUDGES = 8
"""Queries that choose the penalty."""


@dataclass(frozen=True)
class LinearSimulator:
    """``multiplicative`` a and ``additive`` b, float64 ``[Q, N + 1]``, the common effect last; ``penalty`` chosen.

    ``rate`` is the mean learning rate of the runs, by which weights are divided.
    """

    multiplicative: np.ndarray
    additive: np.ndarray
    rate: float
    penalty: float

    @property
    def documents(self) -> int:
        """The number of documents of the corpus."""
        return self.additive.shape[1] - 1

    def simulate(self, reading: Reading, start: np.ndarray) -> np.ndarray:
        """Return the queries' losses, float64 ``[T + 1, Q]``, from ``start`` ``[Q]`` through the steps of a reading."""
        weights = _with_common(step_weights(reading, self.documents) / self.rate)
        return roll(weights @ self.multiplicative.T, weights @ self.additive.T, start)

    def influence(self, losses: np.ndarray) -> np.ndarray:
        """Return float64 ``[Q, N]``: how far one whole step on a document lowers losses ``[Q]``; positive = helpful."""
        change = self.multiplicative * losses[:, None] + self.additive
        return -(change[:, :-1] + change[:, -1:])


def roll(multiplied: np.ndarray, added: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return L_t = (1 + multiplied_t) L_{t-1} + added_t, float64 ``[T + 1, Q]``; both ``[T, Q]``, start ``[Q]``."""
    losses = np.empty((len(added) + 1, len(start)))
    losses[0] = start
    for step in range(len(added)):
        losses[step + 1] = losses[step] * (1.0 + multiplied[step]) + added[step]
    return losses


def fit_linear(runs: Sequence[RunRecord], count: int, folds: int = 4) -> LinearSimulator:
    """Fit a corpus of ``count`` documents to runs. Raises :class:`UserError` when there are fewer than two.

    The penalty is the same for all queries, chosen on up to eight of them. Memory and time grow with ``count`` squared
    and cubed, a query: for up to a few thousand documents.
    """
    require_runs(runs)
    rate = mean_rate(runs)
    parts = [intervals(run, count) for run in runs]
    queries = runs[0].losses.shape[1]
    centers = np.concatenate([part.before for part in parts]).mean(axis=0)
    dealt = [parts[first :: min(folds, len(parts))] for first in range(min(folds, len(parts)))]
    errors = np.zeros(len(PENALTIES))
    for query in np.unique(np.linspace(0, queries - 1, min(queries, JUDGES)).astype(np.int64)):
        each = [_Equations.of(some, query, rate, centers[query]) for some in dealt]
        whole = sum(each[1:], each[0])
        for held in each:
            rest = whole - held
            errors += [held.error(rest.solve(penalty)) / max(whole.square, 1e-300) for penalty in PENALTIES]
    penalty = float(PENALTIES[int(np.argmin(errors))])
    multiplicative, additive = np.empty((2, queries, count + 1))
    for query in range(queries):
        solution = _Equations.of(parts, query, rate, centers[query]).solve(penalty)
        multiplicative[query], additive[query] = solution[: count + 1], solution[count + 1 :]
        additive[query] -= multiplicative[query] * centers[query]
    return LinearSimulator(multiplicative, additive, rate, penalty)


def require_runs(runs: Sequence[RunRecord]) -> None:
    """Raise :class:`UserError` unless there are two runs or more, on the same queries."""
    if len(runs) < 2:
        raise UserError(f"{len(runs)} recorded runs; a simulator needs two at least, and is better for many")
    if len({run.losses.shape[1] for run in runs}) > 1:
        raise UserError("the runs were measured on different queries; give runs of one set of queries")


def mean_rate(runs: Sequence[RunRecord]) -> float:
    """Return the mean learning rate over all steps of the runs."""
    return float(np.mean(np.concatenate([run.reading.rates for run in runs])))


@dataclass(frozen=True)
class _Equations:
    """Normal equations of one query's changes on [w (L - center), w]; the common effect is last in each half."""

    gram: np.ndarray
    cross: np.ndarray
    square: float

    @classmethod
    def of(cls, parts: Sequence[Intervals], query: int, rate: float, center: float) -> _Equations:
        weights = _with_common(np.concatenate([part.weights for part in parts]) / rate)
        before = np.concatenate([part.before[:, query] for part in parts])
        change = np.concatenate([part.after[:, query] for part in parts]) - before
        design = np.concatenate([weights * (before - center)[:, None], weights], axis=1)
        return cls(design.T @ design, design.T @ change, float(change @ change))

    def __add__(self, other: _Equations) -> _Equations:
        return _Equations(self.gram + other.gram, self.cross + other.cross, self.square + other.square)

    def __sub__(self, other: _Equations) -> _Equations:
        return _Equations(self.gram - other.gram, self.cross - other.cross, self.square - other.square)

    def solve(self, penalty: float) -> np.ndarray:
        """Return the ridge solution; the common effects are not shrunk."""
        half = len(self.cross) // 2
        shrunk = np.arange(len(self.cross)) % half != half - 1
        scale = max(float(self.gram[shrunk, shrunk].mean()), 1e-300)
        # The unshrunk ones get what keeps the equations solvable where runs do not tell them apart.
        damped = self.gram + np.diag(np.where(shrunk, penalty, 1e-9) * scale)
        return np.linalg.solve(damped, self.cross)

    def error(self, solution: np.ndarray) -> float:
        """Return the squared error of a solution on these equations' rows."""
        return float(self.square - 2.0 * self.cross @ solution + solution @ self.gram @ solution)


def _with_common(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([weights, weights.sum(axis=1, keepdims=True)], axis=1)
