"""Knowledge gradient at the budget's edge: pull where a pull can move tokens from a worse arm to a better one.

The budget, filled from the best arm down, ends somewhere: that is the *cut*. A pull of P probes of arm i moves its
mean by a normal step of deviation s_i. It matters if it crosses the cut c, and then for all the arm's tokens:

    value of a pull = tokens_i s_i L(|mean_i - c| / s_i),     L(z) = phi(z) - z (1 - Phi(z))

Arms far above and far below the cut are left alone, so probes go where the decision is open. The same formula with the
whole posterior deviation in place of s_i is what not knowing arm i still costs; when the sum over all arms is at most
``tolerance`` of the mass that the chosen arms have above the mean of the pool, the policy is settled and stops.

What is believed of the arms is :mod:`winnow.selection.belief`: hierarchical, variance-adaptive, with the arms'
centroids and scores where there are any and ``features`` is not false. ``discount`` below 1 forgets, for rewards that
drift.

Source: Frazier, Powell and Dayanik, SIAM Journal on Control and Optimization 47 (2008), for one best arm; with a cut
for a set of the best as in optimal computing budget allocation (Chen, He, Fu and Lee, INFORMS Journal on Computing 20,
2008). The cut in tokens is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.believing import BelievingPolicy
from winnow.selection.boundary import cut, filled, unit_loss
from winnow.selection.policies import Round, best_first, option


@dataclass(frozen=True)
class Options:
    """``probes`` P that a pull is valued at; ``tolerance``, ``discount`` a round and ``features`` as above."""

    probes: int = option(8, least=1)
    tolerance: float = option(0.02, least=0, most=1)
    discount: float = option(1.0, above=0, most=1)
    features: bool = True


class KnowledgeGradient(BelievingPolicy):
    """The bonus is what the pull may move the arm's mean by; arms are chosen by the value of a pull."""

    Options = Options
    grants = "final"

    def end_round(self) -> None:
        super().end_round()
        self.forget(self.options.discount)

    def bonus(self) -> np.ndarray:
        return self.belief.learnable(self.options.probes)

    def choose(self, round: Round) -> np.ndarray:
        given = filled(self.mean(), round.left, round.tokens_left)
        return best_first(self._worth(self.bonus(), given, round), round.open_arms, round.count)

    def settled(self, round: Round) -> bool | np.ndarray:
        mean = self.mean()
        given = filled(mean, round.left, round.tokens_left)
        tokens = np.maximum(round.left.sum(axis=-1, keepdims=True), 1)
        pool = (round.left * mean).sum(axis=-1, keepdims=True) / tokens
        mass = (given * (mean - pool)).sum(axis=-1)
        return self._worth(self.belief.deviation, given, round).sum(axis=-1) <= self.options.tolerance * mass

    def _worth(self, deviation: np.ndarray, given: np.ndarray, round: Round) -> np.ndarray:
        mean = self.mean()
        distance = np.abs(mean - cut(mean, given)) / np.maximum(deviation, 1e-300)
        return round.left * deviation * unit_loss(distance)


POLICY = KnowledgeGradient
