"""Bonuses from a learned predictor of the policy's own errors (DEUP).

Before a pull the policy predicts its mean reward by the arm's mean. The squared error that turns out has two parts:
what the reward's noise makes unavoidable, v_i / P for a pull of P probes, and what was not known of the arm. The second
is regressed, over all pulls so far, on what can be known before a pull,

    error_i - v_i / P  ~  c0 + c1 v_i / n_i + c2 / n_i

(ridge towards c = (0, 1, 0), the textbook's standard error), and alpha times its root is the bonus.

Source: DEUP: Direct Epistemic Uncertainty Prediction, Lahlou et al., TMLR 2023 (arXiv 2102.08501): epistemic
uncertainty = predicted error - aleatoric estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.selection.belief import noise_of
from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy, option

TEXTBOOK = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Options:
    """``alpha``, deviations of the bonus; ``ridge``, how many pulls the textbook's coefficients are worth."""

    alpha: float = option(1.0, least=0)
    ridge: float = option(10.0, above=0)


class Deup(Policy):
    """Mean + alpha * root of the predicted epistemic error."""

    Options = Options

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        runs = int(np.prod(self.shape[:-1]))
        self.normal = np.tile(self.options.ridge * np.eye(3), (runs, 1, 1))
        self.moment = np.tile(self.options.ridge * TEXTBOOK, (runs, 1))

    def observe_pulls(self, places: np.ndarray, rewards: np.ndarray) -> None:
        finite = np.isfinite(rewards)
        count = finite.sum(axis=1)
        mean, inputs = self.mean().reshape(-1), self._inputs().reshape(-1, 3)
        noise = noise_of(self.tally)[0].reshape(-1)
        judged = (count > 0) & ~np.isnan(mean[places])
        at, seen = places[judged], count[judged]
        got = np.where(finite, rewards, 0.0)[judged].sum(axis=1) / seen
        error = (got - mean[at]) ** 2 - noise[at] / seen
        run, rows = at // self.shape[-1], inputs[at]
        np.add.at(self.normal, run, rows[:, :, None] * rows[:, None, :])
        np.add.at(self.moment, run, rows * error[:, None])
        super().observe_pulls(places, rewards)

    def coefficients(self) -> np.ndarray:
        """Return c, float64 ``[3]`` (``[R, 3]``)."""
        return np.linalg.solve(self.normal, self.moment[..., None])[..., 0].reshape(*self.shape[:-1], 3)

    def bonus(self) -> np.ndarray:
        predicted = (self._inputs() * self.coefficients()[..., None, :]).sum(axis=-1)
        return np.where(self.tally.probes > 0, self.options.alpha * np.sqrt(np.maximum(predicted, 0.0)), np.nan)

    def _inputs(self) -> np.ndarray:
        count = np.maximum(self.tally.probes, 1.0)
        return np.stack([np.ones(self.shape), noise_of(self.tally)[0] / count, 1 / count], axis=-1)


POLICY = Deup
