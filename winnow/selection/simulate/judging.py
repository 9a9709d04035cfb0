"""What a selection is worth: its influence mass beside that of two oracles.

Mass is the sum over the chosen documents of tokens times influence a token, above the mean of the pool, so that a
random selection has none on average. Inside an arm documents are taken at random (their expectation is counted), or
by the predictor's score. The *arms'* oracle knows the true mean of every arm and takes documents inside by the same
rule; the *documents'* oracle takes the best documents. The last document of a grant counts by its part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.boundary import filled
from winnow.selection.simulate.worlds import Ground

WITHIN = ("random", "score")


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges grants in the R runs of a ground at one stage, documents ``left`` bool ``[R, N]`` (None: all)."""

    ground: Ground
    rewards: np.ndarray  # [R, N], above the pool's mean
    means: np.ndarray  # [R, K], a token
    within: str

    @classmethod
    def of(cls, ground: Ground, stage: int = 0, within: str = "random") -> Judge:
        rewards = ground.rewards[:, stage]
        pool = (rewards * ground.tokens).sum(axis=1, keepdims=True) / ground.tokens.sum(axis=1, keepdims=True)
        above = rewards - pool
        tokens = ground.arm_tokens
        means = np.divide(ground.sums(above * ground.tokens), tokens, out=np.zeros(tokens.shape), where=tokens > 0)
        return cls(ground, above, means, within)

    def mass(self, granted: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """Return the mass of grants int64 ``[R, K]`` tokens, float64 ``[R]``; ``before``, what was granted earlier."""
        if self.within == "random":
            return (granted * self.means).sum(axis=1)
        upto = granted if before is None else before + granted
        mass = self._by_score(upto)
        return mass if before is None else mass - self._by_score(before)

    def best_arms(self, budget: np.ndarray, left: np.ndarray | None = None) -> np.ndarray:
        """Return the grants of the arms' oracle, int64 ``[R, K]``; ``left``, the tokens that arms still have."""
        return filled(self.means, self.ground.arm_tokens if left is None else left, budget)

    def best_documents(self, budget: np.ndarray) -> np.ndarray:
        """Return the mass of the best documents, float64 ``[R]``."""
        given = filled(self.rewards, self.ground.tokens, budget)
        return (given * self.rewards).sum(axis=1)

    def ranked(self, arm_values: np.ndarray, slope: np.ndarray, budget: np.ndarray) -> np.ndarray:
        """Return the mass of the best documents by a predicted value, float64 ``[R]``, whatever arms they are of.

        The value is that of :mod:`winnow.selection.ranking`; ``arm_values`` float64 ``[R, K]``, ``slope`` ``[R]``.
        """
        scores, sizes = self.ground.scores, self.ground.sizes
        if scores is None:
            raise ValueError("this world has no scores to rank documents by")
        own = scores - np.repeat(self.ground.sums(scores) / np.maximum(sizes, 1), sizes, axis=1)
        values = np.repeat(np.where(np.isfinite(arm_values), arm_values, -np.inf), sizes, axis=1) + slope[:, None] * own
        return (filled(values, self.ground.tokens, budget) * self.rewards).sum(axis=1)

    def _by_score(self, granted: np.ndarray) -> np.ndarray:
        ground = self.ground
        if ground.scores is None:
            raise ValueError("this world has no scores to rank documents by")
        arm_of = np.repeat(np.arange(len(ground.sizes)), ground.sizes)
        order = np.stack([np.lexsort((-scores, arm_of)) for scores in ground.scores])
        tokens = np.take_along_axis(ground.tokens, order, axis=1)
        ends = np.cumsum(tokens, axis=1)
        first = np.repeat((np.cumsum(ground.arm_tokens, axis=1) - ground.arm_tokens), ground.sizes, axis=1)
        taken = np.clip(np.repeat(granted, ground.sizes, axis=1) - (ends - tokens - first), 0, tokens)
        return (taken * np.take_along_axis(self.rewards, order, axis=1)).sum(axis=1)
