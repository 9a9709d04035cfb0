r"""Ridge regression whose penalty is chosen by leaving one row out, exactly and for all columns at once.

    W = argmin |Y - X W|^2 + lambda |W|^2        (X and Y centred)

With X = U S V^T, the prediction is H Y for H = U diag(s^2 / (s^2 + lambda)) U^T, and a row left out has the residual
(y - H y) / (1 - H_ii - 1/M). One decomposition serves every penalty and column, with more features than rows as well.
Source: Hastie, Tibshirani and Friedman 2009, sections 3.4.1 and 7.10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = np.logspace(-4, 4, 33)
"""Candidates, relative to the mean squared singular value."""


@dataclass(frozen=True)
class Ridge:
    """``weights`` float64 ``[F, Q]``, ``intercept`` ``[Q]``; ``explained``: 1 - left-out error / variance, pooled."""

    weights: np.ndarray
    intercept: np.ndarray
    penalty: float
    explained: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return float64 ``[M, Q]`` for features ``[M, F]``."""
        return features @ self.weights + self.intercept


def fit_ridge(features: np.ndarray, targets: np.ndarray) -> Ridge:
    """Fit targets ``[M, Q]`` to features ``[M, F]``, one penalty for all columns.

    The columns count equally, whatever their variance; where no penalty predicts a left-out row better than the mean
    does, the largest is taken.
    """
    mean_x, mean_y = features.mean(axis=0), targets.mean(axis=0)
    centred = targets - mean_y
    U, S, Vt = np.linalg.svd(features - mean_x, full_matrices=False)
    rank = int((S / max(S.max(initial=0.0), 1e-300) > 1e-10).sum())
    U, S, Vt = U[:, :rank], S[:rank], Vt[:rank]
    along = U.T @ centred
    variance = np.maximum((centred**2).mean(axis=0), 1e-300)
    rows = len(features)
    best, chosen = np.inf, 0.0
    for penalty in PENALTIES * (S**2).mean() if len(S) else ():
        shrink = S**2 / (S**2 + penalty)
        left = 1.0 - (U**2) @ shrink - 1.0 / rows
        residual = (centred - U @ (shrink[:, None] * along)) / np.maximum(left, 1e-12)[:, None]
        error = float(((residual**2).mean(axis=0) / variance).mean())
        if error < best:
            best, chosen = error, float(penalty)
    weights = Vt.T @ ((S / (S**2 + chosen))[:, None] * along)
    return Ridge(weights, mean_y - mean_x @ weights, chosen, 1.0 - best)
