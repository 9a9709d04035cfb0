"""Variance-adaptive Thompson sampling: means and variances of the arms are both unknown.

``fixed`` prior, the conjugate one, of every arm: precision ~ Gamma(a0, b0), mean ~ N(m0, 1 / (k0 precision)). After n
rewards of mean y and scatter S (sum of squared deviations from y)

    k = k0 + n,   m = (k0 m0 + n y) / k,   a = a0 + n / 2,   b = b0 + S / 2 + k0 n (y - m0)^2 / (2 k)

and a draw of the mean is m + sqrt(b / (a k)) t with t from Student's t with 2a degrees of freedom.

``hierarchical`` prior: its centre and spread are those of the arms themselves, see :mod:`winnow.selection.belief`; a
draw is the belief's mean + its deviation times t. ``features`` lets centroids and scores take part in it.

``aim`` ``best`` scores by the draw, for an arm's own sake. ``budget`` asks which arms the token budget would take by
the draws and by the means: those on which they differ are pulled first, and when a few draws in a row agree with the
means on all but ``tolerance`` of the budget, further probes would change nothing: the policy is settled.

Source: Only Pay for What Is Uncertain: Variance-Adaptive Thompson Sampling, arXiv 2303.09033 (VarTS; priors estimated
from data as in its section on empirical Bayes); the aim at a set of arms is top-two sampling's: Russo, COLT 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.belief import Belief
from winnow.selection.believing import BelievingPolicy
from winnow.selection.boundary import filled
from winnow.selection.draws import students, uniforms
from winnow.selection.policies import Round, best_first, option

LIKELY = 2.33  # standard deviations: an arm with less than 1% chance above the threshold is given up
DRAWS = 8  # of the whole pool, to see whether its arms are settled


@dataclass(frozen=True)
class Options:
    """``prior``, ``aim``, ``discount`` a round, ``tolerance`` and ``features`` as above.

    ``mean`` m0, ``strength`` k0 (in probes), ``shape`` a0 and ``scale`` b0 of the ``fixed`` prior.
    """

    prior: str = option("hierarchical", choices=("hierarchical", "fixed"))
    aim: str = option("best", choices=("best", "budget"))
    mean: float = option(0.0)
    strength: float = option(1.0, above=0)
    shape: float = option(2.0, above=1)
    scale: float = option(1.0, above=0)
    discount: float = option(1.0, above=0, most=1)
    tolerance: float = option(0.02, least=0, most=1)
    features: bool = False


class ThompsonVariance(BelievingPolicy):
    """A draw of the posterior mean an arm and round; the bonus is what the draw adds to the mean."""

    Options = Options

    def end_round(self) -> None:
        super().end_round()
        self.forget(self.options.discount)

    def _believe(self) -> Belief:
        if self.options.prior == "hierarchical":
            return super()._believe()
        prior, count = self.options, self.tally.probes
        weight = prior.strength + count
        own = np.divide(self.tally.total, count, out=np.full(self.shape, prior.mean), where=count > 0)
        shape = prior.shape + count / 2
        scale = prior.scale + self.tally.scatter() / 2
        scale = scale + prior.strength * count * (own - prior.mean) ** 2 / (2 * weight)
        mean = (prior.strength * prior.mean + count * own) / weight
        return Belief(mean, scale / (shape * weight), scale / (shape - 1), 2 * shape)

    def bonus(self) -> np.ndarray:
        return self._deviate(0)

    def hopeful(self, threshold: float) -> np.ndarray:
        return self.belief.mean + LIKELY * self.belief.deviation > threshold

    def choose(self, round: Round) -> np.ndarray:
        if self.options.aim == "best":
            return super().choose(round)
        mean = self.mean()
        by_mean = filled(mean, round.left, round.tokens_left) > 0
        by_draw = filled(mean + self._deviate(0), round.left, round.tokens_left) > 0
        tie = uniforms(self.seeds, 2 * DRAWS + 2, self.number, self.shape[-1])
        return best_first((by_mean != by_draw) + tie, round.open_arms, round.count)

    def settled(self, round: Round) -> bool | np.ndarray:
        if self.options.aim == "best":
            return super().settled(round)
        mean = self.mean()
        by_mean = filled(mean, round.left, round.tokens_left)
        moved = np.zeros(self.shape[:-1])
        for draw in range(1, DRAWS + 1):
            other = filled(mean + self._deviate(draw), round.left, round.tokens_left)
            moved += np.maximum(other - by_mean, 0).sum(axis=-1) / DRAWS
        return moved <= self.options.tolerance * np.asarray(round.tokens_left)

    def _deviate(self, stream: int) -> np.ndarray:
        return self.belief.deviation * students(self.seeds, stream, self.number, self.belief.degrees)


POLICY = ThompsonVariance
