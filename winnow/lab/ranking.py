"""Does the order of the presets hold at another model size? Rank agreement with an interval over seeds.

Presets are ranked by their mean final judging loss at each of two sizes. Kendall's tau-b and Spearman's rho compare the
two orders; the intervals (95%) are percentiles over resampled seeds within each preset and size, NaN where no preset
has more than one seed. An order of few presets with close losses agrees by chance: read the interval.

Source: Magnusson et al. 2025 (DataDecide) for asking whether small runs rank data as larger ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.correlation import spearman
from winnow.attribution.validation.intervals import BOOTSTRAPS, NONE, percentiles
from winnow.errors import UserError
from winnow.lab.kept import RunResult
from winnow.lab.speed import grouped


@dataclass(frozen=True)
class RankAgreement:
    """Two sizes' orders of the presets on one target.

    ``presets`` best first at each, ``kendall`` and ``spearman`` with their intervals, ``flips``: pairs that the sizes
    order differently.
    """

    target: str
    models: tuple[str, str]
    presets: tuple[tuple[str, ...], tuple[str, ...]]
    kendall: float
    kendall_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]
    flips: tuple[tuple[str, str], ...]

    @property
    def best(self) -> bool:
        """Whether both sizes put the same preset first."""
        return self.presets[0][:1] == self.presets[1][:1]

    @property
    def holds(self) -> bool:
        """Whether the orders agree beyond chance: the interval of Kendall's tau is above zero."""
        return self.kendall_interval[0] > 0


def kendall(left: np.ndarray, right: np.ndarray) -> float:
    """Return Kendall's tau-b of two float ``[N]`` arrays; 0.0 if one is constant."""
    rows, columns = np.triu_indices(len(left), 1)
    a, b = np.sign(left[rows] - left[columns]), np.sign(right[rows] - right[columns])
    norm = float(np.sqrt((a != 0).sum() * (b != 0).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def rank_agreement(runs: Sequence[RunResult], target: str, models: tuple[str, str], seed: int = 0) -> RankAgreement:
    """Return how two model sizes rank the presets that both have on ``target``.

    Raises :class:`UserError` when they share fewer than three presets.
    """
    groups = grouped(run for run in runs if run.target == target and run.model in models)
    presets = sorted({preset for preset, _, model in groups if model == models[0]}
                     & {preset for preset, _, model in groups if model == models[1]})  # fmt: skip
    if len(presets) < 3:
        raise UserError(
            f"rank of presets on '{target}': models {models[0]} and {models[1]} share {len(presets)} presets; run at "
            "least 3 at both"
        )
    losses = [[np.array([run.loss for run in groups[preset, target, model]]) for preset in presets] for model in models]
    means = [np.array([each.mean() for each in column]) for column in losses]
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(BOOTSTRAPS):
        drawn = [
            np.array([each[generator.integers(0, len(each), len(each))].mean() for each in column]) for column in losses
        ]
        draws.append((kendall(*drawn), spearman(*drawn)))
    several = any(len(each) > 1 for column in losses for each in column)
    intervals = [percentiles(np.array(column)) if several else NONE for column in zip(*draws, strict=True)]
    orders = tuple(tuple(presets[place] for place in np.argsort(column, kind="stable").tolist()) for column in means)
    flips = tuple(
        (presets[a], presets[b])
        for a in range(len(presets))
        for b in range(a + 1, len(presets))
        if (means[0][a] - means[0][b]) * (means[1][a] - means[1][b]) < 0
    )
    return RankAgreement(
        target, models, (orders[0], orders[1]), kendall(*means), intervals[0], spearman(*means), intervals[1], flips
    )
