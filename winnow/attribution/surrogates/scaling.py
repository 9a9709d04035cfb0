"""Features and targets brought to a common scale, so that no wild value owns the fit.

Signals are first tamed one by one, asinh((x - median) / median absolute deviation), since they are skewed; every
feature is then standardised, a missing value is the mean (zero), and values beyond five standard deviations count as
five. Targets are brought within five robust deviations (1.4826 MAD) of their median and then z-scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.surrogates.interface import Features

FEATURE_LIMIT, TARGET_LIMIT = 5.0, 5.0
ARRAYS = ("center", "spread", "mean", "scale")


@dataclass(frozen=True)
class Scaling:
    """``center``, ``spread`` float64 ``[S]`` of the signals; ``mean``, ``scale`` float64 ``[P]``, P = E + S."""

    center: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: Features) -> np.ndarray:
        """Return the standardised features, float64 ``[N, P]``."""
        standard = _tamed(features, self.center, self.spread)
        standard -= self.mean
        standard /= self.scale
        np.clip(standard, -FEATURE_LIMIT, FEATURE_LIMIT, out=standard)
        standard[np.isnan(standard)] = 0.0
        return standard

    def moved_from(self, before: Scaling) -> tuple[np.ndarray, np.ndarray]:
        """Return factor and shift, float64 ``[P]``: old standardised = factor x new standardised + shift.

        The signals must be tamed alike (``center`` and ``spread`` taken over). A feature that was constant has none.
        """
        varied = np.isfinite(before.scale)
        unit = np.where(varied, before.scale, 1.0)
        factor = np.where(varied & np.isfinite(self.scale), self.scale, 0.0) / unit
        return factor, np.where(varied, self.mean - before.mean, 0.0) / unit


@dataclass(frozen=True)
class Labels:
    """Z-scored targets float64 ``[N]``, with the mean and deviation that they had; deviation 0: they say nothing."""

    values: np.ndarray
    mean: float
    std: float


def fit_scaling(features: Features, taming: Scaling | None = None) -> Scaling:
    """Fit to documents; signals are tamed as by ``taming`` where it is given."""
    center, spread = _robust_scales(features.signals) if taming is None else (taming.center, taming.spread)
    tamed = _tamed(features, center, spread)
    present = np.isfinite(tamed)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, tamed, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, tamed - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1.0)] = np.inf  # a constant column says nothing: its features are 0
    return Scaling(center, spread, mean, scale)


def no_scaling(features: Features) -> Scaling:
    """Return the scaling that leaves features as they are but for signals, which it tames mildly."""
    signals = features.signals.shape[1]
    width = features.embeddings.shape[1] + signals
    return Scaling(np.zeros(signals), np.ones(signals), np.zeros(width), np.ones(width))


def labels_of(targets: np.ndarray) -> Labels:
    """Return the labels to fit to: targets brought within the limit, and z-scored."""
    middle, reach = np.median(targets), TARGET_LIMIT * 1.4826 * np.median(np.abs(targets - np.median(targets)))
    limited = np.clip(targets, middle - reach, middle + reach) if reach > 0.0 else targets
    mean, std = float(limited.mean()), float(limited.std())
    return Labels((limited - mean) / std if std > 0.0 else np.zeros(len(targets)), mean, std)


def _tamed(features: Features, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    tamed = np.arcsinh((features.signals.astype(np.float64) - center) / spread)
    return np.concatenate([features.embeddings.astype(np.float64), tamed], axis=1)


def _robust_scales(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    center, spread = np.zeros(signals.shape[1]), np.ones(signals.shape[1])
    for column, values in enumerate(signals.T):
        present = values[np.isfinite(values)].astype(np.float64)
        if len(present):
            center[column] = np.median(present)
            deviation = np.abs(present - center[column])
            spread[column] = np.median(deviation) or deviation.mean() or 1.0
    return center, spread
