r"""Ridge regression whose penalty is chosen by leaving one row out, exactly and for all columns at once.

    W = argmin |Y - X W|^2 + lambda |W|^2        (X and Y centred)

With s^2 and V the eigenvalues and eigenvectors of X^T X (or, where there are fewer rows than features, those of X X^T,
which give the same), the prediction is H Y for H = X V diag(1 / (s^2 + lambda)) V^T X^T, and a row left out has the
residual (y - H y) / (1 - H_ii - 1/M). One decomposition of the smaller of the two matrices serves every penalty and
column; X may be sparse, and is never centred as a whole. Source: Hastie, Tibshirani and Friedman 2009, sections 3.4.1
and 7.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PENALTIES = np.logspace(-4, 4, 33)
"""Candidates, relative to the mean eigenvalue."""
RANK_TOLERANCE = 1e-13
"""Eigenvalues below so much of the largest are rounding errors."""
AT_ONCE = 1 << 22
"""Numbers of X in work at once."""


@dataclass(frozen=True)
class Ridge:
    """``weights`` float64 ``[F, Q]``; ``explained``: 1 - left-out error / variance, the mean over columns."""

    weights: np.ndarray
    penalty: float
    explained: float


def fit_ridge(features: Any, targets: np.ndarray, groups: np.ndarray | None = None) -> Ridge:
    """Fit targets ``[M, Q]`` to features ``[M, F]`` (an array, or a sparse one of scipy), one penalty for all columns.

    Rows are centred within their group (``groups`` int64 ``[M]``, from 0; None: all in one), so that a constant of each
    is fitted and not shrunk. The columns count equally, whatever their variance; where no penalty predicts a left-out
    row better than the mean does, the largest is taken.
    """
    rows, width = features.shape
    groups = np.zeros(rows, dtype=np.int64) if groups is None else groups
    sizes = np.bincount(groups).astype(np.float64)
    means_x, means_y = _means(features, groups, sizes), _means(targets, groups, sizes)
    centred = targets - means_y[groups]
    variance = np.maximum((centred**2).mean(axis=0), 1e-300)

    if wide := rows <= width:
        whole = _dense(features) - means_x[groups]
        squares, left = _eigen(whole @ whole.T)
        spread, along = left * np.sqrt(squares), np.sqrt(squares)[:, None] * (left.T @ centred)
    else:
        squares, right = _eigen(_dense(features.T @ features) - (means_x.T * sizes) @ means_x)
        along = right.T @ (_dense(features.T @ targets) - (means_x.T * sizes) @ means_y)
        shift = means_x @ right
    penalties = PENALTIES * squares.mean() if len(squares) else PENALTIES[:0]
    shrunk = 1.0 / (squares[:, None] + penalties)
    errors = np.zeros((len(penalties), targets.shape[1]))
    step = max(1, AT_ONCE // max(1, width))
    for start in range(0, rows, step):
        where = slice(start, start + step)
        # X V of centred rows, as cheap as X is sparse.
        scores = spread[where] if wide else _dense(features[where] @ right) - shift[groups[where]]
        kept = np.maximum(1.0 - scores**2 @ shrunk - 1.0 / sizes[groups[where], None], 1e-12)
        for place in range(len(penalties)):
            residual = (centred[where] - scores @ (shrunk[:, place, None] * along)) / kept[:, place, None]
            errors[place] += (residual**2).sum(axis=0)
    pooled = (errors / rows / variance).mean(axis=1)
    best = int(pooled.argmin()) if len(pooled) else 0
    chosen = float(penalties[best]) if len(pooled) else 0.0
    weighted = along / (squares + chosen)[:, None]
    weights = whole.T @ (left @ (weighted / np.sqrt(squares)[:, None])) if wide else right @ weighted
    return Ridge(weights, chosen, 1.0 - float(pooled[best]) if len(pooled) else 0.0)


def _means(values: Any, groups: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the mean row of every group, float64 ``[G, width]``."""
    from scipy.sparse import csr_array

    belongs = csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(len(sizes), len(groups)))
    return _dense(belongs @ values) / np.maximum(sizes, 1.0)[:, None]


def _dense(values: Any) -> np.ndarray:
    found: np.ndarray = values.toarray() if hasattr(values, "toarray") else values
    return found


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues that are not zero and their eigenvectors."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), 1e-300)
    return values[kept], vectors[:, kept]
