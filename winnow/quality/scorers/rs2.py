"""RS2: a fresh random subset every round, where "random" draws one subset and trains on it again.

The score is a seeded hash of the id and the ``round``, uniform in [0, 1): the best k of round r are a random subset,
independent of those of the other rounds (with replacement across rounds). Without replacement, exclude what earlier
rounds have taken. Source: Okanovic et al. 2024, "Repeated Random Sampling for Minimizing the Time-to-Accuracy of
Learning" (arXiv 2305.18424), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from winnow.quality.scorers import Scorer
from winnow.quality.scorers.documents import ScorerContext
from winnow.quality.scorers.random import FittedRandom
from winnow.selection.options import option


@dataclass(frozen=True)
class Options:
    round: int = option(0, 0)


class Rs2(Scorer, name="rs2"):
    """Repeated random subsets."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedRandom:
        return FittedRandom(context.seed, f"rs2:{self.options.round}")
