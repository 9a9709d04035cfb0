r"""Memorisation: how much lower a model's loss is on documents it read than on like ones it did not, by repetition.

Documents read r times are compared with documents never read: the difference of mean losses with its 95% interval, and
the chance that a seen document has the lower loss (0.5: nothing to tell them apart). A text that is repeated in a
corpus is often easy too (templates, licences), which looks like memory. With losses ``before`` the documents were read
(an earlier checkpoint), each document is its own control and the comparison is one of *changes*, a difference in
differences: what training in general did to unseen documents is taken off what it did to seen ones.

Sources: Lesci et al. 2024, "Causal estimation of memorisation profiles", section 4 (difference in differences); Carlini
et al. 2023, "Quantifying memorization across neural language models", section 3.2 (by repetition).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.validation.intervals import NONE, percentiles
from winnow.attribution.validation.rows import Row, row
from winnow.contamination.membership import BOOTSTRAPS, LEAST_GROUP, Comparison, compare
from winnow.errors import UserError

LOWER_IS_SEEN = -1


@dataclass(frozen=True)
class Repetition:
    """Documents read ``least`` to ``most`` times against those never read; ``comparison.difference`` is in nats."""

    least: int
    most: int
    comparison: Comparison

    @property
    def label(self) -> str:
        return f"{self.least}x" if self.least == self.most else f"{self.least}-{self.most}x"


@dataclass(frozen=True)
class Memorisation:
    """``all_seen``: every document read at least once; ``repetitions``: the same by how often, 1, 2, 3-4, 5-8, ...

    ``per_doubling``: change of the loss when a document is read twice as often (nats, least squares over the seen), and
    its interval; NaN when all were read equally often. ``paired``: losses were compared to those before reading.
    """

    all_seen: Comparison
    repetitions: tuple[Repetition, ...]
    per_doubling: float
    per_doubling_interval: tuple[float, float]
    paired: bool

    def to_rows(self) -> list[Row]:
        method = "change of loss" if self.paired else "loss"
        groups = [("seen", self.all_seen), *((one.label, one.comparison) for one in self.repetitions)]
        rows = []
        for at, found in groups:
            interval = (found.low, found.high)
            rows.append(
                row("memorisation", method, "seen_minus_unseen", found.difference, interval, at=at, count=found.found)
            )
            rows.append(row("memorisation", method, "auc", found.auc, at=at, count=found.found))
        if np.isnan(self.per_doubling):
            return rows
        seen, interval = self.all_seen.found, self.per_doubling_interval
        return [*rows, row("memorisation", method, "per_doubling", self.per_doubling, interval, count=seen)]


def memorisation(
    losses: np.ndarray, times: np.ndarray, before: np.ndarray | None = None, seed: int = 0
) -> Memorisation:
    """Report on float ``[N]`` losses (nats a token) of documents that were read ``times`` int ``[N]``, 0 = never.

    ``before`` float ``[N]``: the losses of the same documents before any of them was read. Documents without a finite
    loss count nowhere. Raises :class:`UserError` unless there are seen and unseen documents.
    """
    values = np.asarray(losses, np.float64) if before is None else np.asarray(losses - before, np.float64)
    if values.shape != times.shape:
        raise UserError(f"{len(values)} losses but {len(times)} counts of readings: one of each a document")
    known = np.isfinite(values)
    values, times = values[known], times[known]
    if not (times > 0).any() or not (times == 0).any():
        raise UserError(
            f"{int((times > 0).sum())} documents that were read and {int((times == 0).sum())} that were not; "
            "memorisation needs some of both, alike in kind"
        )
    groups = []
    for least, most in _octaves(int(times.max())):
        inside = (times >= least) & (times <= most)
        if inside.any():
            part = inside | (times == 0)
            groups.append(Repetition(least, most, compare(values[part], times[part] > 0, LOWER_IS_SEEN, seed)))
    slope, interval = _per_doubling(values[times > 0], times[times > 0], seed)
    whole = compare(values, times > 0, LOWER_IS_SEEN, seed)
    return Memorisation(whole, tuple(groups), slope, interval, before is not None)


def _octaves(most: int) -> list[tuple[int, int]]:
    """Return 1-1, 2-2, 3-4, 5-8, ... as far as ``most``."""
    groups, start, end = [], 1, 1
    while start <= most:
        groups.append((start, end))
        start, end = end + 1, end * 2
    return groups


def _per_doubling(values: np.ndarray, times: np.ndarray, seed: int) -> tuple[float, tuple[float, float]]:
    doublings = np.log2(times.astype(np.float64))
    order = np.lexsort((values, doublings))
    values, doublings = values[order], doublings[order]
    slope = _slope(doublings, values)
    if not np.isfinite(slope) or len(values) < LEAST_GROUP:
        return slope, NONE
    generator = np.random.default_rng(seed)
    draws = np.array(
        [_slope(doublings[d], values[d]) for d in generator.integers(0, len(values), (BOOTSTRAPS, len(values)))]
    )
    # A resample of documents read equally often has no slope.
    return slope, percentiles(draws[np.isfinite(draws)]) if np.isfinite(draws).any() else NONE


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    power = float((centred * centred).sum())
    return float((centred * y).sum()) / power if power > 0.0 else float("nan")
