"""Neighbour sharing: what a pull shows of an arm, it shows a little of the arms near by.

A pull of arm i counts for every arm j with centroid distance d_ij below the radius, itself included, with weight
w_ij = 1 - d_ij / radius. ``weighted`` counts w pulls and w probes of the rewards seen, so the mean of an arm is a
kernel-weighted mean. ``released`` is Quad's code: w times the rewards, but one whole pull and all its probes, which
draws every neighbour towards reward 0 (in standardised rewards: towards the mean of the opening).

Source: arXiv 2409.16986 and its released code, radius 0.2 between unit vectors. What was probed of an arm (documents
used up) is counted by the bandit and never shared.
"""

from __future__ import annotations

import numpy as np

from winnow.errors import UserError

SHARING = ("weighted", "released")
BLOCK = 1024


class Neighbours:
    """The arms within ``radius`` of each arm, of ``centroids`` float32 ``[K, D]``, Euclidean."""

    def __init__(self, centroids: np.ndarray | None, radius: float, counts: str = "weighted") -> None:
        if centroids is None:
            raise UserError("neighbour_radius: the arms have no centroids to be near by; set it to 0")
        if counts not in SHARING:
            raise UserError(f"neighbour_counts: '{counts}'; expected {' or '.join(SHARING)}")
        self.released = counts == "released"
        points = np.asarray(centroids, dtype=np.float64)
        points = points.reshape(-1, *points.shape[-2:])  # [R, K, D]
        runs, arms = points.shape[:2]
        near, weights, starts = [], [], [np.zeros(1, dtype=np.int64)]
        for run in range(runs):
            own = points[run]
            norms = (own**2).sum(axis=1)
            for start in range(0, arms, BLOCK):
                part = slice(start, start + BLOCK)
                squared = np.maximum(norms[part, None] + norms[None, :] - 2 * own[part] @ own.T, 0.0)
                rows = np.arange(start, min(start + BLOCK, arms))
                squared[rows - start, rows] = 0.0  # rounding keeps no arm from itself
                weight = 1 - np.sqrt(squared) / radius
                row, arm = np.nonzero(weight > 0)
                near.append(run * arms + arm)
                weights.append(weight[row, arm])
                starts.append(np.bincount(row, minlength=len(rows)))
        self.near, self.weights = np.concatenate(near), np.concatenate(weights)
        self.starts = np.cumsum(np.concatenate(starts))

    def spread(self, places: np.ndarray, *sums: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return places and sums (pulls, probes, total, squares) of all arms that the pulls at ``places`` touch."""
        counts = self.starts[places + 1] - self.starts[places]
        pull = np.repeat(np.arange(len(places)), counts)
        offset = np.arange(len(pull)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = self.starts[places][pull] + offset
        weights = self.weights[at]
        pulls, probes, total, squares = (values[pull] for values in sums)
        if self.released:
            return self.near[at], pulls, probes, weights * total, weights**2 * squares
        return self.near[at], weights * pulls, weights * probes, weights * total, weights * squares
