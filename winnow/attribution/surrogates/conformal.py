"""Split-conformal intervals: a band around a prediction with a coverage that holds for any number of probes.

With residuals |y_i - yhat(x_i)| of n documents that the predictor was not fitted to, and q the ceil((n + 1) level)-th
smallest of them, a new document exchangeable with these has y within yhat(x) +- q with probability at least ``level``,
and at most level + 1 / (n + 1) without ties, whatever the predictor and the distribution. Fewer documents than level /
(1 - level) leave q infinite. Source: Lei et al. 2018, "Distribution-free predictive inference for regression", theorem
2.2 (split conformal).
"""

from __future__ import annotations

import math

import numpy as np

LEVEL = 0.9


def half_width(residuals: np.ndarray, level: float = LEVEL) -> float:
    """Return q of absolute residuals float64 ``[n]``; infinite when they are too few for ``level``."""
    rank = math.ceil((len(residuals) + 1) * level - 1e-9)
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else math.inf
