"""Epsilon-greedy: a pull goes to a random open arm with probability epsilon, else to the best mean left.

Source: Sutton and Barto, Reinforcement Learning, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.draws import uniforms
from winnow.selection.policies import Policy, Round, best_first, option


@dataclass(frozen=True)
class Options:
    """``epsilon``, the share of random pulls."""

    epsilon: float = option(0.1, least=0, most=1)


class EpsilonGreedy(Policy):
    """The best means first, then the random arms of the round."""

    Options = Options

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool)

    def choose(self, round: Round) -> np.ndarray:
        count = np.asarray(round.count)
        slots = uniforms(self.seeds, 0, round.number, max(int(count.max(initial=0)), 1))
        random = slots < self.options.epsilon
        best = count - (random & (np.arange(random.shape[-1]) < count[..., None])).sum(axis=-1)
        # Places among the means: the best stand first, everyone else follows in random order.
        order = np.argsort(-np.where(round.open_arms, self.scores(), -np.inf), axis=-1, kind="stable")
        place = np.empty(self.shape, dtype=np.int64)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(self.shape[-1]), self.shape), axis=-1)
        draw = uniforms(self.seeds, 1, round.number, self.shape[-1])
        priorities = np.where(place < best[..., None], 1.0 + self.shape[-1] - place, draw)
        return best_first(priorities, round.open_arms, round.count)


POLICY = EpsilonGreedy
