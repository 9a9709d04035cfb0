"""Natural mixture: each source in proportion to the tokens it has, p_s = n_s / sum n."""

from __future__ import annotations

import numpy as np


def weights(tokens: np.ndarray) -> np.ndarray:
    """Return weights float64 ``[S]`` for int64 ``[S]`` tokens; all zero when there is no token."""
    return np.asarray(tokens, dtype=np.float64) / max(1, int(np.sum(tokens)))
