r"""Laws that carry losses from small runs to larger ones, each with a bootstrap interval.

Loss to loss, between two sets of items or two choices of data:

    L1 = E1 + K (L0 - E0)^kappa

Ladder, of a model of N parameters after D tokens:

    L(N, D) = E + A N^-a + B D^-b        (without A N^-a where there is one size only)

Both are fitted by least squares of log L with a soft-l1 loss from several starts; offsets lie below all losses seen.
Intervals (95%) come from resampling units (runs, whole curves at a time). An extrapolation is a projection: its
interval tells what resampling the runs tells, not whether the law holds out there.

Source: Brandfonbrener et al. 2024, "Loss-to-Loss Prediction: Scaling Laws for All Datasets" (arXiv 2411.12925),
section 3; Bhagia et al. 2024, "Establishing Task Scaling Laws via Compute-Efficient Model Ladders" (arXiv 2412.04403),
section 3; Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.validation.intervals import NONE, percentiles
from winnow.errors import UserError
from winnow.lab.kept import RunResult

RESAMPLES = 100
POINTS = 5
"""Points without which a law of so many parameters is not fitted."""


@dataclass(frozen=True, eq=False)
class LossToLoss:
    """``draws`` float64 ``[R, 4]``: E0, E1, K, kappa of resamples; ``error``: mean relative residual."""

    e0: float
    e1: float
    k: float
    kappa: float
    error: float
    draws: np.ndarray

    def predict(self, loss: float) -> tuple[float, float, float]:
        """Return L1 at L0 = ``loss`` with its interval."""
        point = float(_loss_to_loss(np.array([self.e0, self.e1, self.k, self.kappa]), np.array([loss]))[0])
        return point, *_interval(self.draws, lambda row: float(_loss_to_loss(row, np.array([loss]))[0]))


@dataclass(frozen=True, eq=False)
class Ladder:
    """``parameters`` E, A, a, B, b (A = 0 where one size was fitted); ``draws`` the same of resamples."""

    parameters: tuple[float, float, float, float, float]
    error: float
    draws: np.ndarray
    sizes: int

    def predict(self, model_parameters: float, tokens: float) -> tuple[float, float, float]:
        """Return the loss of a model of ``model_parameters`` after ``tokens`` with its interval.

        Raises :class:`UserError` for a size that the law cannot tell: it was fitted to one.
        """
        if self.sizes < 2 and model_parameters > 0:
            raise UserError("the ladder was fitted to one model size; give 0 parameters, or runs of a second size")
        at = np.array([[max(1.0, model_parameters), tokens]])
        point = float(_ladder(np.array(self.parameters), at)[0])
        return point, *_interval(self.draws, lambda row: float(_ladder(row, at)[0]))


def fit_loss_to_loss(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0) -> LossToLoss:
    """Fit L1 against L0 to curves, each (L0 float ``[E]``, L1 float ``[E]``) at the same moments of training.

    Raises :class:`UserError` when there are fewer than five points or a loss is not positive.
    """
    for column in pairs:
        _check(np.concatenate(column))
    x, y = (np.concatenate([one[side] for one in pairs]) for side in (0, 1))
    _enough(len(x))

    def fit(rows: Sequence[int], near: np.ndarray | None) -> np.ndarray:
        a, b = (np.concatenate([pairs[row][side] for row in rows]) for side in (0, 1))
        low, high = a.min(), b.min()
        starts = [] if near is None else [near]
        starts = starts or [
            np.array([share * low, share * high, 1.0, kappa]) for share in (0.0, 0.5, 0.9) for kappa in (0.5, 1.0)
        ]
        bounds = ([0.0, 0.0, 1e-9, 1e-3], [0.999 * low, 0.999 * high, np.inf, 20.0])
        return _best(lambda theta: _loss_to_loss(theta, a), b, starts, bounds)

    theta = fit(range(len(pairs)), None)
    draws = _resampled(np.zeros(len(pairs)), lambda rows: fit(rows, theta), seed)
    error = float(np.abs(_loss_to_loss(theta, x) / y - 1).mean())
    e0, e1, k, kappa = (float(value) for value in theta)
    return LossToLoss(e0, e1, k, kappa, error, draws)


def fit_ladder(runs: Sequence[RunResult], first_tokens: float = 0.0, warm_tokens: float = 0.0, seed: int = 0) -> Ladder:
    """Fit the judging losses of one preset's runs on one target, of one or more model sizes.

    Points before ``first_tokens`` are left out; ``warm_tokens`` of the warm-up count as tokens read. Raises
    :class:`UserError` for fewer than five points.
    """
    blocks = []
    for run in runs:
        rows = (run.tokens >= first_tokens) & (run.tokens + warm_tokens > 0)
        tokens = run.tokens[rows] + warm_tokens
        blocks.append((np.column_stack([np.full(len(tokens), float(run.parameters)), tokens]), run.losses[rows]))
    _enough(sum(len(losses) for _, losses in blocks))
    for _, losses in blocks:
        _check(losses)
    sizes = len({run.parameters for run in runs})

    def fit(rows: Sequence[int], near: np.ndarray | None) -> np.ndarray:
        at = np.concatenate([blocks[row][0] for row in rows])
        losses = np.concatenate([blocks[row][1] for row in rows])
        several = len(np.unique(at[:, 0])) > 1
        floor = losses.min()

        def law(free: np.ndarray) -> np.ndarray:
            return _ladder(_unpacked(free, several), at)

        starts = [] if near is None else [near if several else near[[0, 3, 4]]]
        for share in () if starts else (0.0, 0.5, 0.9):
            for power in (0.1, 0.3):
                gap = max(1e-3, (losses.max() - share * floor) / 2)
                data = [gap * at[:, 1].min() ** power, power]
                starts.append(
                    np.array([share * floor, *([gap * at[:, 0].min() ** power, power] if several else []), *data])
                )
        high = [0.999 * floor, *([np.inf, 2.0] if several else []), np.inf, 2.0]
        low = [0.0, *([0.0, 1e-3] if several else []), 0.0, 1e-3]
        return _unpacked(_best(law, losses, starts, (low, high)), several)

    theta = fit(range(len(blocks)), None)
    size_of = np.array([run.parameters for run in runs])
    draws = _resampled(size_of, lambda rows: fit(rows, theta), seed)
    at, losses = (np.concatenate([block[side] for block in blocks]) for side in (0, 1))
    error = float(np.abs(_ladder(theta, at) / losses - 1).mean())
    e, a, alpha, b, beta = (float(value) for value in theta)
    return Ladder((e, a, alpha, b, beta), error, draws, sizes)


def _loss_to_loss(theta: np.ndarray, loss: np.ndarray) -> np.ndarray:
    e0, e1, k, kappa = theta
    return np.asarray(e1 + k * np.maximum(loss - e0, 1e-12) ** kappa)


def _ladder(theta: np.ndarray, at: np.ndarray) -> np.ndarray:
    e, a, alpha, b, beta = theta
    return np.asarray(e + a * at[:, 0] ** -alpha + b * at[:, 1] ** -beta)


def _unpacked(free: np.ndarray, several: bool) -> np.ndarray:
    return free if several else np.array([free[0], 0.0, 1.0, free[1], free[2]])


def _best(
    law: Callable[[np.ndarray], np.ndarray],
    losses: np.ndarray,
    starts: Sequence[np.ndarray],
    bounds: tuple[Sequence[float], Sequence[float]],
) -> np.ndarray:
    from scipy.optimize import least_squares

    target = np.log(losses)
    found = [
        least_squares(
            lambda theta: np.log(np.maximum(law(theta), 1e-12)) - target,
            np.clip(start, np.array(bounds[0]) + 1e-9, np.array(bounds[1]) - 1e-9),
            bounds=bounds,
            loss="soft_l1",
            f_scale=0.01,
            x_scale=np.maximum(np.abs(start), 1e-3),
        )
        for start in starts
    ]
    return np.asarray(min(found, key=lambda one: one.cost).x)


def _resampled(strata: np.ndarray, fit: Callable[[Sequence[int]], np.ndarray], seed: int) -> np.ndarray:
    """Return the parameters of units resampled within their strata, ``[R, P]``; none where each has one unit."""
    groups = [np.flatnonzero(strata == one) for one in np.unique(strata)]
    if max(len(group) for group in groups) < 2:
        return np.zeros((0, 0))
    generator = np.random.default_rng(seed)
    picks = []
    for _ in range(RESAMPLES):
        drawn = [group[generator.integers(0, len(group), len(group))] for group in groups]
        picks.append(tuple(sorted(np.concatenate(drawn).tolist())))
    fitted = {pick: fit(pick) for pick in sorted(set(picks))}
    return np.array([fitted[pick] for pick in picks])


def _interval(draws: np.ndarray, value: Callable[[np.ndarray], float]) -> tuple[float, float]:
    return percentiles(np.array([value(row) for row in draws])) if len(draws) else NONE


def _check(losses: np.ndarray) -> None:
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        raise UserError("law of losses: a loss is not a positive number; leave that run out")


def _enough(points: int) -> None:
    if points < POINTS:
        raise UserError(f"law of losses: {points} points; give runs with at least {POINTS} evaluations")
