"""The compiled loop of boosting: the best split of all leaves by one feature."""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel


@kernel
def best_split(
    bins: np.ndarray,
    columns: np.ndarray,
    leaf: np.ndarray,
    leaves: int,
    gradient: np.ndarray,
    curvature: np.ndarray,
    penalty: float,
    size: int,
) -> tuple[int, int]:
    """Return the column and the bin b that split every leaf best into bins up to b and above; the first of equals.

    ``bins`` uint8 ``[P, N]`` below ``size``, ``columns`` int64 ``[C]`` are looked at; ``leaf`` int64 ``[N]`` below
    ``leaves``. The gain is the sum over leaves of G^2 / (H + penalty) of both sides.
    """
    best, column, threshold = -1.0, -1, -1
    sums = np.zeros((leaves, size, 2))
    gain = np.zeros(size)
    for candidate in columns:
        sums[:] = 0.0
        gain[:] = 0.0
        row = bins[candidate]
        for document in range(len(leaf)):
            cell = sums[leaf[document], row[document]]
            cell[0] += gradient[document]
            cell[1] += curvature[document]
        for one in range(leaves):
            whole, weight = 0.0, 0.0
            for place in range(size):
                whole += sums[one, place, 0]
                weight += sums[one, place, 1]
            below, lighter = 0.0, 0.0
            for place in range(size - 1):
                below += sums[one, place, 0]
                lighter += sums[one, place, 1]
                above, heavier = whole - below, weight - lighter
                gain[place] += below * below / (lighter + penalty) + above * above / (heavier + penalty)
        for place in range(size - 1):
            if gain[place] > best:
                best, column, threshold = gain[place], candidate, place
    return column, threshold
