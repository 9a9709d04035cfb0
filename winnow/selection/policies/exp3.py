"""EXP3 as online data mixing uses it: arms are drawn with probabilities that follow their rewards.

    p_i = (1 - K e_t) softmax(e_{t-1} R)_i + e_t,     e_t = min(1 / K, sqrt(ln K / (K t)))

with t the round. ``moving``: R_i <- decay R_i + (1 - decay) reward_i for the arms pulled, online data mixing's;
``importance``: R_i <- R_i + reward_i / p_i, EXP3's unbiased estimate (p_i = 1 in the opening, which pulls every arm).
A round draws its arms one after another without replacement.

Source: online data mixing, arXiv 2312.02406 and its code (decay 0.9); EXP3: Auer, Cesa-Bianchi, Freund and Schapire,
SIAM Journal on Computing 32 (2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.selection.draws import uniforms
from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy, Round, best_first, option


@dataclass(frozen=True)
class Options:
    """``estimate`` of the rewards, and the ``decay`` of the moving one."""

    estimate: str = option("moving", choices=("moving", "importance"))
    decay: float = option(0.9, least=0, most=1)


class Exp3(Policy):
    """Draws by probability; the mean is that of the rewards seen."""

    Options = Options

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        self.estimates = np.zeros(self.shape)

    def probabilities(self) -> np.ndarray:
        """Return p, float64 ``[K]``, of the coming round."""
        arms = self.shape[-1]
        logits = self._rate(self.number - 1) * self.estimates
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
        floor = self._rate(self.number)
        return (1 - arms * floor) * weights / weights.sum(axis=-1, keepdims=True) + floor

    def observe_pulls(self, places: np.ndarray, rewards: np.ndarray) -> None:
        finite = np.isfinite(rewards)
        seen = finite.any(axis=1)
        reward = np.where(finite, rewards, 0.0).sum(axis=1)[seen] / finite.sum(axis=1)[seen]
        at, estimates = places[seen], self.estimates.reshape(-1)
        if self.options.estimate == "moving":
            estimates[at] = self.options.decay * estimates[at] + (1 - self.options.decay) * reward
        else:
            chance = self.probabilities() if self.number > 0 else np.ones(self.shape)
            estimates[at] += reward / chance.reshape(-1)[at]
        super().observe_pulls(places, rewards)

    def bonus(self) -> np.ndarray:
        return np.zeros(self.shape)

    def hopeful(self, threshold: float) -> np.ndarray:
        return np.ones(self.shape, dtype=bool)

    def choose(self, round: Round) -> np.ndarray:
        # The largest of log p + Gumbel noise are draws by p without replacement (Vieira 2014).
        draw = uniforms(self.seeds, 0, round.number, self.shape[-1])
        return best_first(np.log(self.probabilities()) - np.log(-np.log(draw)), round.open_arms, round.count)

    def _rate(self, number: int) -> float:
        arms = self.shape[-1]
        return min(1 / arms, float(np.sqrt(np.log(arms) / (arms * max(number, 1)))))


POLICY = Exp3
