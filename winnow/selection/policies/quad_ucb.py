"""Quad's upper confidence bound over clusters.

    CS_i = mean reward_i + alpha * sqrt(2 ln(sum_j T_j) / T_i)

with T_i the pulls of arm i (the opening probes are its first) and the mean over all its finite probes. As rewards are
z-scores of documents, the mean of a pull of P probes has a standard error of about 1 / sqrt(P): ``alpha`` at that
value gives UCB1's own bonus, which over many arms outweighs the rewards; a third of it keeps some exploration and is
the default. The bonus/reward ratio in the log tells.

Source: Quad, arXiv 2409.16986, section 4 (the formula is UCB1's);
without the neighbour sharing and the unscaled alpha of its released code.
"""

from __future__ import annotations

import numpy as np

from winnow.selection.policies import Policy


class QuadUCB(Policy):
    """Mean + alpha * sqrt(2 ln(sum T) / T); positive = helpful."""

    def __init__(self, arms: int, alpha: float) -> None:
        super().__init__(arms, alpha)
        self.pulls = np.zeros(arms, dtype=np.int64)
        self.probes = np.zeros(arms, dtype=np.int64)
        self.total = np.zeros(arms, dtype=np.float64)

    def observe(self, arm: int, rewards: np.ndarray) -> None:
        self.pulls[arm] += 1
        self.probes[arm] += len(rewards)
        self.total[arm] += rewards.sum()

    def mean(self) -> np.ndarray:
        return np.divide(self.total, self.probes, out=np.full(self.arms, np.nan), where=self.probes > 0)

    def bonus(self) -> np.ndarray:
        logarithm = np.log(max(int(self.pulls.sum()), 1))
        spread = np.divide(2 * logarithm, self.pulls, out=np.full(self.arms, np.nan), where=self.probes > 0)
        return self.alpha * np.sqrt(spread)


POLICY = QuadUCB
