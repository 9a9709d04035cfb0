"""The losses of predicted scores s against z-scored labels y, as gradient and curvature for each document.

===========  =====================================================================================================
squared      (s - y)^2 / 2
robust       Huber's: squared up to a difference of one standard deviation, linear beyond
pairwise     mean over j of log(1 + exp(-(s_i - s_j))) where y_i > y_j: only the order counts (Burges et al. 2005)
lambda       the same, a pair weighted by how much DCG would change if the two changed places (Burges 2010,
             LambdaRank): what stands on top counts most. Gains are the labels' ranks within 0 and 1
===========  =====================================================================================================

Pairs are formed within groups of up to 128 documents, drawn anew at every step. One definition serves the trees (which
take gradient and curvature) and the networks (which send the gradient back).
"""

from __future__ import annotations

import numpy as np

from winnow.attribution.surrogates.interface import LAMBDA, PAIRWISE, ROBUST

GROUP = 128


def is_ranking(loss: str) -> bool:
    """Return whether the loss tells only the order, so that scores have no unit."""
    return loss in (PAIRWISE, LAMBDA)


def gradients(loss: str, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivative of each document's loss by its score, and its curvature, each float64 ``[N]``.

    For the two ranking losses a document's share is its mean over the other N - 1, so N is one group here.
    """
    if is_ranking(loss):
        return _pairs(scores, labels, loss == LAMBDA)
    difference = scores - labels
    return (np.clip(difference, -1.0, 1.0) if loss == ROBUST else difference), np.ones(len(scores))


def grouped(loss: str, scores: np.ndarray, labels: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return :func:`gradients` with pairs only within groups, which ``draw`` makes."""
    if not is_ranking(loss) or len(scores) <= GROUP:
        return gradients(loss, scores, labels)
    order = draw.permutation(len(scores))
    gradient, curvature = np.empty(len(scores)), np.empty(len(scores))
    for group in np.array_split(order, -(-len(order) // GROUP)):
        gradient[group], curvature[group] = gradients(loss, scores[group], labels[group])
    return gradient, curvature


def line(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope (at least 0) and intercept of labels by scores, which gives those of a ranking loss their unit."""
    middle = float(scores.mean())
    power = float(((scores - middle) ** 2).sum())
    slope = max(0.0, float(((scores - middle) * labels).sum()) / power) if power > 0.0 else 0.0
    return slope, float(labels.mean()) - slope * middle


def _pairs(scores: np.ndarray, labels: np.ndarray, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
    above = np.sign(labels[:, None] - labels[None, :])
    chance = 1.0 / (1.0 + np.exp(np.clip(above * (scores[:, None] - scores[None, :]), -30.0, 30.0)))
    weight = np.abs(above) * (_swaps(scores, labels) if weighted else 1.0)
    others = max(len(scores) - 1, 1)
    gradient = -(above * chance * weight).sum(axis=1) / others
    curvature = (chance * (1.0 - chance) * weight).sum(axis=1) / others
    return gradient, curvature


def _swaps(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return by how much DCG changes if two change places, float64 ``[N, N]``, scaled to a mean of one."""
    gain = np.searchsorted(np.sort(labels), labels) / max(len(labels) - 1, 1)
    place = np.empty(len(scores))
    place[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    discount = 1.0 / np.log2(place + 2.0)
    swaps: np.ndarray = np.abs((gain[:, None] - gain[None, :]) * (discount[:, None] - discount[None, :]))
    mean = float(swaps.mean())
    return swaps / mean if mean > 0.0 else swaps
