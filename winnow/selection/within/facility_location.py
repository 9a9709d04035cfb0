"""Facility location: documents that stand for the others of their arm, greedily.

F(S) = mean over the arm's documents i of max(0, max_{j in S} cos(i, j)), monotone and submodular, so greedy reaches at
least 1 - 1/e of the best for documents of equal length (Nemhauser, Wolsey and Fisher, 1978). With ``score_weight`` = w
the gain of a document is (1 - w) times that of F plus w times its rank among the arm's scores (0 to 1) over the number
of documents. Of an arm of more than ``ground`` documents, F is the mean over so many of them, drawn by seeded hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.selection.greedy import Similarities, lazy_greedy
from winnow.selection.options import option
from winnow.selection.within import Candidates, Greedy, Taken


@dataclass(frozen=True)
class Options:
    score_weight: float = option(0.0, least=0, most=1)
    ground: int = option(4096, least=1)


class FacilityLocation(Greedy):
    """Largest gain of F next."""

    Options = Options
    needs = ("vectors",)

    def require(self, candidates: Candidates) -> None:
        super().require(candidates)
        if self.options.score_weight and candidates.scores is None:
            raise UserError(f"within '{self.name}': score_weight needs the documents' scores, and there are none")

    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        weight = self.options.score_weight
        near = Similarities(candidates, members, self.options.ground)
        served = np.zeros(near.ground)
        quality = _ranks(candidates.scored[members]) / max(1, len(members)) if weight else np.zeros(len(members))

        def gains(documents: np.ndarray) -> np.ndarray:
            found = np.maximum(near.of(documents) - served[:, None], 0).sum(axis=0) / max(1, near.ground)
            return np.asarray((1 - weight) * found + weight * quality[documents])

        def add(document: int) -> None:
            np.maximum(served, near.of(np.array([document]))[:, 0], out=served)

        return Taken.once(members[lazy_greedy(gains, add, candidates.arms.tokens[members], tokens)])


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return the share of the scores below or equal to each, float64; 0 for NaN."""
    known = np.sort(scores[np.isfinite(scores)])
    ranks = np.searchsorted(known, scores, side="right") / max(1, len(known))
    return np.where(np.isfinite(scores), ranks, 0.0)


METHOD = FacilityLocation
