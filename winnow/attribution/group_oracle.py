r"""The group oracle: train on a group of documents, one step each and without going back, and measure after every step.

The influence of a set is not the sum of its members': the second of two equal documents helps less, and under AdamW a
document acts mostly *after* its own step, while the momentum that it gave decays. A rollout of k steps sees both.
Credit is given back to documents by a regression: with d_gt the fall of the loss in step t of rollout g,

    d_gt = c_t + sum_{s <= t} (1 - b1) b1^{t - s} w(document s of g) + noise,

where c_t is what momentum and weight decay do at step t in any rollout, b1 AdamW's first decay rate (the share of a
gradient that acts j steps later is (1 - b1) b1^j), and w(x) the whole effect of document x, **positive = helpful**.
Every document is in as many rollouts as there are rounds, each time in other company.

Source: Yu et al. 2025 (Group-MATES), section 3 (rollouts, 10 steps); the regression is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.batching import canonical_order, check_documents
from winnow.attribution.capture import vocabulary_size
from winnow.attribution.oracle import OneStepOracle
from winnow.attribution.ridge import fit_ridge
from winnow.attribution.scores import Progress


@dataclass(frozen=True)
class Rollouts:
    """G rollouts of k documents each, measured on R reference documents.

    ``groups`` int64 ``[G, k]``: positions of documents, in the order of their steps; ``losses`` float64
    ``[G, k + 1, R]``: before the first step and after each, NaN from a step on whose loss or gradient is not finite.
    """

    groups: np.ndarray
    losses: np.ndarray

    @property
    def influence(self) -> np.ndarray:
        """Float64 ``[G, R]``: by how much the whole group lowered the loss."""
        return self.losses[:, 0] - self.losses[:, -1]


def draw_groups(docs: Sequence[np.ndarray], size: int, rounds: int, seed: int) -> np.ndarray:
    """Return int64 ``[G, size]``: every document of two or more tokens once in each of ``rounds`` rounds.

    Which documents meet hashes their tokens with the seed. The last group of a round is filled up with the round's
    first documents; groups are no larger than there are documents.
    """
    usable = np.fromiter((len(doc) >= 2 for doc in docs), dtype=np.bool_, count=len(docs))
    size = min(size, int(usable.sum()))
    groups = []
    for turn in range(rounds if size else 0):
        order = canonical_order(docs, seed=(seed << 16) + turn)
        order = order[usable[order]]
        groups.append(np.append(order, order[: -len(order) % size]).reshape(-1, size))
    return np.concatenate(groups) if groups else np.empty((0, max(size, 1)), dtype=np.int64)


def roll_out(
    oracle: OneStepOracle, docs: Sequence[np.ndarray], groups: np.ndarray, progress: Progress | None = None
) -> Rollouts:
    """Take the steps of every group from the oracle's checkpoint, each group from the same state.

    Cost of a rollout: k steps and k passes over the reference.
    """
    check_documents(docs, vocabulary_size(oracle.model))
    losses = np.full((len(groups), groups.shape[1] + 1, len(oracle.reference_losses)), np.nan)
    losses[:, 0] = oracle.reference_losses
    with oracle.steps.running():
        for row, group in enumerate(groups):
            oracle.steps.rewind()
            for place, member in enumerate(group, 1):
                loss = oracle.steps.differentiate([docs[member]])
                if not (np.isfinite(loss) and oracle.steps.gradient_is_finite):
                    break
                oracle.steps.step()
                losses[row, place] = oracle.measure()
            if progress is not None:
                progress(row + 1, len(groups))
    return Rollouts(groups, losses)


def credit(rollouts: Rollouts, count: int, decay: float) -> np.ndarray:
    """Return w, float64 ``[count, R]``, of ``count`` documents by the regression above; NaN for those never measured.

    ``decay`` is AdamW's b1. The ridge penalty is chosen by leaving one step out. A step knows the documents of its own
    rollout only, so the regression's matrix is sparse, and what is decomposed is ``[count, count]`` (or steps by steps,
    where they are fewer).
    """
    from scipy.sparse import coo_array

    falls = rollouts.losses[:, :-1] - rollouts.losses[:, 1:]
    finite = np.isfinite(falls).all(axis=2)
    result = np.full((count, falls.shape[2]), np.nan)
    row, place = np.nonzero(finite)
    if not len(row):
        return result
    step, earlier = np.meshgrid(place, np.arange(falls.shape[1]), indexing="ij")
    members = rollouts.groups[row]
    there = earlier <= step
    shares = (1.0 - decay) * decay ** (step - earlier)[there]
    where = (np.nonzero(there)[0], members[there])
    features = coo_array((shares, where), shape=(len(row), count)).tocsr()
    # Centred by step: c_t is fitted, and not shrunk.
    groups = np.unique(place, return_inverse=True)[1]
    seen = np.unique(rollouts.groups[finite])
    result[seen] = fit_ridge(features[:, seen], falls[row, place], groups).weights
    return result
