"""Round robin: the open arms pulled least often, the smaller cluster number first."""

from __future__ import annotations

import numpy as np

from winnow.selection.policies import Policy, Round, best_first


class RoundRobin(Policy):
    """Every arm in turn, whatever it gave."""

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool)

    def choose(self, round: Round) -> np.ndarray:
        return best_first(-self.tally.pulls, round.open_arms, round.count)


POLICY = RoundRobin
