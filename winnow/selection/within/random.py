"""A random order by seeded hash, whatever the scores."""

from __future__ import annotations

import numpy as np

from winnow.selection.within import Candidates, Keyed


class Random(Keyed):
    """key = U, uniform in (0, 1)."""

    def keys(self, candidates: Candidates) -> np.ndarray:
        return candidates.uniforms("within")


METHOD = Random
