"""Uniform: random open arms, each as likely as the others."""

from __future__ import annotations

import numpy as np

from winnow.selection.draws import uniforms
from winnow.selection.policies import Policy, Round, best_first


class Uniform(Policy):
    """Arms drawn at random, without replacement within a round."""

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool)

    def choose(self, round: Round) -> np.ndarray:
        draw = uniforms(self.seeds, 0, round.number, self.shape[-1])
        return best_first(draw, round.open_arms, round.count)


POLICY = Uniform
