"""Which documents of the granted clusters are taken, and why each candidate is in or out.

1. In each granted cluster, documents are taken in the order of the method ``within`` while they fit into the cluster's
   grant and the budget; one that does not fit is skipped and smaller ones after it may still.
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
from winnow.selection.arms import Arms
from winnow.selection.budget import Quotas, check_budget, make_quotas, sorted_by, take_in_order, training_order
from winnow.selection.decisions import (
    BELOW_CUT,
    CONSUMED,
    FILLS_BUDGET,
    FILLS_QUOTA,
    IS_BELOW_CUT,
    IS_CONSUMED,
    IS_GRANTED,
    IS_NOT_ADMITTED,
    IS_NOT_GRANTED,
    IS_OVER_BUDGET,
    NOT_ADMITTED,
    NOT_GRANTED,
    OVER_BUDGET,
    Decisions,
)
from winnow.selection.within import Candidates, Greedy, Keyed, Vectors, Within, make_within

__all__ = [
    "BELOW_CUT",
    "CONSUMED",
    "NOT_ADMITTED",
    "NOT_GRANTED",
    "OVER_BUDGET",
    "Decisions",
    "check_budget",
    "decide",
]


def decide(
    arms: Arms,
    ledger: pa.Table,
    scores: np.ndarray | None,
    token_budget: int,
    seed: int,
    sources: np.ndarray | None = None,
    source_tokens: Mapping[str, int] | None = None,
    within: Within | None = None,
    vectors: Vectors | None = None,
    clusters: np.ndarray | None = None,
) -> Decisions:
    """Choose documents within each cluster up to its grant, at most ``token_budget`` tokens in all.

    ``ledger`` has the columns round, cluster and tokens_granted in the order of the pulls (``BanditResult.ledger()``
    or the table ``bandit_rounds``). ``scores`` float ``[N]``, higher = better, NaN ranks last; None = random within
    the cluster. With a mixture, ``sources`` str ``[N]`` and ``source_tokens``, tokens a source that sum to the budget:
    no source gets more than its own. ``within`` (``top_k``) may need ``vectors`` ``[N, D]`` or, where clusters are not
    the arms, ``clusters`` int64 ``[N]``. When the grants cover the budget, less of it is left than the smallest
    document that remains in a granted cluster and is admitted has tokens. Raises :class:`UserError` when the ledger
    names an unknown cluster or ``within`` lacks what it needs.
    """
    known = np.full(len(arms.tokens), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    if known.shape != arms.tokens.shape:
        raise ValueError(f"{len(arms.tokens)} candidates, but scores of shape {known.shape}")
    method = make_within("top_k") if within is None else within
    candidates = Candidates(arms, seed, None if scores is None else known, vectors, sources, clusters)
    method.require(candidates)
    quotas = make_quotas(len(known), token_budget, None if source_tokens is None else sources, source_tokens)
    grants = _grants(arms, ledger)
    ranked = _rank(candidates, method, grants)
    taking = _take(arms, grants, ranked, quotas, source_tokens is not None)
    return _explain(candidates, method, grants, ranked, quotas, taking)


@dataclass(frozen=True, eq=False)
class _Grants:
    """``tokens`` int64 ``[K]`` an arm; ``arms`` int64 in the order of their first grant; of each block, grouped by arm
    in that order, its round and where it ends in the tokens of all grants laid end to end, int64."""

    tokens: np.ndarray
    arms: np.ndarray
    rounds: np.ndarray
    ends: np.ndarray

    @property
    def granted(self) -> np.ndarray:
        """Which arms have a grant, bool ``[K]``."""
        return self.tokens > 0


def _grants(arms: Arms, ledger: pa.Table) -> _Grants:
    rounds, names, tokens = (
        ledger.column(name).to_numpy().astype(np.int64) for name in ("round", "cluster", "tokens_granted")
    )
    pulls = np.flatnonzero(tokens > 0)
    rounds, names, tokens = rounds[pulls], names[pulls], tokens[pulls]
    unknown = ~np.isin(names, arms.clusters)
    if unknown.any():
        first = int(np.argmax(unknown))
        raise UserError(
            f"bandit ledger, round {rounds[first]}: cluster {names[first]} is not an arm; run the bandit again"
        )
    index = np.searchsorted(arms.clusters, names)
    found, first_pull = np.unique(index, return_index=True)
    in_order = found[np.argsort(first_pull)]
    place = np.zeros(len(arms), dtype=np.int64)
    place[in_order] = np.arange(len(in_order))
    blocks = np.argsort(place[index], kind="stable")
    total = np.bincount(index, weights=tokens, minlength=len(arms)).astype(np.int64)
    return _Grants(total, in_order, rounds[blocks], np.cumsum(tokens[blocks]))


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Every candidate ranked: ``overall`` int64, positions best first; ``by_arm`` int64, grouped by arm, in the order
    in which they are tried; what may not be taken (``open`` bool ``[N]``) comes last in both."""

    overall: np.ndarray
    by_arm: np.ndarray
    open: np.ndarray
    admitted: np.ndarray
    keys: np.ndarray
    repeats: np.ndarray
    weights: np.ndarray


def _rank(candidates: Candidates, method: Within, grants: _Grants) -> _Ranked:
    arms = candidates.arms
    admitted = method.admitted(candidates) if isinstance(method, Keyed) else None
    admitted = np.ones(len(arms.tokens), dtype=bool) if admitted is None else admitted
    keys = method.keys(candidates) if isinstance(method, Keyed) else candidates.ranking_keys
    may = arms.available & admitted
    overall = sorted_by(arms.doc_ids, ~may, np.where(np.isnan(keys), np.inf, -keys))
    by_arm = overall[np.argsort(arms.arm_of[overall], kind="stable")]
    repeats, weights = np.ones(len(keys), dtype=np.int64), np.ones(len(keys))
    if isinstance(method, Greedy):
        early = np.full(len(keys), len(keys), dtype=np.int64)  # the place in which the method takes it
        for arm in grants.arms.tolist():
            taken = method.take(candidates, arms.members(arm), int(grants.tokens[arm]))
            early[taken.positions] = np.arange(len(taken.positions))
            repeats[taken.positions] = taken.repeats
            weights[taken.positions] = taken.weights
        by_arm = by_arm[np.lexsort((early[by_arm], arms.arm_of[by_arm]))]
    return _Ranked(overall, by_arm, may, admitted, keys, repeats, weights)


@dataclass(frozen=True, eq=False)
class _Taking:
    """``outcomes`` int8 ``[N]`` of what is selected, -1 otherwise; ``rounds`` int64 ``[N]``; ``sequence`` int64, the
    candidates of granted arms in the order in which they were tried; ``repeats`` int64 ``[N]``."""

    outcomes: np.ndarray
    rounds: np.ndarray
    sequence: np.ndarray
    repeats: np.ndarray


def _take(arms: Arms, grants: _Grants, ranked: _Ranked, quotas: Quotas, mixed: bool) -> _Taking:
    count = len(ranked.by_arm)
    outcomes, rounds = np.full(count, -1, dtype=np.int8), np.full(count, -1, dtype=np.int64)
    limit, taken = quotas.limit(), np.zeros(count, dtype=bool)
    sequence = ranked.by_arm[_ranges(arms.starts[grants.arms], arms.starts[grants.arms + 1])]
    sequence = sequence[ranked.open[sequence]]
    costs = arms.tokens * ranked.repeats
    take_in_order(sequence, costs, taken, limit, (arms.arm_of, grants.tokens.copy()))
    outcomes[taken] = IS_GRANTED
    first = sequence[taken[sequence]]
    rounds[first] = _granting_round(arms.arm_of[first], costs[first], grants)
    repeats = np.where(taken, ranked.repeats, 1)
    may = ranked.overall[ranked.open[ranked.overall]]
    granted = grants.granted[arms.arm_of[may]]
    for outcome, order in ((FILLS_BUDGET, may[granted]), (FILLS_QUOTA, may[~granted & mixed])):
        take_in_order(order, arms.tokens, taken, limit)
        outcomes[taken & (outcomes < 0)] = outcome
    return _Taking(outcomes, rounds, sequence, repeats)


def _granting_round(arm_of: np.ndarray, costs: np.ndarray, grants: _Grants) -> np.ndarray:
    """Return the round of the block in which each document begins, the documents being in the order taken."""
    if not len(arm_of):
        return np.zeros(0, dtype=np.int64)
    before = np.cumsum(costs) - costs
    new = np.flatnonzero(np.diff(arm_of, prepend=-1))
    used = before - np.repeat(before[new], np.diff(new, append=len(arm_of)))
    ends = np.cumsum(grants.tokens[grants.arms])
    place = np.empty(len(grants.tokens), dtype=np.int64)
    place[grants.arms] = np.arange(len(grants.arms))
    here = place[arm_of]
    # A document without tokens may begin where the grant ends: it belongs to the last block.
    last = np.searchsorted(grants.ends, ends)[here]
    start = ends[here] - grants.tokens[arm_of]
    return grants.rounds[np.minimum(np.searchsorted(grants.ends, start + used, side="right"), last)]


def _explain(
    candidates: Candidates, method: Within, grants: _Grants, ranked: _Ranked, quotas: Quotas, taking: _Taking
) -> Decisions:
    """Give every candidate its outcome, and the selected ones their place in training."""
    arms, outcomes = candidates.arms, taking.outcomes.copy()
    selected = outcomes >= 0
    rank = np.empty(len(selected), dtype=np.int64)
    rank[ranked.by_arm] = np.arange(len(rank)) - arms.starts[arms.arm_of[ranked.by_arm]] + 1
    order = np.full(len(rank), -1, dtype=np.int64)
    order[selected] = training_order(arms.doc_ids[selected], candidates.seed)
    fits = np.zeros(len(rank), dtype=bool)  # by rank and grant alone, if there were no quotas
    take_in_order(taking.sequence, arms.tokens * ranked.repeats, fits, (arms.arm_of, grants.tokens.copy()))
    cut = np.zeros(len(arms), dtype=np.int64)
    np.maximum.at(cut, arms.arm_of[selected], rank[selected])
    high = fits | (rank < cut[arms.arm_of])
    rejected = np.where(high, IS_OVER_BUDGET, IS_BELOW_CUT)
    rejected = np.where(grants.granted[arms.arm_of], rejected, IS_NOT_GRANTED)
    rejected = np.where(ranked.admitted, rejected, IS_NOT_ADMITTED)
    rejected = np.where(arms.available, rejected, IS_CONSUMED)
    outcomes[~selected] = rejected[~selected]
    weights = ranked.weights
    if isinstance(method, Keyed):
        weights = method.weights(candidates, ranked.keys, selected)
    return Decisions(
        arms=arms,
        selected=selected,
        rank=rank,
        order=order,
        scores=np.full(len(rank), np.nan) if candidates.scores is None else candidates.scores,
        repeats=np.where(selected, taking.repeats, 0),
        weights=np.where(selected, weights, 0.0),
        outcomes=outcomes,
        rounds=taking.rounds,
        quota_names=quotas.names,
        quota_of=quotas.quota_of,
    )


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers of the ranges ``start .. end - 1``, one range after another, int64."""
    sizes = ends - starts
    offsets = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return offsets + np.arange(int(sizes.sum()))
