"""How new a document is to a model that has been trained on others: its distance from the nearest of them."""

from __future__ import annotations

import numpy as np

from winnow.selection.greedy import unit_rows
from winnow.selection.within import Vectors

ROWS = 2048
DIGITS = 9  # products differ in their last bits by the size of the blocks


def novelty(vectors: Vectors, count: int, seen: np.ndarray) -> np.ndarray:
    """Return 1 - max cosine with what was seen, float64 ``[N]``, 0 to 2; larger = newer, 1 where nothing was seen.

    ``vectors`` gives the rows of ``count`` documents; ``seen`` float ``[M, D]``, such as the vectors of the documents
    of earlier manifests, or the centroids of their clusters where these are many. N M D operations. A column of a
    reward (:mod:`winnow.selection.rewards`) that keeps a policy from buying the same thing twice.
    """
    found = np.ones(count)
    if not len(seen):
        return found
    known = unit_rows(seen)
    for start in range(0, count, ROWS):
        rows = unit_rows(np.asarray(vectors[np.arange(start, min(start + ROWS, count))]))
        nearest = np.full(len(rows), -1.0)
        for block in range(0, len(known), ROWS):
            np.maximum(nearest, (rows @ known[block : block + ROWS].T).max(axis=1), out=nearest)
        found[start : start + len(rows)] = 1.0 - np.round(nearest, DIGITS)
    return found
