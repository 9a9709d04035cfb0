"""Proportional: no bandit; every arm gets tokens in proportion to its size, and nothing is probed.

With documents drawn at random within the arms it is stratified random sampling.
"""

from __future__ import annotations

import numpy as np

from winnow.selection.policies import Policy


class Proportional(Policy):
    """Shares by the arms' tokens."""

    probing = False
    grants = "final"

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def shares(self) -> np.ndarray:
        return self.facts.tokens / np.maximum(self.facts.tokens.sum(axis=-1, keepdims=True), 1)


POLICY = Proportional
