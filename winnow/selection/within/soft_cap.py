"""Soft cap sampling (FLYT, Shechter and Carmon, NeurIPS 2025, arXiv 2503.08805): draws with a repetition penalty.

Documents are drawn in batches without replacement, with probabilities softmax(logit); each that was drawn then has its
logit lowered by ``penalty``. So the best are trained on several times, and none too often. A batch is ``batch`` of the
arm's documents; logits start at the z-score / ``temperature``. Batches are drawn by Gumbel-top-k, each with its own
numbers. It ends when nothing fits the grant any more: a draw costs a document's tokens. A document without a score is
not drawn. The defaults are ours: the paper's are for pools of a hundred million images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.identity import seeded_keys
from winnow.selection.options import option
from winnow.selection.within import Candidates, Greedy, Taken, gumbels, unit


@dataclass(frozen=True)
class Options:
    penalty: float = option(0.5, least=0)
    temperature: float = option(1.0, above=0)
    batch: float = option(0.05, above=0, most=1)


class SoftCap(Greedy):
    """Sampling with repetition."""

    Options = Options
    needs = ("scores",)

    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        members = members[np.isfinite(candidates.standard[members]) & (candidates.arms.tokens[members] > 0)]
        logits = candidates.standard[members] / self.options.temperature
        costs, drawn = candidates.arms.tokens[members], np.zeros(len(members), dtype=np.int64)
        size = max(1, round(self.options.batch * len(members)))
        order: list[int] = []
        left, number = tokens, 0
        while len(members) and (costs <= left).any():
            noise = gumbels(unit(seeded_keys(candidates.arms.doc_ids[members], candidates.seed, f"soft cap {number}")))
            keys = np.where(costs <= left, logits + noise, -np.inf)
            for place in np.argsort(-keys, kind="stable")[:size].tolist():
                if costs[place] <= left:
                    if not drawn[place]:
                        order.append(place)
                    drawn[place] += 1
                    logits[place] -= self.options.penalty
                    left -= int(costs[place])
            number += 1
        first = np.array(order, dtype=np.int64)
        return Taken(members[first], drawn[first], np.ones(len(first)))


METHOD = SoftCap
