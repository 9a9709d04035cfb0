"""The verdict on every candidate, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.identity import ids_from_numpy
from winnow.selection.arms import Arms

NOT_GRANTED = "cluster not granted"
BELOW_CUT = "below the cluster's cut"
OVER_BUDGET = "over the budget"  # it ranks high enough, but is larger than what is left of grant, quota or budget
NOT_ADMITTED = "not admitted"  # by the method that takes documents within a cluster
CONSUMED = "consumed by an earlier manifest"

# Codes of the outcomes, and of each the word to group by and what is told; the selected ones are told in full.
OUTCOMES = (
    ("cluster_not_granted", NOT_GRANTED),
    ("below_cluster_cut", BELOW_CUT),
    ("over_budget", OVER_BUDGET),
    ("not_admitted", NOT_ADMITTED),
    ("consumed", CONSUMED),
    ("selected", "granted in round {}"),
    ("selected", "fills what whole documents left of the budget"),
    ("selected", "fills the quota of source {}"),
)
(
    IS_NOT_GRANTED, IS_BELOW_CUT, IS_OVER_BUDGET, IS_NOT_ADMITTED, IS_CONSUMED,
    IS_GRANTED, FILLS_BUDGET, FILLS_QUOTA,
) = range(len(OUTCOMES))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Decisions:
    """The verdict on each of N candidates, in the order in which they were passed to ``build_arms``.

    ``selected`` bool; ``rank`` int64, 1 = best of its cluster; ``order`` int64, the place in training of a selected
    document, -1 for the others; ``scores`` float64, NaN where there is none; ``repeats`` int64, how often a selected
    document is trained on, 0 for the others; ``weights`` float64, of its loss, 0 for the others; ``outcomes`` int8, an
    index into ``OUTCOMES``; ``rounds`` int64, the round that granted it, -1 otherwise; ``quota_of`` int64, its place in
    ``quota_names``.
    """

    arms: Arms
    selected: np.ndarray
    rank: np.ndarray
    order: np.ndarray
    scores: np.ndarray
    repeats: np.ndarray
    weights: np.ndarray
    outcomes: np.ndarray
    rounds: np.ndarray
    quota_names: list[str]
    quota_of: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of the selected documents, repeats counted."""
        return int((self.arms.tokens * self.repeats).sum())

    @property
    def positions(self) -> np.ndarray:
        """Positions of the selected documents in training order, int64."""
        chosen = np.flatnonzero(self.selected)
        return chosen[np.argsort(self.order[chosen])]

    @property
    def reasons(self) -> list[str]:
        """Why each candidate is in or out, N strings: for a few; :meth:`told` has them in Arrow."""
        return list(self.told().to_pylist())

    def words(self) -> pa.DictionaryArray:
        """Return the outcome of each candidate in a word to group by."""
        names = list(dict.fromkeys(word for word, _ in OUTCOMES))
        places = np.array([names.index(word) for word, _ in OUTCOMES], dtype=np.int8)
        return pa.DictionaryArray.from_arrays(pa.array(places[self.outcomes]), pa.array(names))

    def told(self, positions: np.ndarray | None = None) -> pa.Array:
        """Return why candidates are in or out, a string array; ``positions`` int64 (all of them)."""
        where = np.arange(len(self.selected)) if positions is None else positions
        outcomes = self.outcomes[where]
        texts = pa.array([text for _, text in OUTCOMES]).take(pa.array(outcomes))
        chosen = self.selected[where]
        if not chosen.any():
            return texts
        inside, outcomes = where[chosen], outcomes[chosen]
        why = texts.filter(pa.array(chosen))
        for outcome, values in (
            (IS_GRANTED, pa.array(self.rounds[inside]).cast(pa.string())),
            (FILLS_QUOTA, pa.array(self.quota_names).take(pa.array(self.quota_of[inside]))),
        ):
            head = OUTCOMES[outcome][1].removesuffix("{}")
            told = pc.binary_join_element_wise(head, values, "")
            why = pc.if_else(pa.array(outcomes == outcome), told, why)
        clusters = pa.array(self.arms.clusters[self.arms.arm_of[inside]]).cast(pa.string())
        ranks = pa.array(self.rank[inside]).cast(pa.string())
        full = pc.binary_join_element_wise("selected: cluster ", clusters, ", ", why, ", rank ", ranks, "")
        return pc.replace_with_mask(texts, pa.array(chosen), full)

    def table(self) -> pa.Table:
        """Return a row each: doc_id, cluster, tokens, verdict, word, reason, score, rank, order (null when rejected),
        repeats, weight; verdict and word are dictionaries."""
        verdicts = pa.DictionaryArray.from_arrays(
            pa.array(self.selected.astype(np.int8)), pa.array(["rejected", "selected"])
        )
        return pa.table(
            {
                "doc_id": ids_from_numpy(self.arms.doc_ids),
                "cluster": pa.array(self.arms.clusters[self.arms.arm_of]),
                "tokens": pa.array(self.arms.tokens),
                "verdict": verdicts,
                "word": self.words(),
                "reason": self.told(),
                "score": pa.array(self.scores, mask=np.isnan(self.scores)),
                "rank": pa.array(self.rank),
                "order": pa.array(self.order, mask=~self.selected),
                "repeats": pa.array(self.repeats),
                "weight": pa.array(self.weights),
            }
        )
