"""Greedy: the arms of the highest mean so far, without exploration."""

from __future__ import annotations

import numpy as np

from winnow.selection.policies import Policy


class Greedy(Policy):
    """Mean + 0."""

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)


POLICY = Greedy
