"""Coverage: documents that between them have as many others of their arm as possible within a cosine of ``similarity``.

F(S) = share of the arm's documents i with max_{j in S} cos(i, j) >= similarity (ProbCover, Yehuda et al., NeurIPS 2022,
with balls of one radius), greedily. When all is covered, the rest of the grant goes by score. Of an arm of more than
``ground`` documents, F is over so many of them, drawn by seeded hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.greedy import Similarities, lazy_greedy
from winnow.selection.options import option
from winnow.selection.within import Candidates, Greedy, Taken


@dataclass(frozen=True)
class Options:
    similarity: float = option(0.7, least=-1, most=1)
    ground: int = option(4096, least=1)


class Coverage(Greedy):
    """Most documents newly covered next."""

    Options = Options
    needs = ("vectors",)

    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        near = Similarities(candidates, members, self.options.ground)
        covered = np.zeros(near.ground, dtype=bool)
        limit = self.options.similarity - 1e-9  # a document covers its twin whatever the last bits say

        def gains(documents: np.ndarray) -> np.ndarray:
            return np.asarray(((near.of(documents) >= limit) & ~covered[:, None]).sum(axis=0) / max(1, near.ground))

        def add(document: int) -> None:
            np.logical_or(covered, near.of(np.array([document]))[:, 0] >= limit, out=covered)

        return Taken.once(members[lazy_greedy(gains, add, candidates.arms.tokens[members], tokens)])


METHOD = Coverage
