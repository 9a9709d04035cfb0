"""Group-MATES's relational greedy selection (arXiv 2502.14709, section 3.3).

The t-th document of a group is the one of the best predicted influence on the model that has seen the t - 1 before it:

    theta_t = (alpha - alpha / (beta (t - 1)) sum_{i<t} cos(h_i, h_t)) s_t        theta_1 = s_1

with s = w . h the influence alone (``scores``; positive = helpful, where the paper has loss changes and takes the
least), h the relational model's representations (``vectors``) and alpha, beta as it learned them. The released
inference fixes both at 1; here they are options. O(n D) a document. Documents without a score are not taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.greedy import unit_rows
from winnow.selection.options import option
from winnow.selection.within import Candidates, Greedy, Taken


@dataclass(frozen=True)
class Options:
    alpha: float = option(1.0)
    beta: float = option(1.0, above=0)


class Relational(Greedy):
    """Largest theta next."""

    Options = Options
    needs = ("scores", "vectors")

    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        members = members[np.isfinite(candidates.scored[members])]
        rows, scores = unit_rows(candidates.rows(members)), candidates.scored[members]
        costs, open_ = candidates.arms.tokens[members], np.ones(len(members), dtype=bool)
        related, taken, left = np.zeros(len(members)), list[int](), tokens
        while (open_ := open_ & (costs <= left)).any():
            theta = scores
            if taken:
                factor = self.options.alpha * (1 - related / (self.options.beta * len(taken)))
                theta = factor * scores
            # Twins differ in the last bits of a product: they tie, and the smaller doc_id goes first.
            best = int(np.argmax(np.where(open_, _rounded(theta), -np.inf)))
            taken.append(best)
            open_[best] = False
            left -= int(costs[best])
            related += rows @ rows[best]
        return Taken.once(members[np.array(taken, dtype=np.int64)])


def _rounded(theta: np.ndarray) -> np.ndarray:
    """Return numbers rounded to about ten digits of the largest of them."""
    largest = float(np.abs(theta).max(initial=0))
    return np.asarray(np.round(theta / largest, 10)) if largest else theta


METHOD = Relational
