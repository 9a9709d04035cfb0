"""ClusterUCB: the mean reward plus beta times the standard deviation of the rewards seen in the arm.

Spread is upside where the aim is the best documents: it does not shrink with the pulls, as a standard error does. An
arm with fewer than two rewards takes the standard deviation pooled over all arms (1 if there is none).

Source: ClusterUCB, arXiv 2506.10288 (beta 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.belief import noise_of
from winnow.selection.policies import Policy, option


@dataclass(frozen=True)
class Options:
    """``beta``, the weight of the standard deviation."""

    beta: float = option(1.0, least=0)


class ClusterUCB(Policy):
    """Mean + beta * standard deviation."""

    Options = Options

    def bonus(self) -> np.ndarray:
        variance = self.variance()
        _, _, pooled = noise_of(self.tally)
        bonus = self.options.beta * np.sqrt(np.where(np.isnan(variance), pooled, variance))
        return np.where(self.tally.probes > 0, bonus, np.nan)


POLICY = ClusterUCB
