r"""Cleaning a contaminated training set from a few known bad behaviours, round by round.

Each round: train on what is left; take the influence of every document on the bad behaviours (texts that the model
should *not* find likely) and on some good ones; remove the documents of highest suspicion,

    suspicion(i) = mean over bad q of tau(q, i) / s_q  -  mean over good q of tau(q, i) / s_q,

s_q the spread of tau(q, .) over the documents left, so that no query speaks louder than another; repeat. Influence is
recomputed with the model of each round, since what the worst culprits masked shows only once they are gone. **Positive
influence = lowers the loss**, hence a culprit helps what is bad. With the culprits known (planted), recall and
precision are reported beside removal at random, whose expectation is exact: recall = share removed.

Source: Ghosh et al. 2023, "Gradient-based automated iterative recovery for parameter-efficient tuning" (G-BAIR).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError
from winnow.identity import ids_as_keys

log = logging.getLogger(__name__)

M = TypeVar("M")


@dataclass(frozen=True)
class Round:
    """The state before a round's removal: ``removed`` documents are gone, ``caught`` of them culprits (-1: unknown).

    ``bad_loss`` and ``good_loss``: mean losses (nats a token) of the model trained on what is left.
    """

    removed: int
    caught: int
    bad_loss: float
    good_loss: float


@dataclass(frozen=True)
class Recovery:
    """``rounds``: the curve, first the contaminated model, last the cleaned one; ``kept`` bool ``[N]`` at the end.

    ``clean_bad_loss``, ``clean_good_loss``: the losses of a model trained without any culprit, NaN when they are not
    known; ``culprits``: how many there were.
    """

    method: str
    rounds: tuple[Round, ...]
    kept: np.ndarray
    culprits: int
    clean_bad_loss: float
    clean_good_loss: float

    @property
    def recall(self) -> float:
        """The share of the culprits that was removed; NaN when they are not known."""
        return self.rounds[-1].caught / self.culprits if self.culprits > 0 else float("nan")

    @property
    def precision(self) -> float:
        """The share of culprits in what was removed; NaN when they are not known."""
        last = self.rounds[-1]
        return last.caught / last.removed if self.culprits > 0 and last.removed else float("nan")

    @property
    def recovered(self) -> float:
        """How much of the way from the contaminated to the clean model's loss on bad behaviours was gone."""
        start, end = self.rounds[0].bad_loss, self.rounds[-1].bad_loss
        way = self.clean_bad_loss - start
        return (end - start) / way if np.isfinite(way) and way != 0.0 else float("nan")

    def to_rows(self) -> list[Row]:
        rows = []
        for number, one in enumerate(self.rounds):
            at, count = f"round {number}", one.removed
            rows.append(row("recovery", self.method, "bad_loss", one.bad_loss, at=at, count=count))
            rows.append(row("recovery", self.method, "good_loss", one.good_loss, at=at, count=count))
            if self.culprits > 0:
                rows.append(row("recovery", self.method, "recall", one.caught / self.culprits, at=at, count=count))
        if self.culprits > 0:
            share = self.rounds[-1].removed / len(self.kept)
            rows.append(row("recovery", self.method, "recall_at_random", share, count=self.rounds[-1].removed))
            rows.append(row("recovery", self.method, "recovered", self.recovered, count=self.culprits))
        return rows


def recover(
    method: str,
    train: Callable[[np.ndarray, int], M],
    losses: Callable[[M], np.ndarray],
    influence: Callable[[M, np.ndarray], np.ndarray],
    bad: np.ndarray,
    ids: np.ndarray,
    *,
    rounds: int,
    per_round: int,
    culprits: np.ndarray | None = None,
    seed: int = 0,
) -> Recovery:
    """Remove ``per_round`` documents in each of ``rounds`` rounds and train again after each.

    ``train(keep, seed)`` trains on the documents where bool ``[N]`` keep is true; ``losses(model)`` gives the queries'
    losses, float64 ``[Q]``; ``influence(model, keep)`` float64 ``[Q, N]`` of every document on them, NaN = no score
    (never removed); ``bad`` bool ``[Q]``: the query is a bad behaviour, the others are good ones, to be kept; ``ids``
    uint8 ``[N, 16]`` break ties; ``culprits`` bool ``[N]`` where known. Raises :class:`UserError` without a bad
    behaviour, or when nothing would be left to train on.
    """
    if not bad.any():
        raise UserError("no bad behaviour is given; name at least one query that the model should not find likely")
    if rounds < 1 or per_round < 1 or rounds * per_round >= len(ids):
        raise UserError(
            f"{rounds} rounds of {per_round} removals: at least 1, and fewer than {len(ids)} documents in all"
        )
    keys = ids_as_keys(ids)
    keep = np.ones(len(ids), dtype=bool)
    curve: list[Round] = []
    model = train(keep.copy(), seed)
    for number in range(rounds + 1):
        curve.append(_round(losses(model), bad, keep, culprits))
        log.info("recovery by %s, round %d: %s", method, number, curve[-1])
        if number == rounds:
            break
        suspicion = suspicions(influence(model, keep.copy()), bad, keep)
        order = np.lexsort((keys["low"], keys["high"], -suspicion))
        order = order[np.isfinite(suspicion[order])]
        keep[order[:per_round]] = False
        model = train(keep.copy(), seed)
    clean = np.full(2, np.nan)
    if culprits is not None and culprits.any():
        values = losses(train(~culprits, seed))
        clean = np.array([values[bad].mean(), values[~bad].mean() if (~bad).any() else np.nan])
    total = int(culprits.sum()) if culprits is not None else 0
    return Recovery(method, tuple(curve), keep, total, float(clean[0]), float(clean[1]))


def suspicions(influence: np.ndarray, bad: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return float64 ``[N]`` suspicion from ``[Q, N]`` influence; -infinity for documents gone or without a score."""
    usable = keep & np.isfinite(influence).all(axis=0)
    scaled = np.zeros((len(influence), int(usable.sum())))
    for query, values in enumerate(influence[:, usable]):
        spread = values.std()
        scaled[query] = values / spread if spread > 0.0 else 0.0
    found = np.full(influence.shape[1], -np.inf)
    found[usable] = scaled[bad].mean(axis=0) - (scaled[~bad].mean(axis=0) if (~bad).any() else 0.0)
    return found


def _round(values: np.ndarray, bad: np.ndarray, keep: np.ndarray, culprits: np.ndarray | None) -> Round:
    caught = int((culprits & ~keep).sum()) if culprits is not None else -1
    good = float(values[~bad].mean()) if (~bad).any() else float("nan")
    return Round(int((~keep).sum()), caught, float(values[bad].mean()), good)
