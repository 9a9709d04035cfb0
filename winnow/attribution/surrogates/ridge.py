r"""Ridge regression in closed form; penalty and shares chosen by leave-one-out.

    w = argmin |y - X w|^2 + alpha |D^-1 (w - rho w0)|^2 = rho w0 + D V diag(s / (s^2 + alpha)) U^T (y - rho X w0)

X are the standardised, centred features, X D = U diag(s) V^T, y the labels, w0 the weights of the model that it starts
from (an earlier checkpoint's), or zero. D gives the signals a share m of the prior variance of a prediction and the
embedding the rest, whatever their widths: D^2 = m / S for each of S signals, (1 - m) / E for each of E dimensions.
Otherwise hundreds of dimensions drown a few dozen signals. alpha, m, and rho of {0, 1/2, 1} minimise the exact
leave-one-out error, mean_i ((y_i - yhat_i) / (1 - h_ii))^2, h_ii = 1/n + sum_j U_ij^2 s_j^2 / (s_j^2 + alpha), on fixed
grids: w0 does not depend on the y at hand, so its share does not enter h. A former model that is of no use gets rho =
0. All of it in float64.
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
SIGNALS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0, 1.0)  # the grid of m
ROWS = 256  # as many as stay in the cache from one step to the next


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
            products = self.scaling.apply(features.take(part))
            products *= self.weights
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
    that document, in units of ``labels``; ``widths`` float64 ``[P]``: D.
    """

    predictor: RidgePredictor
    features: np.ndarray
    labels: Labels
    left_out: np.ndarray
    widths: np.ndarray


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
        return Fit(mean, scaling.apply(features), labels, np.zeros(len(targets)), np.zeros(len(mean.weights)))
    standard = scaling.apply(features)
    start = np.zeros(standard.shape[1])
    if previous is not None:
        start = previous.weights * scaling.moved_from(previous.scaling)[0]
    weights, found, widths = _solve(standard, labels.values, start, features.embeddings.shape[1])
    predictor = RidgePredictor(scaling, weights, found.alpha, found.share, labels.mean, labels.std)
    return Fit(predictor, standard, labels, labels.values - found.missed, widths)


def mean_only(features: Features, targets: np.ndarray) -> RidgePredictor:
    """Return the predictor that tells no two documents apart."""
    mean = float(targets.mean()) if len(targets) else 0.0
    scaling = no_scaling(features)
    return RidgePredictor(scaling, np.zeros(len(scaling.mean)), 0.0, 0.0, mean, 0.0)


@dataclass(frozen=True)
class Penalty:
    """The penalty ``alpha`` and the ``share`` of the former model that leave out best.

    ``error``: the mean squared leave-one-out error; ``missed`` float64 ``[N]``: what was missed of each label.
    """

    error: float
    alpha: float
    share: float
    missed: np.ndarray


def choose_penalty(left: np.ndarray, power: np.ndarray, labels: np.ndarray, start: np.ndarray) -> Penalty:
    """Return the best by the exact leave-one-out error.

    ``left`` float64 ``[N, K]``: the left singular vectors of the centred features, ``power`` ``[K]``: squared singular
    values, not all zero; ``start`` ``[N]``: what the former model says of each document, centred.
    """
    best = Penalty(np.inf, 0.0, 0.0, np.zeros(len(labels)))
    for share in SHARES if start.any() else (0.0,):
        rest = labels - share * start if share else labels
        projected = left.T @ rest
        for alpha in (RELATIVE_ALPHAS * power.mean())[::-1].tolist():
            shrink = power / (power + alpha)
            leverage = 1.0 / len(labels) + (left**2) @ shrink
            missed = (rest - left @ (shrink * projected)) / np.maximum(1.0 - leverage, 1e-9)
            error = float(np.mean(missed**2))
            if error < best.error:
                best = Penalty(error, alpha, share, missed)
    return best


def _solve(
    features: np.ndarray, labels: np.ndarray, start: np.ndarray, embedded: int
) -> tuple[np.ndarray, Penalty, np.ndarray]:
    """Return weights, the penalty that was chosen and the widths; the first ``embedded`` columns are the embedding."""
    centred = features - features.mean(axis=0)
    before = centred @ start
    best, weights, chosen = Penalty(np.inf, 0.0, 0.0, labels), np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for share in SIGNALS if 0 < embedded < features.shape[1] else SIGNALS[:1]:
        widths = prior_widths(features.shape[1], embedded, share)
        left, singular, right = np.linalg.svd(centred * widths, full_matrices=False)
        power = singular**2
        if not power.any():
            continue
        found = choose_penalty(left, power, labels, before)
        if found.error < best.error:
            rest = labels - found.share * before
            weights = widths * (right.T @ (singular / (power + found.alpha) * (left.T @ rest))) + found.share * start
            best, chosen = found, widths
    return weights, best, chosen


def prior_widths(width: int, embedded: int, share: float) -> np.ndarray:
    """Return D, float64 ``[width]``, for a share of the signals, which are what follows the ``embedded`` columns."""
    widths = np.empty(width)
    widths[:embedded] = np.sqrt((1.0 - share) / max(embedded, 1))
    widths[embedded:] = np.sqrt(share / max(width - embedded, 1))
    return widths
