"""Greedy maximisation of a submodular function of an arm's documents under a budget of tokens, lazily."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from winnow.identity import seeded_keys
from winnow.selection.within import Candidates

BLOCK = 32  # documents whose gain is computed together
FIRST = 256  # the same before the first is taken
TABLE = 4_000_000
DIGITS = 10  # gains that agree so far tie, and the smaller doc_id goes first


def lazy_greedy(
    gains: Callable[[np.ndarray], np.ndarray], add: Callable[[int], None], costs: np.ndarray, tokens: int
) -> np.ndarray:
    """Return the documents (int64, places in ``costs``) in the order taken: the largest gain that still fits each time.

    ``gains`` gives the present gain of documents, in [0, 1]; ``add`` takes one. A gain never grows, so one computed
    before bounds the present one from above, and only the largest bounds are computed again (Minoux, 1978). Ends when
    nothing fits, or gains anything. What is taken is what plain greedy takes.
    """
    parts = np.split(np.arange(len(costs)), np.arange(FIRST, len(costs), FIRST))
    bounds = np.concatenate([np.round(gains(part), DIGITS) for part in parts])
    fresh = np.ones(len(costs), dtype=bool)
    taken, left = list[int](), tokens
    bounds[costs > left] = -1
    while len(bounds):
        best = int(np.argmax(bounds))
        if bounds[best] <= 0:
            break
        if fresh[best]:
            taken.append(best)
            add(best)
            left -= int(costs[best])
            bounds[best] = -1
            bounds[costs > left] = -1
            fresh[:] = False
            continue
        stale = np.flatnonzero(~fresh & (bounds > 0))
        if len(stale) > BLOCK:
            stale = np.sort(stale[np.argpartition(-bounds[stale], BLOCK)[:BLOCK]])
        # The best itself belongs to the block: argpartition may leave it out among equals.
        stale = stale if best in stale else np.append(stale, best)
        bounds[stale] = np.round(gains(stale), DIGITS)
        fresh[stale] = True
    return np.array(taken, dtype=np.int64)


class Similarities:
    """Cosines of an arm's documents with the ``ground`` documents: all of them, or ``most`` of a larger arm.

    A table of up to ``TABLE`` numbers is computed once, of a larger one the columns as they are asked for.
    """

    def __init__(self, candidates: Candidates, members: np.ndarray, most: int) -> None:
        self.rows = unit_rows(candidates.rows(members))
        drawn = np.arange(len(members))
        if len(members) > most:
            keys = seeded_keys(candidates.arms.doc_ids[members], candidates.seed, "ground")
            drawn = np.sort(np.argsort(keys, kind="stable")[:most])
        self.ground = len(drawn)
        self.drawn = self.rows[drawn]
        self.table = self.drawn @ self.rows.T if len(drawn) * len(members) <= TABLE else None

    def of(self, documents: np.ndarray) -> np.ndarray:
        """Return the cosines of ``documents`` (int64 places in the arm), float64 ``[ground, len(documents)]``."""
        if self.table is not None:
            return np.asarray(self.table[:, documents])
        return np.asarray(self.drawn @ self.rows[documents].T)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float64 ``[M, D]``; a zero row stays zero."""
    rows = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))
