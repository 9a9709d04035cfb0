"""Choosing the damping on held-out queries: scores of each value against the truth, the best and its uncertainty.

Damping is a multiple of the mean eigenvalue of a layer's curvature, and worth a sweep over decades: the best value
depends on the model, the parameters attributed and the estimator. The truth is either a bank of models trained on
subsets (:func:`against_bank`) or influences measured document by document, such as the one-step oracle's
(:func:`against_truth`). The queries of the sweep must not be those that judge the estimator afterwards. The bench tunes
by it (:mod:`winnow.attribution.leaderboard`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.correlation import spearman
from winnow.attribution.lds import predicted, spearman_columns
from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.attribution.bank import SubsetBank
    from winnow.attribution.estimators import Estimator, Fitted
    from winnow.attribution.run import Queries, Settings, TrainingRun

Quality = Callable[[np.ndarray], np.ndarray]
"""Maps scores float64 ``[Q, N]`` to the quality of each query's row, float64 ``[Q]``."""
DAMPINGS = tuple(10.0**power for power in range(-3, 4))
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class DampingSweep:
    """Qualities by damping; ``dampings`` float64 ``[D]`` ascending, ``quality`` float64 ``[D, Q]`` of every query.

    ``best`` has the largest mean over queries; ``interval`` is that mean's bootstrap interval over queries;
    ``tied`` are the dampings whose difference from the best has an interval that holds zero; ``held_out`` is what
    choosing by one half of the queries reaches on the other half, both ways round: unlike the mean of the best it is
    not flattered by the choice.
    """

    dampings: np.ndarray
    quality: np.ndarray
    best: float
    interval: tuple[float, float]
    tied: tuple[float, ...]
    held_out: float

    @property
    def means(self) -> np.ndarray:
        """The mean over queries of each damping, float64 ``[D]``."""
        means: np.ndarray = self.quality.mean(axis=1)
        return means


def sweep_damping(
    scores: Mapping[float, np.ndarray], quality: Quality, *, seed: int = 0, level: float = 0.95
) -> DampingSweep:
    """Return how good the scores ``[Q, N]`` of each damping are, and the best of them.

    Of equally good ones the larger is taken, as the safer. Give the queries in an order of their own (by doc_id): the
    bootstrap draws them by place. Raises :class:`UserError` for no damping or fewer than two queries.
    """
    dampings = np.array(sorted(scores), dtype=np.float64)
    if not len(dampings):
        raise UserError("no damping to choose from; give at least one")
    found = np.stack([quality(scores[damping]) for damping in dampings.tolist()])
    count = found.shape[1]
    if count < 2:
        raise UserError(f"{count} queries cannot choose a damping; give at least two")
    draws = np.random.default_rng(seed).integers(0, count, (BOOTSTRAPS, count))
    resampled = found[:, draws].mean(axis=2)
    bounds = [(1 - level) / 2, (1 + level) / 2]
    best = _largest(found)
    differences = np.quantile(resampled - resampled[best], bounds, axis=1)
    tied = dampings[(differences[0] <= 0.0) & (differences[1] >= 0.0)]
    even = np.arange(count) % 2 == 0
    crossed = [found[_largest(found[:, chosen]), ~chosen] for chosen in (even, ~even)]
    low, high = np.quantile(resampled[best], bounds)
    return DampingSweep(
        dampings,
        found,
        float(dampings[best]),
        (float(low), float(high)),
        tuple(tied.tolist()),
        float(np.concatenate(crossed).mean()),
    )


def damped_scores(
    estimator: Estimator,
    run: TrainingRun,
    settings: Settings,
    queries: Queries,
    dampings: Sequence[float] = DAMPINGS,
    fitted: Fitted | None = None,
) -> dict[float, np.ndarray]:
    """Return the scores ``[Q, N]`` of each damping; what does not depend on it (curvature, norms) is fitted once.

    ``fitted``: the estimator as fitted with ``settings``, where that is at hand.
    """
    fitted = fitted or estimator.fit(run, settings)
    return {
        damping: (fitted.damped(damping) or estimator.fit(run, replace(settings, damping=damping))).score(queries)
        for damping in dampings
    }


def against_bank(bank: SubsetBank, queries: Queries) -> Quality:
    """Return the quality by LDS against models trained on subsets, see :mod:`winnow.attribution.lds`."""
    truth = -bank.losses[:, :, bank.columns(queries.tokens)].mean(axis=1)
    return lambda scores: spearman_columns(predicted(scores, bank.masks), truth)


def against_truth(truth: np.ndarray) -> Quality:
    """Return the quality by Spearman's correlation with measured influences float64 ``[Q, N]``.

    Documents without a score or a measurement (NaN) do not count.
    """

    def quality(scores: np.ndarray) -> np.ndarray:
        if scores.shape != truth.shape:
            raise UserError(f"scores of shape {scores.shape} do not fit measured influences of {truth.shape}")
        both = np.isfinite(scores) & np.isfinite(truth)
        return np.array([spearman(s[m], t[m]) for s, t, m in zip(scores, truth, both, strict=True)])

    return quality


def _largest(quality: np.ndarray) -> int:
    means = quality.mean(axis=1)
    return int(np.flatnonzero(means == means.max())[-1])
