"""Gumbel-top-k: the largest of score / temperature + G, G standard Gumbel.

The k largest are k draws without replacement with probabilities softmax(score / temperature) (Plackett-Luce; Kool et
al., ICML 2019). A small temperature is top-k, a large one a random draw. ``standardize`` first makes z-scores of the
scores over the available documents: the temperature is then in their standard deviations. Sign: positive = helpful.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.options import option
from winnow.selection.within import Candidates, Keyed, gumbels


@dataclass(frozen=True)
class Options:
    temperature: float = option(0.5, above=0)
    standardize: bool = option(True)


class GumbelTopK(Keyed):
    """The textbook sampler; ``gumbel_top_k_mates`` is the one that MATES released."""

    Options = Options
    needs = ("scores",)

    def keys(self, candidates: Candidates) -> np.ndarray:
        return self.tempered(candidates) + gumbels(candidates.uniforms("within"))

    def tempered(self, candidates: Candidates) -> np.ndarray:
        """Return score / temperature, float64 ``[N]``."""
        scores = candidates.standard if self.options.standardize else candidates.ranking_keys
        return scores / self.options.temperature


METHOD = GumbelTopK
