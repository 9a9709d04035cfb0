"""Documents ranked across arms: what the bandit believes of the arm, and what a score says of the document.

    value_d = V_i + b (s_d - mean of s over arm i)

with V_i the policy's value of the document's arm i, s_d the document's score (the influence model's, or any other)
and b what one unit of score is worth within arms, by least squares over the documents probed. Where the score says
nothing inside the arms b is near 0 and whole arms are taken, best first; where it says much, the best documents of
many arms are. A negative b is taken for 0: such a score ranks nothing.

Probes measure the level of an arm, which a score may have wrong; the score orders the documents inside, which no budget
of probes can. This is the composition of a clustered bandit (Quad) and an influence model (MATES), and is ours.
"""

from __future__ import annotations

import numpy as np

from winnow.selection.arms import Arms
from winnow.selection.budget import sorted_by


def score_slope(arm_of: np.ndarray, scores: np.ndarray, rewards: np.ndarray, arms: int) -> float:
    """Return b: the slope of rewards on scores within arms, at least 0.

    ``arm_of`` int64, ``scores`` and ``rewards`` float64, each ``[N]``; pairs with a NaN do not count. 0 when no arm has
    two documents whose scores differ.
    """
    known = np.isfinite(scores) & np.isfinite(rewards)
    at, x, y = arm_of[known], scores[known], rewards[known]
    count = np.maximum(np.bincount(at, minlength=arms), 1)
    x = x - (np.bincount(at, x, arms) / count)[at]
    y = y - (np.bincount(at, y, arms) / count)[at]
    spread = float((x**2).sum())
    return max(0.0, float((x * y).sum()) / spread) if spread > 0 else 0.0


def ranked_grants(arms: Arms, values: np.ndarray, slope: float, scores: np.ndarray, budget: int) -> np.ndarray:
    """Return the tokens of each arm among the best documents that fill ``budget``, int64 ``[K]``.

    ``values`` float64 ``[K]``, -infinity comes last; ``scores`` float64 ``[N]``, NaN comes last in its arm. Equal
    values go by arm, then score, then doc_id; the last document counts by the part that fits.
    """
    own = np.where(np.isfinite(scores), scores, np.nan)
    filled = np.where(np.isnan(own), 0.0, own)
    count = np.maximum(np.bincount(arms.arm_of, ~np.isnan(own), len(arms)), 1)
    mean = np.bincount(arms.arm_of, filled, len(arms)) / count
    worst = -np.inf if slope > 0 else 0.0
    lift = np.where(np.isnan(own), worst, slope * (filled - mean[arms.arm_of]))
    order = sorted_by(
        arms.doc_ids, -(values[arms.arm_of] + lift), arms.arm_of, np.where(np.isnan(own), np.inf, -filled)
    )
    tokens = arms.tokens[order]
    taken = np.clip(budget - (np.cumsum(tokens) - tokens), 0, tokens)
    granted = np.zeros(len(arms), dtype=np.int64)
    np.add.at(granted, arms.arm_of[order], taken)
    return granted
