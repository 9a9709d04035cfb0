"""Gumbel-top-k as MATES released it (cxcscmu/MATES at 5d2860c): the *smallest* of change / temperature + G.

There a score is the predicted change of the loss, negative = helpful. With ours, score = -change, the key to be large
is score / temperature - G. This is no Plackett-Luce sampler: -G has its short tail upwards, so harmful documents hardly
ever come in, and the picks score better than the textbook's (the paper's results were made with them). The released
temperature is 0.5 on changes in standard deviations of the probes' labels: ``standardize = false`` where the scores are
in these; else they are standardised by the candidates' own deviation.
"""

from __future__ import annotations

import numpy as np

from winnow.selection.within import Candidates, gumbels
from winnow.selection.within.gumbel_top_k import GumbelTopK


class GumbelTopKMates(GumbelTopK):
    """Smallest of change / temperature + G."""

    def keys(self, candidates: Candidates) -> np.ndarray:
        return self.tempered(candidates) - gumbels(candidates.uniforms("within"))


METHOD = GumbelTopKMates
