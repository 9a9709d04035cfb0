"""Quad's upper confidence bound over clusters.

    CS_i = mean reward_i + alpha * sqrt(2 ln(sum_j T_j) / T_i)

with T_i the pulls of arm i (the opening probes are its first) and the mean over all its finite probes. As rewards are
z-scores of documents, the mean of a pull of P probes has a standard error of about 1 / sqrt(P): ``alpha`` at that
value gives UCB1's own bonus, which over many arms outweighs the rewards; a third of it keeps some exploration and is
the default. The bonus/reward ratio in the log tells.

``raw`` is the released code's setting: rewards as measured, T_i + 1 in place of T_i, and ``alpha`` 0.0001 unless
another is given. Its rewards are counted above tau = 0.002, from 0 on, so an arm never pulled has the mean ``tau``,
and no arm is given up; give the accept threshold the same value.

Source: Quad, arXiv 2409.16986, section 4 (the formula is UCB1's: Auer, Cesa-Bianchi and Fischer, Machine Learning
47, 2002, theorem 1) and its released code for the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy, option

RAW_ALPHA = 1e-4


@dataclass(frozen=True)
class Options:
    """``alpha``, the weight of exploration in units of reward; ``raw``, with its ``tau``, as above."""

    alpha: float = option(0.1, least=0)
    raw: bool = False
    tau: float = option(2e-3)


class QuadUCB(Policy):
    """Mean + alpha * sqrt(2 ln(sum T) / T); positive = helpful."""

    Options = Options

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        given = dict(options or {})
        if given.get("raw") is True:
            given.setdefault("alpha", RAW_ALPHA)
        super().__init__(facts, given, seed)

    @property
    def standardised(self) -> bool:
        return not self.options.raw

    def bonus(self) -> np.ndarray:
        pulls = self.tally.pulls
        logarithm = np.log(np.maximum(pulls.sum(axis=-1, keepdims=True), 1))
        if self.options.raw:
            return self.options.alpha * np.sqrt(2 * logarithm / (pulls + 1))
        known = self.tally.probes > 0
        spread = np.divide(2 * logarithm, pulls, out=np.full(self.shape, np.nan), where=known)
        return self.options.alpha * np.sqrt(spread)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool) if self.options.raw else super().hopeful(threshold)

    def mean(self) -> np.ndarray:
        mean = super().mean()
        return np.where(np.isnan(mean), self.options.tau, mean) if self.options.raw else mean


POLICY = QuadUCB
