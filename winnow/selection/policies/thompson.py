"""Thompson sampling with normal rewards of known variance: the score of an arm is a draw from its posterior.

    mean_i = (m0 / v0 + total_i / v) / (1 / v0 + n_i / v),   variance_i = 1 / (1 / v0 + n_i / v)

for a prior N(m0, v0) of every arm's mean and rewards of variance v: 0, 1 and 1 fit z-scores. ``discount`` below 1
forgets: what was seen k rounds ago counts discount^k, so the posterior drifts back to the prior.

Source: Agrawal and Goyal, AISTATS 2013 (Gaussian priors); discounted Thompson sampling: Raj and Kalyani, arXiv
1707.09727.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.draws import normals
from winnow.selection.policies import Policy, option

LIKELY = 2.33  # standard deviations: an arm with less than 1% chance above the threshold is given up


@dataclass(frozen=True)
class Options:
    """``variance`` of a reward; ``prior_mean`` and ``prior_variance`` of an arm's mean; ``discount`` a round."""

    variance: float = option(1.0, above=0)
    prior_mean: float = option(0.0)
    prior_variance: float = option(1.0, above=0)
    discount: float = option(1.0, above=0, most=1)


class Thompson(Policy):
    """A posterior draw an arm and round; the bonus is what the draw adds to the posterior mean."""

    Options = Options

    def end_round(self) -> None:
        super().end_round()
        self.tally.scale(self.options.discount)

    def mean(self) -> np.ndarray:
        evidence = self.tally.total / self.options.variance
        return (self.options.prior_mean / self.options.prior_variance + evidence) * self._doubt()

    def bonus(self) -> np.ndarray:
        return np.sqrt(self._doubt()) * normals(self.seeds, 0, self.number, self.shape[-1])

    def hopeful(self, threshold: float) -> np.ndarray:
        return self.mean() + LIKELY * np.sqrt(self._doubt()) > threshold

    def _doubt(self) -> np.ndarray:
        return 1 / (1 / self.options.prior_variance + self.tally.probes / self.options.variance)


POLICY = Thompson
