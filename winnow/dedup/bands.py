"""Banding of MinHash signatures: how many bands of how many rows, and the key of each band.

Two texts of Jaccard similarity s agree on a band of r rows with probability s**r, hence on at least one of b bands with
probability ``1 - (1 - s**r)**b`` (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.dedup.shingles import over_ranges
from winnow.errors import UserError


@dataclass(frozen=True)
class BandPlan:
    """How signatures are banded for one threshold of Jaccard similarity."""

    threshold: float
    num_perm: int
    bands: int
    rows: int

    @property
    def recall_at_threshold(self) -> float:
        """Chance that a pair exactly at the threshold becomes a candidate; higher for every pair above it."""
        return self.recall(self.threshold)

    @property
    def midpoint(self) -> float:
        """Similarity near which the curve is steepest, ``(1 / bands) ** (1 / rows)``."""
        return float((1 / self.bands) ** (1 / self.rows))

    def recall(self, similarity: float) -> float:
        """Chance that a pair of this similarity becomes a candidate."""
        return float(s_curve(self.bands, self.rows, similarity))


def s_curve(bands: int, rows: int, similarity: float | np.ndarray) -> np.ndarray:
    """Return the chance ``1 - (1 - s**rows)**bands`` that a pair of Jaccard similarity s shares a band; s's shape."""
    return 1 - (1 - np.asarray(similarity, np.float64) ** rows) ** bands


def plan_bands(threshold: float, num_perm: int = 128, recall: float = 0.99) -> BandPlan:
    """Return the plan with the most rows a band (fewest false candidates) that reaches ``recall`` at the threshold.

    All permutations are spent: ``bands = num_perm // rows``. Candidates are verified exactly, so recall costs little:
    at the threshold 0.8 with 128 permutations the default gives 21 bands of 6 rows and finds 99.8% of pairs at 0.8.
    Raises ``UserError`` for values out of range, or if no plan reaches the recall with so few permutations.
    """
    if not (0 < threshold < 1 and 0 < recall < 1 and num_perm >= 1):
        raise UserError(
            f"threshold={threshold}, recall={recall}, num_perm={num_perm} make no banding; "
            "set threshold and recall between 0 and 1 and num_perm to at least 1 (0.8, 0.99 and 128 are usual)"
        )
    for rows in range(num_perm, 0, -1):
        plan = BandPlan(threshold, num_perm, num_perm // rows, rows)
        if plan.recall_at_threshold >= recall:
            return plan
    raise UserError(
        f"{num_perm} permutations cannot find {recall:.1%} of the pairs of similarity {threshold}; "
        "raise num_perm or the threshold"
    )


def band_keys(signatures: np.ndarray, plan: BandPlan, threads: int | None = None) -> np.ndarray:
    """Return the key of every band of signatures uint32 ``[N, K]`` as uint64 ``[N, plan.bands]``.

    Band j's key is xxh64 with seed j of the little-endian bytes of columns ``j * rows .. (j + 1) * rows``. Rows of
    texts without a signature must be left out: they are all equal. Raises ``UserError`` if K is not the plan's.
    """
    from winnow.dedup import _kernels

    if signatures.ndim != 2 or signatures.shape[1] != plan.num_perm:
        raise UserError(
            f"the signatures have shape {signatures.shape}, the band plan is for {plan.num_perm} permutations; "
            "use the same num_perm for both"
        )
    raw = np.ascontiguousarray(signatures, np.uint32).view(np.uint8)
    keys = np.empty((len(raw), plan.bands), np.uint64)
    weights = np.arange(len(raw) + 1, dtype=np.int64) * raw.shape[1]
    over_ranges(lambda first, last: _kernels.band_keys(raw, 4 * plan.rows, first, last, keys), weights, threads)
    return keys
