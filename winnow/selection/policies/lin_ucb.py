"""LinUCB on centroids and scores, with a guard against a wrong linear model.

    score_i = E f_i + alpha sqrt(Var f_i)

where f_i is the arm's mean reward under :mod:`winnow.selection.belief`: a linear function of the arm's features and a
residual of its own, whose size is estimated. Where the residuals say that the line is wrong, an arm falls back to its
own mean and its own standard error; where the features explain the means, an arm is known before it was pulled.

Source: Li, Chu, Langford and Schapire, WWW 2010 (LinUCB); the guard answers to linear contextual bandits with
misspecification (Zhang, He, Fan and Gu, arXiv 2303.09390), by a random effect an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.selection.believing import BelievingPolicy
from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, option


@dataclass(frozen=True)
class Options:
    """``alpha``, standard deviations of the bonus."""

    alpha: float = option(1.0, least=0)


class LinUCB(BelievingPolicy):
    """Regression's mean + alpha deviations."""

    Options = Options
    uses_features = True

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        if self.features is None:
            raise UserError("selection policy 'lin_ucb': the arms have neither centroids nor features; use quad_ucb")

    def bonus(self) -> np.ndarray:
        return self.options.alpha * self.belief.deviation


POLICY = LinUCB
