"""UCB-V: a bonus from the variance of the rewards seen, and a correction that vanishes faster.

    B_i = sqrt(2 zeta V_i ln t / n_i) + 3 c zeta b ln t / n_i

with n_i the rewards seen of arm i, V_i their variance (divided by n_i), t = sum of n and b the range of the rewards.

Source: Audibert, Munos and Szepesvari, Theoretical Computer Science 410 (2009), equation 1; zeta = 1.2 and c = 1 as
there. Rewards are z-scores, so the range is not known: ``range`` is in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.policies import Policy, option


@dataclass(frozen=True)
class Options:
    """``zeta`` and ``c`` of the formula; ``range`` b of the rewards, in standard deviations."""

    zeta: float = option(1.2, least=0)
    c: float = option(1.0, least=0)
    range: float = option(1.0, above=0)


class UCBV(Policy):
    """Mean + empirical Bernstein bonus."""

    Options = Options

    def bonus(self) -> np.ndarray:
        count = np.where(self.tally.probes > 0, self.tally.probes, np.nan)
        variance = self.tally.scatter() / (self.tally.freedom() + 1)
        logarithm = self.options.zeta * np.log(np.maximum(self.tally.probes.sum(axis=-1, keepdims=True), 1))
        correction = 3 * self.options.c * self.options.range * logarithm / count
        return np.sqrt(2 * variance * logarithm / count) + correction


POLICY = UCBV
