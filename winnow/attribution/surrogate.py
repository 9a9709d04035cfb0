r"""The influence model: from a few hundred probed documents to a predicted influence of every document.

Features x in R^P of a document are its embedding and its signal columns. Signals are first tamed one by one, asinh((x
- median) / median absolute deviation), since they are skewed; every feature is then standardised, a missing value is
the mean (zero), and values beyond five standard deviations count as five. Targets are influences brought within five
robust deviations (1.4826 MAD) of their median, so that no single outlier owns the fit, and then z-scored. The model is
ridge regression,

    w = argmin |y - X w|^2 + alpha |w|^2 = V diag(s / (s^2 + alpha)) U^T y,    X = U diag(s) V^T,

in closed form in float64, with alpha the minimiser of the exact leave-one-out error, mean_i ((y_i - yhat_i) / (1 -
h_ii))^2, h_ii = 1/n + sum_j U_ij^2 s_j^2 / (s_j^2 + alpha), on a fixed grid.

How good it is: Spearman's rank correlation of out-of-fold predictions with the measured influence, everything (scales
and alpha included) fitted anew without the fold, and a bootstrap interval over documents. Out-of-fold predictions are
pooled without their fold's intercept, which is lower exactly when the held-out targets are higher and would bias a
useless model below zero.

Folds come from a hash of doc_id with the seed and rows are sorted by doc_id, so the order of the probes changes no
bit. Source: Yu et al. 2024 (MATES), section 3.2, with ridge on frozen embeddings where they fine-tune an encoder.
**Positive = helpful.**
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from winnow.attribution.correlation import bootstrap_interval, spearman
from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys

log = logging.getLogger(__name__)

MIN_PROBES = 30
FEATURE_LIMIT, TARGET_LIMIT = 5.0, 5.0
RELATIVE_ALPHAS = np.logspace(-3, 4, 36)  # times the mean squared singular value
_ARRAYS = ("center", "spread", "mean", "scale", "weights")


@dataclass(frozen=True)
class _Ridge:
    """``center``, ``spread`` float64 ``[S]`` of the signals; ``mean``, ``scale``, ``weights`` float64 ``[P]``."""

    center: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    alpha: float
    target_mean: float
    target_std: float

    def centred(self, embeddings: np.ndarray, signals: np.ndarray) -> np.ndarray:
        """Return float64 ``[N]`` predictions less the target mean; a row's bits do not depend on other rows."""
        predictions = np.empty(len(embeddings))
        for start in range(0, len(embeddings), 4096):
            part = slice(start, start + 4096)
            features = _features(embeddings[part], signals[part], self.center, self.spread)
            # A row-wise sum, not a matrix product: the product's rounding depends on the number of rows.
            products = _standardised(features, self.mean, self.scale) * self.weights
            predictions[part] = np.ascontiguousarray(products).sum(axis=1)
        return predictions * self.target_std


@dataclass(frozen=True)
class InfluenceModel:
    """A fitted predictor and how well it ranks documents it has not seen.

    ``spearman`` with ``spearman_low``, ``spearman_high`` (95%), all 0.0 when ``reason`` says why there is no model
    (it then predicts the mean for all); ``probes`` used, ``excluded`` without a finite influence.
    """

    ridge: _Ridge
    signal_names: tuple[str, ...]
    embedding_width: int
    probes: int
    excluded: int
    seed: int
    folds: int
    spearman: float = 0.0
    spearman_low: float = 0.0
    spearman_high: float = 0.0
    reason: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it was fitted and ranks unseen documents better than chance (the interval is above zero)."""
        return self.reason is None and self.spearman_low > 0.0

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the P features in the order of the weights."""
        return (*(f"embedding_{index}" for index in range(self.embedding_width)), *self.signal_names)

    def predict(self, embeddings: np.ndarray, signals: np.ndarray | None = None) -> np.ndarray:
        """Return the predicted influence, float64 ``[N]``, in the unit of the probes; positive = helpful.

        ``embeddings`` ``[N, E]`` and ``signals`` ``[N, S]`` in the order of ``signal_names``, NaN where missing. Raises
        :class:`UserError` for other widths.
        """
        signals = _signals(signals, len(embeddings))
        if embeddings.shape[1] != self.embedding_width or signals.shape[1] != len(self.signal_names):
            raise UserError(
                f"features of width {embeddings.shape[1]} + {signals.shape[1]}: the influence model was fitted on "
                f"{self.embedding_width} + {len(self.signal_names)}; use the same encoder and signals, or fit it again"
            )
        return self.ridge.target_mean + self.ridge.centred(embeddings, signals)

    def save(self, path: Path) -> None:
        """Write one safetensors file whose header carries the rest as JSON; equal models give equal bytes."""
        from safetensors.numpy import save_file

        facts = asdict(self)
        ridge = facts.pop("ridge")
        facts |= {name: value for name, value in ridge.items() if name not in _ARRAYS}
        tensors = {name: np.ascontiguousarray(ridge[name]) for name in _ARRAYS}
        save_file(tensors, path, metadata={"influence_model": json.dumps(facts, sort_keys=True, allow_nan=False)})

    @classmethod
    def load(cls, path: Path) -> InfluenceModel:
        """Read what :meth:`save` wrote. Raises :class:`UserError` for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["influence_model"])
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            numbers = {name: facts.pop(name) for name in ("alpha", "target_mean", "target_std")}
            facts["signal_names"] = tuple(facts["signal_names"])
            return cls(ridge=_Ridge(**arrays, **numbers), **facts)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: not an influence model ({error}); fit it again") from error


def fit_influence_model(
    ids: np.ndarray,
    embeddings: np.ndarray,
    signals: np.ndarray | None,
    influence: np.ndarray,
    *,
    signal_names: Sequence[str] = (),
    seed: int = 0,
    folds: int = 5,
) -> InfluenceModel:
    """Fit the model to probes and estimate its held-out rank correlation.

    ``ids`` uint8 ``[N, 16]``; ``embeddings`` float ``[N, E]``; ``signals`` float ``[N, S]`` or None, NaN where
    missing; ``influence`` float64 ``[N]``, NaN where a probe failed. Too few probes (below 30) or constant influence
    give a model that predicts the mean, with its reason. Raises :class:`UserError` for arrays of unlike lengths or a
    document given twice.
    """
    signals = _signals(signals, len(ids))
    if not len(ids) == len(embeddings) == len(signals) == len(influence):
        raise UserError(
            f"{len(ids)} ids, {len(embeddings)} embeddings, {len(signals)} signal rows, {len(influence)} influences: "
            "give one of each a document"
        )
    if signals.shape[1] != len(signal_names):
        raise UserError(f"{signals.shape[1]} signal columns but {len(signal_names)} names in signal_names")
    keys = ids_as_keys(ids)
    if len(np.unique(keys)) != len(keys):
        raise UserError("a document is probed twice; give one influence a document")
    order = np.argsort(keys, order=("high", "low"))
    order = order[np.isfinite(influence[order])]
    ids, embeddings, signals, targets = ids[order], embeddings[order], signals[order], influence[order].astype(float)
    reason = None
    if len(targets) < MIN_PROBES:
        reason = f"{len(targets)} probes with a finite influence; at least {MIN_PROBES} are needed"
    elif np.ptp(targets) == 0.0:
        reason = "every probe has the same influence"
    if reason is not None:
        log.warning("no influence model: %s", reason)
        ridge = _mean_only(targets, embeddings.shape[1], signals.shape[1])
    else:
        ridge = _fit(embeddings, signals, targets)
    held_out, interval = 0.0, (0.0, 0.0)
    if reason is None:
        predictions = _out_of_fold(ids, embeddings, signals, targets, seed, folds)
        if np.ptp(predictions) == 0.0:
            reason = "the features tell no two documents apart"
        else:
            held_out = spearman(predictions, targets)
            interval = bootstrap_interval(predictions, targets, seed)
            log.info("influence model of %d probes: held-out Spearman %.3f [%.3f, %.3f]", len(ids), held_out, *interval)
    return InfluenceModel(
        ridge=ridge,
        signal_names=tuple(signal_names),
        embedding_width=embeddings.shape[1],
        probes=len(targets),
        excluded=len(influence) - len(targets),
        seed=seed,
        folds=folds,
        spearman=held_out,
        spearman_low=interval[0],
        spearman_high=interval[1],
        reason=reason,
    )


def _out_of_fold(
    ids: np.ndarray, embeddings: np.ndarray, signals: np.ndarray, targets: np.ndarray, seed: int, folds: int
) -> np.ndarray:
    fold_of = np.empty(len(ids), dtype=np.int64)
    fold_of[np.argsort(seeded_keys(ids, seed, "influence-model-fold"), kind="stable")] = np.arange(len(ids)) % folds
    predictions = np.empty(len(ids))
    for fold in range(folds):
        held, kept = fold_of == fold, fold_of != fold
        ridge = _fit(embeddings[kept], signals[kept], targets[kept])
        predictions[held] = ridge.centred(embeddings[held], signals[held])
    return predictions


def _fit(embeddings: np.ndarray, signals: np.ndarray, targets: np.ndarray) -> _Ridge:
    center, spread = _robust_scales(signals)
    features = _features(embeddings, signals, center, spread)
    present = np.isfinite(features)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, features, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, features - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1.0)] = (
        np.inf
    )  # a constant column says nothing: its features are zero
    middle, reach = np.median(targets), TARGET_LIMIT * 1.4826 * np.median(np.abs(targets - np.median(targets)))
    labels = np.clip(targets, middle - reach, middle + reach) if reach > 0.0 else targets
    target_mean, target_std = float(labels.mean()), float(labels.std())
    if target_std == 0.0:
        return _mean_only(targets, embeddings.shape[1], signals.shape[1])
    weights, alpha = _ridge(_standardised(features, mean, scale), (labels - target_mean) / target_std)
    return _Ridge(center, spread, mean, scale, weights, alpha, target_mean, target_std)


def _ridge(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    left, singular, right = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    power = singular**2
    if not power.any():
        return np.zeros(features.shape[1]), 0.0
    projected, best = left.T @ labels, (np.inf, 0.0)
    for alpha in (RELATIVE_ALPHAS * power.mean())[::-1].tolist():
        shrink = power / (power + alpha)
        leverage = 1.0 / len(labels) + (left**2) @ shrink
        errors = (labels - left @ (shrink * projected)) / np.maximum(1.0 - leverage, 1e-9)
        best = min(best, (float(np.mean(errors**2)), alpha), key=lambda pair: pair[0])
    alpha = best[1]
    return right.T @ (singular / (power + alpha) * projected), alpha


def _features(embeddings: np.ndarray, signals: np.ndarray, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    tamed = np.arcsinh((signals.astype(np.float64) - center) / spread)
    return np.concatenate([embeddings.astype(np.float64), tamed], axis=1)


def _standardised(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    standard = np.clip((features - mean) / scale, -FEATURE_LIMIT, FEATURE_LIMIT)
    return np.where(np.isnan(standard), 0.0, standard)


def _robust_scales(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    center, spread = np.zeros(signals.shape[1]), np.ones(signals.shape[1])
    for column, values in enumerate(signals.T):
        present = values[np.isfinite(values)].astype(np.float64)
        if len(present):
            center[column] = np.median(present)
            deviation = np.abs(present - center[column])
            spread[column] = np.median(deviation) or deviation.mean() or 1.0
    return center, spread


def _mean_only(targets: np.ndarray, width: int, signals: int) -> _Ridge:
    mean = float(targets.mean()) if len(targets) else 0.0
    features = width + signals
    return _Ridge(
        np.zeros(signals), np.ones(signals), np.zeros(features), np.ones(features), np.zeros(features), 0.0, mean, 0.0
    )


def _signals(signals: np.ndarray | None, rows: int) -> np.ndarray:
    return np.empty((rows, 0)) if signals is None else np.asarray(signals)
