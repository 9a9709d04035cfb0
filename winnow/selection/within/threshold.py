"""Only documents that score at least a threshold: a ``value``, or the ``quantile`` of the available documents' scores.

``quantile = 0.8`` admits the best fifth of the pool. Among the admitted the order is random, or by ``order = "score"``;
when they do not fill the budget, it stays unfilled. A document without a score is not admitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.options import option
from winnow.selection.within import Candidates, Keyed


@dataclass(frozen=True)
class Options:
    by: str = option("quantile", choices=("quantile", "value"))
    value: float = option(0.0)
    quantile: float = option(0.8, least=0, most=1)
    order: str = option("random", choices=("random", "score"))


class Threshold(Keyed):
    """Admitted if score >= threshold."""

    Options = Options
    needs = ("scores",)

    def keys(self, candidates: Candidates) -> np.ndarray:
        return candidates.uniforms("within") if self.options.order == "random" else candidates.ranking_keys

    def admitted(self, candidates: Candidates) -> np.ndarray:
        scores = candidates.scored
        limit = self.options.value
        if self.options.by == "quantile":
            known = scores[candidates.arms.available & np.isfinite(scores)]
            if not len(known):
                return np.zeros(len(scores), dtype=bool)
            limit = np.quantile(known, self.options.quantile)
        return np.asarray(scores >= limit)  # false for NaN


METHOD = Threshold
