"""Gradient-boosted trees on what the ridge leaves over.

The trees are symmetric: all nodes of a level ask the same question, so a tree of depth d is d features, d thresholds
and 2^d values (Prokhorenkova et al. 2018, CatBoost, section 4), which are kept as they are: arrays, no pickle. A leaf's
value is the Newton step -G / (H + penalty) on the loss's gradient and curvature (Chen and Guestrin 2016, section 2.2).
They begin at the ridge's prediction, in fitting that without the document itself: an ordinary residual would be too
small exactly where the ridge has overfitted. How many trees there are is decided on a fifth of the documents, drawn by
a hash of doc_id, by rank correlation; then all documents are fitted to. scikit-learn's histogram boosting fits no
ranking loss and shows its nodes only in private fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow.attribution.correlation import spearman
from winnow.attribution.surrogates.interface import Features, Predictor, Surrogate
from winnow.attribution.surrogates.losses import grouped, is_ranking, line
from winnow.attribution.surrogates.ridge import RidgePredictor, fit_ridge
from winnow.identity import seeded_keys

ROUNDS, DEPTH, RATE, PENALTY = 200, 4, 0.05, 5.0
BINS = 32
COLUMNS = 0.3  # share of the features that a tree may ask about
STALLED = 40  # rounds without a better rank correlation after which no better one is expected
INNER = 0.2


@dataclass(frozen=True)
class Forest:
    """T symmetric trees: ``features`` int32 ``[T, d]``, ``thresholds`` float64 ``[T, d]``, ``values`` ``[T, 2^d]``."""

    features: np.ndarray
    thresholds: np.ndarray
    values: np.ndarray

    def predict(self, standard: np.ndarray) -> np.ndarray:
        """Return float64 ``[N]``, the sums of the trees' values for standardised features ``[N, P]``."""
        total = np.zeros(len(standard))
        for tree in range(len(self.features)):
            above = standard[:, self.features[tree]] > self.thresholds[tree]
            total += self.values[tree][above @ (1 << np.arange(above.shape[1]))]
        return total


@dataclass(frozen=True)
class TreesPredictor(Predictor, kind="trees"):
    """A ridge and the trees that correct it: ``slope`` x (ridge + trees) + ``intercept``, in z-scored labels."""

    ridge: RidgePredictor
    forest: Forest
    slope: float
    intercept: float

    @property
    def target_mean(self) -> float:
        return self.ridge.mean

    def centred(self, features: Features) -> np.ndarray:
        return self.ridge.corrected(features, self.forest.predict, self.slope, self.intercept)

    def tensors(self) -> dict[str, np.ndarray]:
        forest = {name: getattr(self.forest, name) for name in ("features", "thresholds", "values")}
        return {**self.ridge.tensors(), **{f"forest.{name}": values for name, values in forest.items()}}

    def facts(self) -> dict[str, Any]:
        return {"ridge": self.ridge.facts(), "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> TreesPredictor:
        forest = Forest(*(tensors[f"forest.{name}"] for name in ("features", "thresholds", "values")))
        return cls(RidgePredictor.restore(tensors, facts["ridge"]), forest, facts["slope"], facts["intercept"])


@dataclass(frozen=True)
class Trees(Surrogate, name="trees"):
    """For influences that depend on embedding or signals by thresholds and products, with a thousand probes or more."""

    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> TreesPredictor:
        ridge = fit_ridge(features, targets, previous.ridge if isinstance(previous, TreesPredictor) else None)
        held = inner_holdout(features.ids, self.seed)
        labels = ridge.labels.values
        trial, scores = boost(ridge.features[~held], labels[~held], ridge.left_out[~held], self.loss, self.seed, ROUNDS,
                              (ridge.features[held], labels[held], ridge.left_out[held]))  # fmt: skip
        slope, intercept = line(scores, labels[held]) if is_ranking(self.loss) else (1.0, 0.0)
        forest, _ = boost(ridge.features, labels, ridge.left_out, self.loss, self.seed, len(trial.features))
        return TreesPredictor(ridge.predictor, forest, slope, intercept)


def inner_holdout(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return which documents decide when to stop, bool ``[N]``: a fifth, by a hash of doc_id."""
    held = np.zeros(len(ids), dtype=np.bool_)
    order = np.argsort(seeded_keys(ids, seed, "influence-model-stop"), kind="stable")
    held[order[: max(1, round(INNER * len(ids)))]] = True
    return held


def boost(
    standard: np.ndarray,
    labels: np.ndarray,
    base: np.ndarray,
    loss: str,
    seed: int,
    rounds: int,
    held: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> tuple[Forest, np.ndarray]:
    """Fit up to ``rounds`` trees to features float64 ``[N, P]``, beginning at the scores ``base`` ``[N]``.

    With ``held`` (features, labels, base of other documents), only the trees stay that rank those best. Also returns
    the scores of the held documents, or of the fitted ones.
    """
    from winnow.attribution.surrogates._boosting import best_split

    draw = np.random.default_rng(seed)
    edges = np.quantile(standard, np.linspace(0, 1, BINS + 1)[1:-1], axis=0)  # [BINS - 1, P]
    bins = np.stack([np.searchsorted(edges[:, one], standard[:, one], side="left") for one in range(len(edges.T))])
    bins = bins.astype(np.uint8)
    looked_at = max(1, round(COLUMNS * len(bins)))
    scores, reached = base.copy(), base if held is None else held[2].copy()
    features, thresholds = np.zeros((rounds, DEPTH), np.int32), np.full((rounds, DEPTH), np.inf)
    values = np.zeros((rounds, 1 << DEPTH))
    best, kept, best_scores = (-np.inf, 0, reached) if held is None else (spearman(reached, held[1]), 0, reached)
    for tree in range(rounds):
        gradient, curvature = grouped(loss, scores, labels, draw)
        columns = np.sort(draw.permutation(len(bins))[:looked_at])
        leaf = np.zeros(len(labels), np.int64)
        for level in range(DEPTH):
            column, place = best_split(bins, columns, leaf, 1 << level, gradient, curvature, PENALTY, BINS)
            leaf += (bins[column] > place).astype(np.int64) << level
            features[tree, level], thresholds[tree, level] = column, edges[place, column]
        weight = np.bincount(leaf, curvature, 1 << DEPTH) + PENALTY
        values[tree] = -RATE * np.bincount(leaf, gradient, 1 << DEPTH) / weight
        scores += values[tree][leaf]
        if held is not None:
            last = slice(tree, tree + 1)
            reached = reached + Forest(features[last], thresholds[last], values[last]).predict(held[0])
            found = spearman(reached, held[1])
            if found > best:
                best, kept, best_scores = found, tree + 1, reached
            elif tree + 1 - kept >= STALLED:
                break
    if held is None:
        kept, best_scores = rounds, scores
    return Forest(features[:kept], thresholds[:kept], values[:kept]), best_scores
