"""The best first: key = score; without scores, a random order."""

from __future__ import annotations

import numpy as np

from winnow.selection.within import Candidates, Keyed


class TopK(Keyed):
    """Hard top-k, the default."""

    def keys(self, candidates: Candidates) -> np.ndarray:
        return candidates.ranking_keys


METHOD = TopK
