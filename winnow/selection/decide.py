"""Which documents of the granted clusters are taken, and why each candidate is in or out.

1. In each granted cluster, documents are taken from the best score down while they fit into the cluster's grant and
   the budget; one that does not fit is skipped and smaller ones after it may still.
2. What whole documents could not use is given to the best documents left in granted clusters.
3. Under a mixture, a source still below its quota is filled from the other clusters.

Ranking by the influence model's score is MATES (arXiv 2406.06046) within the clusters of Quad; without a score the
order within a cluster is random (seeded hash). Sign: a higher score is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import ids_from_numpy, seeded_keys
from winnow.selection.arms import Arms
from winnow.selection.budget import Quotas, check_budget, make_quotas, sorted_by, training_order

NOT_GRANTED = "cluster not granted"
BELOW_CUT = "below the cluster's cut"
OVER_BUDGET = "over the budget"  # it ranks high enough, but is larger than what is left of grant, quota or budget

__all__ = ["BELOW_CUT", "NOT_GRANTED", "OVER_BUDGET", "Decisions", "check_budget", "decide"]


@dataclass(frozen=True, eq=False)
class Decisions:
    """The verdict on each of N candidates, in the order in which they were passed to ``build_arms``.

    ``selected`` bool; ``reasons`` list of str; ``rank`` int64, 1 = best of its cluster; ``order`` int64, the place in
    training of a selected document, -1 for the others; ``scores`` float64, NaN where there is none.
    """

    arms: Arms
    selected: np.ndarray
    reasons: list[str]
    rank: np.ndarray
    order: np.ndarray
    scores: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of the selected documents."""
        return int(self.arms.tokens[self.selected].sum())

    @property
    def positions(self) -> np.ndarray:
        """Positions of the selected documents in training order, int64."""
        chosen = np.flatnonzero(self.selected)
        return chosen[np.argsort(self.order[chosen])]

    def table(self) -> pa.Table:
        """Return doc_id, cluster, tokens, verdict, reason, score, rank, order (null when rejected), one row each."""
        return pa.table(
            {
                "doc_id": ids_from_numpy(self.arms.doc_ids),
                "cluster": pa.array(self.arms.clusters[self.arms.arm_of], pa.int64()),
                "tokens": pa.array(self.arms.tokens, pa.int64()),
                "verdict": pa.array(np.where(self.selected, "selected", "rejected").tolist(), pa.string()),
                "reason": pa.array(self.reasons, pa.string()),
                "score": pa.array(self.scores, pa.float64(), mask=np.isnan(self.scores)),
                "rank": pa.array(self.rank, pa.int64()),
                "order": pa.array(self.order, pa.int64(), mask=~self.selected),
            }
        )


def decide(
    arms: Arms,
    ledger: pa.Table,
    scores: np.ndarray | None,
    token_budget: int,
    seed: int,
    sources: np.ndarray | None = None,
    source_tokens: Mapping[str, int] | None = None,
) -> Decisions:
    """Choose documents within each cluster by score up to its grant, at most ``token_budget`` tokens in all.

    ``ledger`` has the columns round, cluster and tokens_granted in the order of the pulls (``BanditResult.ledger()``
    or the table ``bandit_rounds``). ``scores`` float ``[N]``, higher = better, NaN ranks last; None = random within
    the cluster. With a mixture, ``sources`` str ``[N]`` and ``source_tokens``, tokens a source that sum to the budget:
    no source gets more than its own. When the grants cover the budget, less of it is left than the smallest document
    that remains in a granted cluster has tokens. Raises :class:`UserError` when the ledger names an unknown cluster.
    """
    grants = _grants(arms, ledger)
    ranking = _ranking(arms, scores, seed)
    filling = _Filling(arms, make_quotas(len(arms.arm_of), token_budget, sources, source_tokens))
    by_arm = ranking[np.argsort(arms.arm_of[ranking], kind="stable")]
    granted = np.zeros(len(arms), dtype=bool)
    for arm, blocks in grants.items():
        granted[arm] = True
        _take_grant(filling, blocks, by_arm[arms.starts[arm] : arms.starts[arm + 1]].tolist())
    rest = ranking[granted[arms.arm_of[ranking]]]
    for position in rest.tolist():
        filling.take(position, "fills what whole documents left of the budget")
    if sources is not None:
        for position in ranking[~granted[arms.arm_of[ranking]]].tolist():
            filling.take(position, f"fills the quota of source {filling.quota_name(position)}")
    rank = np.empty(len(ranking), dtype=np.int64)
    rank[by_arm] = np.arange(len(ranking)) - arms.starts[arms.arm_of[by_arm]] + 1
    return _explain(arms, filling, granted, rank, scores, seed)


def _grants(arms: Arms, ledger: pa.Table) -> dict[int, list[tuple[int, int]]]:
    """Return for each granted arm its blocks (round, tokens), arms in the order of their first grant."""
    grants: dict[int, list[tuple[int, int]]] = {}
    columns = [ledger.column(name).to_pylist() for name in ("round", "cluster", "tokens_granted")]
    index = {cluster: arm for arm, cluster in enumerate(arms.clusters.tolist())}
    for number, cluster, tokens in zip(*columns, strict=True):
        if tokens > 0:
            if cluster not in index:
                raise UserError(f"bandit ledger, round {number}: cluster {cluster} is not an arm; run the bandit again")
            grants.setdefault(index[cluster], []).append((number, tokens))
    return grants


def _ranking(arms: Arms, scores: np.ndarray | None, seed: int) -> np.ndarray:
    """Return all positions, best first: by falling score with NaN last, or by seeded hash; ties by doc_id."""
    if scores is None:
        return sorted_by(arms.doc_ids, seeded_keys(arms.doc_ids, seed, "decide"))
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != arms.tokens.shape:
        raise ValueError(f"{len(arms.tokens)} candidates, but scores of shape {values.shape}")
    return sorted_by(arms.doc_ids, np.where(np.isnan(values), np.inf, -values))


class _Filling:
    """Documents taken so far, and what is left of each quota."""

    def __init__(self, arms: Arms, quotas: Quotas) -> None:
        self.tokens = arms.tokens.tolist()
        self.quota_of = quotas.quota_of.tolist()
        self.names = quotas.names
        self.left = list(quotas.limits)
        self.taken: dict[int, str] = {}
        self.over_budget: set[int] = set()

    def quota_name(self, position: int) -> str:
        return self.names[self.quota_of[position]]

    def take(self, position: int, why: str) -> bool:
        """Take a document if its quota has room, and say whether it was."""
        if position in self.taken:
            return False
        quota, cost = self.quota_of[position], self.tokens[position]
        if cost > self.left[quota]:
            return False
        self.left[quota] -= cost
        self.taken[position] = why
        return True


def _take_grant(filling: _Filling, arm_blocks: list[tuple[int, int]], members: list[int]) -> None:
    """Take an arm's documents in rank order while its grant lasts; a document counts to the block it begins in."""
    granted = sum(tokens for _, tokens in arm_blocks)
    used, by_rank_alone, block, block_end = 0, 0, 0, arm_blocks[0][1]
    for position in members:
        cost = filling.tokens[position]
        if by_rank_alone + cost <= granted:
            by_rank_alone += cost
            filling.over_budget.add(position)  # unless it is taken: then nobody asks
        if used + cost > granted:
            continue
        while used >= block_end and block + 1 < len(arm_blocks):
            block += 1
            block_end += arm_blocks[block][1]
        if filling.take(position, f"granted in round {arm_blocks[block][0]}"):
            used += cost


def _explain(
    arms: Arms, filling: _Filling, granted: np.ndarray, rank: np.ndarray, scores: np.ndarray | None, seed: int
) -> Decisions:
    """Write every candidate's reason, and the training order of the selected ones."""
    chosen = np.array(sorted(filling.taken), dtype=np.int64)
    selected = np.zeros(len(rank), dtype=bool)
    selected[chosen] = True
    order = np.full(len(rank), -1, dtype=np.int64)
    order[chosen] = training_order(arms.doc_ids[chosen], seed)
    cut = np.zeros(len(arms), dtype=np.int64)
    np.maximum.at(cut, arms.arm_of[chosen], rank[chosen])
    above_cut = rank < cut[arms.arm_of]
    reasons = []
    for position, arm in enumerate(arms.arm_of.tolist()):
        if position in filling.taken:
            why = filling.taken[position]
            reasons.append(f"selected: cluster {arms.clusters[arm]}, {why}, rank {rank[position]}")
        elif not granted[arm]:
            reasons.append(NOT_GRANTED)
        else:
            reasons.append(OVER_BUDGET if above_cut[position] or position in filling.over_budget else BELOW_CUT)
    known = np.full(len(rank), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    return Decisions(arms, selected, reasons, rank, order, known)
