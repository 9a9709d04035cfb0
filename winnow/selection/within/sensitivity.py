"""Sensitivity sampling by clusters (Axiotis et al., ICML 2024, arXiv 2402.17327), without replacement.

A document's sensitivity is the value of its cluster's centre plus its distance from the centre,

    p_e  proportional to  (1 - w) v(c_e) / sum v  +  w d_e^z / sum d^z

with v(c) the mean |score| of the cluster in place of the loss at its centre, d the Euclidean distance, and w =
``distance_weight`` in place of the Hoelder constant lambda (w / (1 - w) = lambda sum d^z / sum v). The paper draws with
replacement and weights 1 / (s p_e). Here a document is taken once, by priority sampling (Duffield, Lund and Thorup,
JACM 2007): the largest p_e / U_e are taken, and the weight is max(1, t / p_e) with t the priority of the first that
the cut left out of its arm. Weighted sums are then unbiased for those of the arm, but for documents skipped because
they did not fit. Needs vectors; without scores the distance decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.arms import build_arms
from winnow.selection.options import option
from winnow.selection.within import Candidates, Keyed


@dataclass(frozen=True)
class Options:
    distance_weight: float = option(0.5, least=0, most=1)
    power: int = option(2, least=1, most=2)


class Sensitivity(Keyed):
    """key = log p - log U."""

    Options = Options
    needs = ("vectors",)

    def keys(self, candidates: Candidates) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self.probabilities(candidates)) - np.log(candidates.uniforms("within"))

    def weights(self, candidates: Candidates, keys: np.ndarray, taken: np.ndarray) -> np.ndarray:
        arm_of, uniforms = candidates.arms.arm_of, candidates.uniforms("within")
        lowest, cut = np.full(len(candidates.arms), np.inf), np.full(len(candidates.arms), -np.inf)
        np.minimum.at(lowest, arm_of[taken], keys[taken])
        out = ~taken & candidates.arms.available & (keys < lowest[arm_of])
        np.maximum.at(cut, arm_of[out], keys[out])
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.exp(cut[arm_of] - keys - np.log(uniforms))  # t / p
        return np.where(taken, np.maximum(1.0, weights), 1.0)

    def probabilities(self, candidates: Candidates) -> np.ndarray:
        """Return p, float64 ``[N]``, that sums to 1 over the available documents; 0 for the others."""
        arms = candidates.arms
        if candidates.clusters is not None:
            arms = build_arms(arms.doc_ids, candidates.clusters, arms.tokens, consumed=~arms.available)
        values, distances = np.zeros(len(arms.tokens)), np.zeros(len(arms.tokens))
        for arm in range(len(arms)):
            members = arms.members(arm)
            if not len(members):
                continue
            rows = candidates.rows(members).astype(np.float64)
            distances[members] = np.linalg.norm(rows - rows.mean(axis=0), axis=1) ** self.options.power
            if candidates.scores is not None:
                known = np.abs(candidates.scores[members])
                values[members] = known[np.isfinite(known)].mean() if np.isfinite(known).any() else 0.0
        far = self.options.distance_weight if values.any() else 1.0
        mixed = (1 - far) * _shares(values, arms.positions) + far * _shares(distances, arms.positions)
        return mixed if mixed.any() else arms.available / max(1, int(arms.available.sum()))


def _shares(values: np.ndarray, canonical: np.ndarray) -> np.ndarray:
    total = float(values[canonical].sum())  # summed in an order that is not the caller's
    return values / total if total else values


METHOD = Sensitivity
