"""Successive halving: probe all survivors alike, drop the worse half, and go on until they fit the budget.

The probes are shared out equally over the phases, log2 of how many times the arms exceed the budget, and in a phase
over its survivors. Half is half of the surviving tokens, but never less than the budget; grants go to the last
survivors first.

Source: Karnin, Koren and Somekh, ICML 2013 (sequential halving, algorithm 1); several best arms in place of one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from winnow.selection.boundary import filled
from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy, Round, best_first


class SuccessiveHalving(Policy):
    """The survivors with the fewest probes of the phase are next."""

    grants = "final"

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        self.alive = np.ones(self.shape, dtype=bool)
        self.start = np.zeros(self.shape)  # probes of each arm when the phase began
        self.target = np.full(self.shape[:-1], -1.0)  # probes that the phase gives each survivor; -1 before the first
        self.phases_left = np.zeros(self.shape[:-1])

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool)

    def values(self) -> np.ndarray:
        mean = self.mean()
        # All survivors stand before all others, by an offset wider than the means are apart.
        known = np.where(np.isnan(mean), 0.0, mean)
        return np.where(self.alive, mean + 2 + 2 * np.abs(known).max(axis=-1, keepdims=True, initial=0.0), mean)

    def choose(self, round: Round) -> np.ndarray:
        budget, probes = np.asarray(round.tokens_left), np.asarray(round.probes_left)
        first = self.target < 0
        total = round.left.sum(axis=-1)
        phases = np.maximum(np.ceil(np.log2(np.maximum(total, 1) / np.maximum(budget, 1))), 1)
        self.phases_left = np.where(first, phases, self.phases_left)
        self._begin(first, probes)
        spent = self.tally.probes - self.start >= self.target[..., None]
        over = (spent | ~round.open_arms | ~self.alive).all(axis=-1) & (self.phases_left > 1)
        if over.any():
            value = np.where(self.alive, self.mean(), -np.inf)
            tokens = np.where(self.alive, round.left, 0)
            keep = filled(value, tokens, np.maximum(tokens.sum(axis=-1) // 2, budget)) > 0
            self.alive = np.where(over[..., None], keep & self.alive, self.alive)
            self.phases_left = np.where(over, self.phases_left - 1, self.phases_left)
            self._begin(over, probes)
        behind = self.start - self.tally.probes
        return best_first(np.where(self.alive, behind, -1e18 + behind), round.open_arms, round.count)

    def _begin(self, runs: np.ndarray, probes_left: np.ndarray) -> None:
        survivors = np.maximum(self.alive.sum(axis=-1), 1)
        share = np.maximum(np.floor(probes_left / (survivors * np.maximum(self.phases_left, 1))), 1)
        self.target = np.where(runs, share, self.target)
        self.start = np.where(runs[..., None], self.tally.probes, self.start)


POLICY = SuccessiveHalving
