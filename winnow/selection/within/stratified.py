"""Stratified: every stratum of an arm gives documents in proportion to its size, whatever the size of the grant.

Strata are ``strata`` bands of equal size by score within the arm, or the sources. The j-th of the n documents of a
stratum, drawn at random (or with ``order = "score"`` the j-th best), has the key -(j - 1/2) / n: so any beginning of
the order holds of each stratum its share, within one document. Documents without a score are a stratum of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.selection.budget import coded, sorted_by
from winnow.selection.options import option
from winnow.selection.within import Candidates, Keyed


@dataclass(frozen=True)
class Options:
    by: str = option("score", choices=("score", "source"))
    strata: int = option(5, least=1)
    order: str = option("random", choices=("random", "score"))


class Stratified(Keyed):
    """Proportional allocation."""

    Options = Options

    def require(self, candidates: Candidates) -> None:
        for thing, needed in (
            ("scores", "score" in (self.options.by, self.options.order)),
            ("sources", self.options.by == "source"),
        ):
            if needed and getattr(candidates, thing) is None:
                raise UserError(f"within '{self.name}': it needs the documents' {thing}, and there are none")

    def keys(self, candidates: Candidates) -> np.ndarray:
        arms, strata = candidates.arms, self._strata(candidates)
        inside = candidates.uniforms("within") if self.options.order == "random" else candidates.ranking_keys
        inside = np.where(np.isnan(inside), np.inf, -inside)
        order = sorted_by(arms.doc_ids, ~arms.available, arms.arm_of, strata, inside)
        group = arms.arm_of * (int(strata.max(initial=0)) + 1) + strata
        place, size = _places(group[order] + ~arms.available[order] * (int(group.max(initial=0)) + 1))
        keys = np.empty(len(order))
        keys[order] = -(place + 0.5) / size
        return keys

    def _strata(self, candidates: Candidates) -> np.ndarray:
        if self.options.by == "source" and candidates.sources is not None:
            return coded(candidates.sources)[1]
        arms, known = candidates.arms, np.isfinite(candidates.scored)
        counted = known & arms.available
        order = sorted_by(arms.doc_ids, ~counted, arms.arm_of, np.where(known, -candidates.scored, 0))
        place, size = _places(np.where(counted[order], arms.arm_of[order], -1))
        strata = np.empty(len(order), dtype=np.int64)
        strata[order] = np.where(counted[order], place * self.options.strata // size, self.options.strata)
        return strata


def _places(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each element in its run of equal ``groups``, from 0, and the length of the run, int64."""
    begins = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)])
    sizes = np.diff(begins, append=len(groups))
    return np.arange(len(groups)) - np.repeat(begins, sizes), np.repeat(sizes, sizes)


METHOD = Stratified
