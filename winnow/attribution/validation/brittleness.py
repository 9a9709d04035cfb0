r"""Counterfactual: remove the documents that a method finds most helpful to a query, train again, see its loss rise.

    rise(q, k) = L(q | trained without the k documents of highest score) - L(q | trained on all),

both trained with the same seed, so the seed's own noise cancels in part. A method is worth its cost only when the rise
exceeds that of removing k documents at random *and* k found by TF-IDF; pass such scores beside the others. Random
removal is always there, drawn anew for every group of queries and training seed, and every rise is also given over it.

Source: Park et al. 2023 (TRAK), section 4.2, "brittleness estimates", with loss in place of misclassification.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.validation.intervals import crossed_interval
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys

log = logging.getLogger(__name__)

RANDOM = "random removal"

Retrain = Callable[[np.ndarray, int], np.ndarray]
"""``retrain(keep, seed)`` trains on the documents where bool ``[N]`` keep is true and returns the queries' losses,
float64 ``[Q]`` (nats a token); the same arguments give the same losses."""


@dataclass(frozen=True)
class Brittleness:
    """``rises`` float64 ``[G, S]``: the loss rise of each group of queries (nats a token) at each training seed.

    ``rise`` is their mean and ``over_random`` the mean of their differences to random removal of as many documents; the
    95% intervals resample groups and seeds.
    """

    method: str
    removed: int
    rises: np.ndarray
    rise: float
    interval: tuple[float, float]
    over_random: float
    over_random_interval: tuple[float, float]

    def to_rows(self) -> list[Row]:
        at, count = f"k={self.removed}", self.rises.size
        rows = [row("brittleness", self.method, "loss_rise", self.rise, self.interval, at=at, count=count)]
        if self.method == RANDOM:
            return rows
        difference = row(
            "brittleness", self.method, "over_random", self.over_random, self.over_random_interval, at=at, count=count
        )
        return [*rows, difference]


def brittleness(
    scores: Mapping[str, np.ndarray],
    retrain: Retrain,
    ids: np.ndarray,
    *,
    removals: Sequence[int],
    seeds: Sequence[int],
    groups: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> list[Brittleness]:
    """Remove, retrain and measure for every method, number of documents removed, group of queries and training seed.

    ``scores``: float ``[Q, N]`` by method, positive = helpful, NaN never removed; ``ids`` uint8 ``[N, 16]`` break ties
    and draw the random removals (by ``seed``); ``groups``: int positions of queries explained together by their mean
    score, each query alone when None. Trainings: seeds x (1 + groups x removals x (methods + 1)); removals that are the
    same set are trained once. Raises :class:`UserError` when a removal leaves no document, or for unlike shapes.
    """
    for name, values in scores.items():
        if values.ndim != 2 or values.shape[1] != len(ids):
            raise UserError(f"scores by {name}: shape {values.shape}, expected [queries, {len(ids)} documents]")
    if not removals or min(removals) < 1 or max(removals) >= len(ids):
        raise UserError(f"removals {list(removals)}: remove at least 1 and fewer than all {len(ids)} documents")
    if groups is None:
        groups = [np.array([query]) for query in range(len(next(iter(scores.values()))))]
    trained = _Trained(retrain, len(ids))
    rises: dict[tuple[str, int], np.ndarray] = {}
    for number, queries in enumerate(groups):
        orders = {name: _by_score(values[queries].mean(axis=0), ids) for name, values in scores.items()}
        for column, training_seed in enumerate(seeds):
            salt = "-".join(str(query) for query in queries.tolist())
            orders[RANDOM] = np.argsort(seeded_keys(ids, seed, f"brittleness-{salt}-{training_seed}"), kind="stable")
            whole = trained.losses(np.empty(0, np.int64), training_seed)[queries].mean()
            for name, order in orders.items():
                for removed in removals:
                    found = rises.setdefault((name, removed), np.empty((len(groups), len(seeds))))
                    found[number, column] = trained.losses(order[:removed], training_seed)[queries].mean() - whole
    return [
        _result(name, removed, rises[name, removed], rises[RANDOM, removed], seed)
        for removed in removals
        for name in (*scores, RANDOM)
    ]


def _result(name: str, removed: int, rises: np.ndarray, random: np.ndarray, seed: int) -> Brittleness:
    return Brittleness(
        name,
        removed,
        rises,
        float(rises.mean()),
        crossed_interval(rises, seed),
        float((rises - random).mean()),
        crossed_interval(rises - random, seed),
    )


def _by_score(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return positions from the highest score to the lowest, ties by id; documents without a score last."""
    keys = ids_as_keys(ids)
    return np.lexsort((keys["low"], keys["high"], -np.where(np.isfinite(values), values, -np.inf)))


class _Trained:
    """The losses of every set of documents that was trained on, each trained once a seed."""

    def __init__(self, retrain: Retrain, documents: int) -> None:
        self.retrain, self.documents = retrain, documents
        self._known: dict[tuple[bytes, int], np.ndarray] = {}

    def losses(self, removed: np.ndarray, seed: int) -> np.ndarray:
        keep = np.ones(self.documents, dtype=bool)
        keep[removed] = False
        key = (keep.tobytes(), seed)
        if key not in self._known:
            self._known[key] = np.asarray(self.retrain(keep, seed), dtype=np.float64)
            log.info("brittleness: %d trainings", len(self._known))
        return self._known[key]
