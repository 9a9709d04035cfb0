"""Discounted UCB, for rewards that drift: what was seen k rounds ago counts gamma^k.

    score_i = X_i(gamma) + 2 b sqrt(xi ln n(gamma) / N_i(gamma))

with N_i the discounted pulls of arm i, n their sum and X_i the discounted mean. Time is counted in rounds: all pulls
of a round are equally old.

Source: Garivier and Moulines, ALT 2011 (D-UCB; xi = 0.6 in its experiments).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.policies import Policy, option


@dataclass(frozen=True)
class Options:
    """``gamma``, what a round leaves of what was seen before; ``xi``; ``bound`` b of the rewards."""

    gamma: float = option(0.9, above=0, most=1)
    xi: float = option(0.6, least=0)
    bound: float = option(0.1, least=0)


class DiscountedUCB(Policy):
    """Discounted mean + discounted bonus."""

    Options = Options

    def end_round(self) -> None:
        super().end_round()
        self.tally.scale(self.options.gamma)

    def bonus(self) -> np.ndarray:
        pulls = self.tally.pulls
        logarithm = np.log(np.maximum(pulls.sum(axis=-1, keepdims=True), 1))
        spread = np.divide(
            self.options.xi * logarithm, pulls, out=np.full(self.shape, np.nan), where=self.tally.probes > 0
        )
        return 2 * self.options.bound * np.sqrt(spread)


POLICY = DiscountedUCB
