"""Banding of MinHash signatures: how many bands of how many rows, and the key of each band.

Two texts of Jaccard similarity s agree on a band of r rows with probability s**r, hence on at least one of b bands with
probability ``1 - (1 - s**r)**b`` (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4).

Two ways to choose b and r, both over all pairs with ``b * r <= permutations``:

- ``recall``: of the pairs that find a pair *at* the threshold with at least the wanted chance, the one with the least
  :meth:`BandPlan.false_candidates`. Candidates are verified exactly, so recall is what banding must not lose, and false
  candidates are only work.
- ``datasketch-optimal``: what datasketch's ``MinHashLSH`` takes with equal weights, the least sum of two areas: under
  the curve left of the threshold, and over it on the right. It finds only 0.3 to 0.5 of the pairs at the threshold
  itself; that suits an index whose candidates nobody verifies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from winnow.dedup.shingles import over_ranges
from winnow.errors import UserError

Mode = Literal["recall", "datasketch-optimal"]
Density = Callable[[np.ndarray], np.ndarray]
"""Density of the similarity of two documents drawn at random: from s in (0, 1] to float64 of the same shape."""

SHARING = 1e-3
DECAY = 10.0


def pair_density(similarity: np.ndarray) -> np.ndarray:
    """Return the density that is assumed where no sample was taken: ``SHARING * DECAY * exp(-DECAY * s)``.

    Measured over 5-word shingles of random pairs of one source: 0.02% (text messages), 0.06% (questions, newsgroups),
    0.5% (revisions) to 1.6% (an encyclopaedia with its templates) share more than a hundredth of their shingles, and
    their number falls by a factor of e for each 0.1 to 0.17 of similarity. All others are taken to share nothing.
    """
    return SHARING * DECAY * np.exp(-DECAY * np.asarray(similarity, np.float64))


@dataclass(frozen=True)
class BandPlan:
    """How signatures are banded for one threshold of Jaccard similarity."""

    threshold: float
    permutations: int
    bands: int
    rows: int
    mode: str = "recall"

    @property
    def name(self) -> str:
        """What two comparable rows of the table ``bands`` share, such as ``17b7r@0.8``."""
        return f"{self.bands}b{self.rows}r@{float(self.threshold)!r}"

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

    def false_candidates(self, density: Density = pair_density) -> float:
        """Chance that two documents drawn at random are a candidate pair below the threshold, under ``density``."""
        points, weights = _nodes(0.0, self.threshold)
        return float(np.sum(weights * density(points) * s_curve(self.bands, self.rows, points)))


def s_curve(bands: int, rows: int, similarity: float | np.ndarray) -> np.ndarray:
    """Return the chance ``1 - (1 - s**rows)**bands`` that a pair of Jaccard similarity s shares a band; s's shape."""
    # log1p and expm1: a chance of 1e-20 is no rounding error to a corpus of 1e20 pairs.
    with np.errstate(divide="ignore"):
        return -np.expm1(bands * np.log1p(-(np.asarray(similarity, np.float64) ** rows)))


def plan_bands(threshold: float, permutations: int = 128, recall: float = 0.98, mode: Mode = "recall") -> BandPlan:
    """Return the plan of a mode (see the module); ``recall`` is that wanted at the threshold, of mode ``recall`` alone.

    At the threshold 0.8 with 128 permutations the default gives 17 bands of 7 rows, which find 98.2% of pairs at 0.8.
    Plans of equal cost (to nine digits) are decided by the fewer bands: less to store. Raises ``UserError`` for values
    out of range, or if no plan reaches the recall with so few permutations.
    """
    if not (0 < threshold < 1 and 0 < recall < 1 and permutations >= 1):
        raise UserError(
            f"threshold={threshold}, recall={recall}, permutations={permutations} make no banding; "
            "set threshold and recall between 0 and 1 and permutations to at least 1 (0.8, 0.98 and 128 are usual)"
        )
    if mode == "datasketch-optimal":
        bands, rows = _least_error(threshold, permutations)
        return BandPlan(threshold, permutations, bands, rows, mode)
    if mode != "recall":
        raise UserError(f"banding is '{mode}'; set duplicates.banding to 'recall' or 'datasketch-optimal'")
    plans = list(_reaching(threshold, permutations, recall))
    if not plans:
        raise UserError(
            f"{permutations} permutations cannot find {recall:.1%} of the pairs of similarity {threshold}; "
            "raise duplicates.permutations or duplicates.threshold, or lower duplicates.recall"
        )
    return min(plans, key=lambda plan: (float(f"{plan.false_candidates():.9e}"), plan.bands))


def _reaching(threshold: float, permutations: int, recall: float) -> Iterator[BandPlan]:
    """Yield for each number of rows the plan of the fewest bands that reaches the recall: more only add candidates."""
    for rows in range(1, permutations + 1):
        for bands in range(_fewest_bands(threshold, rows, recall), permutations // rows + 1):
            plan = BandPlan(threshold, permutations, bands, rows)
            if plan.recall_at_threshold >= recall:
                yield plan
                break


def _fewest_bands(threshold: float, rows: int, recall: float) -> int:
    """Return ``log(1 - recall) / log(1 - t**r)``, less one for rounding."""
    agree = threshold**rows
    if agree < 1e-12:
        return 1 << 62
    return max(1, math.ceil(math.log1p(-recall) / math.log1p(-agree)) - 1)


@lru_cache(maxsize=64)
def _least_error(threshold: float, permutations: int) -> tuple[int, int]:
    """Return bands and rows with the least sum of datasketch's two areas; the first of equals, by bands, then rows."""
    below, below_weights = _nodes(0.0, threshold)
    above, above_weights = _nodes(threshold, 1.0)
    with np.errstate(divide="ignore"):
        low = {rows: np.log1p(-(below**rows)) for rows in range(1, permutations + 1)}
        high = {rows: np.log1p(-(above**rows)) for rows in range(1, permutations + 1)}
    least, best = math.inf, (0, 0)
    for bands in range(1, permutations + 1):
        for rows in range(1, permutations // bands + 1):
            false = -np.sum(below_weights * np.expm1(bands * low[rows]))
            missed = np.sum(above_weights * np.exp(bands * high[rows]))
            if false + missed < least:
                least, best = float(false + missed), (bands, rows)
    return best


def _nodes(first: float, last: float, panels: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights of Gauss-Legendre quadrature, float64 ``[16 * panels]``, on panels of an interval."""
    points, weights = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(first, last, panels + 1)
    half = np.diff(edges) / 2
    return (edges[:-1, None] + half[:, None] * (points + 1)).ravel(), (half[:, None] * weights).ravel()


def band_keys(signatures: np.ndarray, plan: BandPlan, threads: int | None = None) -> np.ndarray:
    """Return the key of every band of signatures uint32 or uint64 ``[N, K]`` as uint64 ``[N, plan.bands]``.

    Band j's key is xxh64 with seed j of the little-endian bytes of columns ``j * rows .. (j + 1) * rows``. Rows of
    texts without a signature must be left out: they are all equal. Raises ``UserError`` if K is not the plan's.
    """
    from winnow.dedup import _band_kernels

    raw, width = _as_bytes(signatures, plan)
    keys = np.empty((len(raw), plan.bands), np.uint64)
    weights = np.arange(len(raw) + 1, dtype=np.int64) * raw.shape[1]
    over_ranges(lambda first, last: _band_kernels.band_keys(raw, width, first, last, keys), weights, threads)
    return keys


def band_keys_of_one(signature: np.ndarray, plan: BandPlan) -> np.ndarray:
    """Return :func:`band_keys` of one signature ``[K]`` as uint64 ``[plan.bands]``, without compiled code."""
    import xxhash

    raw, width = _as_bytes(np.asarray(signature)[None], plan)
    row = raw[0].tobytes()
    return np.array([xxhash.xxh64_intdigest(row[j * width : (j + 1) * width], j) for j in range(plan.bands)], np.uint64)


def _as_bytes(signatures: np.ndarray, plan: BandPlan) -> tuple[np.ndarray, int]:
    """Return signatures as bytes uint8 ``[N, K * itemsize]`` and the bytes of a band."""
    if signatures.ndim != 2 or signatures.shape[1] != plan.permutations:
        raise UserError(
            f"the signatures have shape {signatures.shape}, the band plan is for {plan.permutations} permutations; "
            "use the same number for both"
        )
    if signatures.dtype not in (np.uint32, np.uint64):
        raise UserError(f"the signatures are of type {signatures.dtype}; expected uint32 or uint64")
    raw = np.ascontiguousarray(signatures).view(np.uint8)
    return raw, plan.rows * signatures.dtype.itemsize
