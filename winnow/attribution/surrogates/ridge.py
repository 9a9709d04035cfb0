r"""Ridge regression in closed form, the penalty and the share of the former model chosen by leave-one-out.

    w = argmin |y - X w|^2 + alpha |w - rho w0|^2 = rho w0 + V diag(s / (s^2 + alpha)) U^T (y - rho X w0)

X = U diag(s) V^T are the standardised, centred features, y the labels, w0 the weights of the model that it starts from
(an earlier checkpoint's), or zero. alpha, and rho of {0, 1/2, 1}, minimise the exact leave-one-out error, mean_i ((y_i
- yhat_i) / (1 - h_ii))^2, h_ii = 1/n + sum_j U_ij^2 s_j^2 / (s_j^2 + alpha), on a fixed grid: w0 does not depend on
the y at hand, so its share does not enter h. A former model that is of no use gets rho = 0. All of it in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow.attribution.surrogates.interface import SQUARED, Features, Predictor, Surrogate
from winnow.attribution.surrogates.scaling import ARRAYS, Labels, Scaling, fit_scaling, labels_of, no_scaling

RELATIVE_ALPHAS = np.logspace(-3, 4, 36)  # times the mean squared singular value
SHARES = (0.0, 0.5, 1.0)
ROWS = 4096


@dataclass(frozen=True)
class RidgePredictor(Predictor, kind="ridge"):
    """``weights`` float64 ``[P]`` on the standardised features; ``share``: how much of the former model it kept."""

    scaling: Scaling
    weights: np.ndarray
    alpha: float
    share: float
    mean: float
    std: float

    @property
    def target_mean(self) -> float:
        return self.mean

    def centred(self, features: Features) -> np.ndarray:
        predictions = np.empty(len(features))
        for start in range(0, len(features), ROWS):
            part = np.arange(start, min(start + ROWS, len(features)))
            # A row-wise sum, not a matrix product: the product's rounding depends on the number of rows.
            products = self.scaling.apply(features.take(part)) * self.weights
            predictions[part] = np.ascontiguousarray(products).sum(axis=1)
        return predictions * self.std

    def corrected(
        self, features: Features, correction: Callable[[np.ndarray], np.ndarray], slope: float, intercept: float
    ) -> np.ndarray:
        """Return ``slope`` x (ridge + correction) + ``intercept``, centred; the correction is of scaled features."""
        found = slope * self.centred(features) + intercept * self.std
        for start in range(0, len(features), ROWS):
            part = np.arange(start, min(start + ROWS, len(features)))
            found[part] += slope * self.std * correction(self.scaling.apply(features.take(part)))
        return found

    def tensors(self) -> dict[str, np.ndarray]:
        return {**{name: getattr(self.scaling, name) for name in ARRAYS}, "weights": self.weights}

    def facts(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "share": self.share, "mean": self.mean, "std": self.std}

    @classmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> RidgePredictor:
        return cls(Scaling(*(tensors[name] for name in ARRAYS)), tensors["weights"], **facts)


@dataclass(frozen=True)
class Fit:
    """A ridge with what is known of the documents that it was fitted to.

    ``features`` float64 ``[N, P]`` standardised; ``left_out`` float64 ``[N]``: the prediction of each label without
    that document, in units of ``labels``.
    """

    predictor: RidgePredictor
    features: np.ndarray
    labels: Labels
    left_out: np.ndarray


@dataclass(frozen=True)
class Ridge(Surrogate, name="ridge"):
    """The default: exact, the cheapest, and hard to beat with a few hundred probes."""

    losses = (SQUARED,)

    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> RidgePredictor:
        return fit_ridge(features, targets, previous if isinstance(previous, RidgePredictor) else None).predictor


def fit_ridge(features: Features, targets: np.ndarray, previous: RidgePredictor | None = None) -> Fit:
    """Fit to documents sorted by id; features that say nothing, or targets that do not vary, give the mean."""
    labels = labels_of(targets)
    scaling = fit_scaling(features, None if previous is None else previous.scaling)
    if labels.std == 0.0:
        mean = mean_only(features, targets)
        return Fit(mean, scaling.apply(features), labels, np.zeros(len(targets)))
    standard = scaling.apply(features)
    start = np.zeros(standard.shape[1])
    if previous is not None:
        start = previous.weights * scaling.moved_from(previous.scaling)[0]
    weights, alpha, share, left_out = _solve(standard, labels.values, start)
    predictor = RidgePredictor(scaling, weights, alpha, share, labels.mean, labels.std)
    return Fit(predictor, standard, labels, left_out)


def mean_only(features: Features, targets: np.ndarray) -> RidgePredictor:
    """Return the predictor that tells no two documents apart."""
    mean = float(targets.mean()) if len(targets) else 0.0
    scaling = no_scaling(features)
    return RidgePredictor(scaling, np.zeros(len(scaling.mean)), 0.0, 0.0, mean, 0.0)


def _solve(features: np.ndarray, labels: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Return weights, alpha, share and the left-out predictions."""
    centred = features - features.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    power = singular**2
    if not power.any():
        return np.zeros(features.shape[1]), 0.0, 0.0, np.zeros(len(labels))
    best: tuple[float, float, float] = (np.inf, 0.0, 0.0)
    errors = np.zeros(len(labels))
    for share in SHARES if start.any() else (0.0,):
        rest = labels - share * (centred @ start) if share else labels
        projected = left.T @ rest
        for alpha in (RELATIVE_ALPHAS * power.mean())[::-1].tolist():
            shrink = power / (power + alpha)
            leverage = 1.0 / len(labels) + (left**2) @ shrink
            missed = (rest - left @ (shrink * projected)) / np.maximum(1.0 - leverage, 1e-9)
            error = float(np.mean(missed**2))
            if error < best[0]:
                best, errors = (error, alpha, share), missed
    _, alpha, share = best
    rest = labels - share * (centred @ start) if share else labels
    weights = right.T @ (singular / (power + alpha) * (left.T @ rest))
    return weights + share * start if share else weights, alpha, share, labels - errors
