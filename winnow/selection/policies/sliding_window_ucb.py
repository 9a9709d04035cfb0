"""Sliding-window UCB, for rewards that drift: only the last rounds count.

    score_i = X_i(window) + b sqrt(xi ln n(window) / N_i(window))

with N_i the pulls of arm i in the last ``window`` rounds, n all pulls in them and X_i the mean over them. An arm that
was not pulled in the window has no score and is pulled first.

Source: Garivier and Moulines, ALT 2011 (SW-UCB; xi = 0.6 in its experiments); the window is counted in rounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy, option
from winnow.selection.tally import Tally


@dataclass(frozen=True)
class Options:
    """``window`` in rounds; ``xi``; ``bound`` b of the rewards."""

    window: int = option(20, least=1)
    xi: float = option(0.6, least=0)
    bound: float = option(0.2, least=0)


class SlidingWindowUCB(Policy):
    """Mean over the window + bonus over the window."""

    Options = Options

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        # The tally is always the sum of these, added anew: subtraction would leave rounding behind.
        self.rounds: deque[Tally] = deque([self.tally], maxlen=self.options.window)

    def add(
        self, places: np.ndarray, pulls: np.ndarray, probes: np.ndarray, total: np.ndarray, squares: np.ndarray
    ) -> None:
        self.rounds[-1].add(places, pulls, probes, total, squares)
        self._sum()

    def end_round(self) -> None:
        super().end_round()
        self.rounds.append(Tally.empty(self.shape))
        self._sum()

    def bonus(self) -> np.ndarray:
        pulls = self.tally.pulls
        logarithm = np.log(np.maximum(pulls.sum(axis=-1, keepdims=True), 1))
        spread = np.divide(
            self.options.xi * logarithm, pulls, out=np.full(self.shape, np.nan), where=self.tally.probes > 0
        )
        return self.options.bound * np.sqrt(spread)

    def _sum(self) -> None:
        total = Tally.empty(self.shape)
        for past in self.rounds:
            total = total.plus(past)
        self.tally = total


POLICY = SlidingWindowUCB
