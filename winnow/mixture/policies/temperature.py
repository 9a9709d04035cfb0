"""Temperature mixture: p_s proportional to n_s^(1/T); T = 1 is natural, larger T raises the small sources.

Source: the sampling of multilingual BERT (exponent 0.7) and mT5 (arXiv 2010.11934, section 3; exponent 0.3 = 1/T).
"""

from __future__ import annotations

import math

import numpy as np

from winnow.errors import UserError


def weights(tokens: np.ndarray, temperature: float = 2.0) -> np.ndarray:
    """Return weights float64 ``[S]`` for int64 ``[S]`` tokens; a source without tokens weighs 0.

    Raises :class:`UserError` unless ``temperature`` is positive and finite.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(f"mixture, temperature: {temperature}; expected a positive number (1 = natural)")
    counts = np.asarray(tokens, dtype=np.float64)
    # Relative to the largest source, so that a small T cannot overflow.
    raised = (counts / max(1.0, counts.max(initial=0.0))) ** (1.0 / temperature)
    return raised / (raised.sum() or 1.0)
