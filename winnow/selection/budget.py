"""Whole documents into a token budget: the rules that a policy and its random control share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.identity import seeded_keys


def check_budget(budget: int, pool_tokens: int) -> None:
    """Raise :class:`UserError` unless ``0 < budget <= pool_tokens``; both in tokens."""
    if budget < 1:
        raise UserError(f"token budget: {budget:,}; expected at least 1")
    if budget > pool_tokens:
        raise UserError(
            f"token budget: {budget:,}, but the candidate pool has {pool_tokens:,} tokens; "
            f"lower the budget or add documents"
        )


@dataclass(frozen=True, eq=False)
class Quotas:
    """Tokens a selection may take: ``quota_of`` int64 ``[N]`` is each candidate's quota, an index into ``limits``.

    Without a mixture there is one quota, the budget; with one, a quota a source.
    """

    names: list[str]
    quota_of: np.ndarray
    limits: list[int]


def make_quotas(
    count: int, token_budget: int, sources: np.ndarray | None = None, source_tokens: Mapping[str, int] | None = None
) -> Quotas:
    """Return the quotas over ``count`` candidates.

    ``sources`` str ``[N]`` and ``source_tokens`` (tokens a source, summing to the budget) come together or not at all.
    A source that ``source_tokens`` does not name may take nothing. Raises :class:`UserError` when the sum is not the
    budget.
    """
    if sources is None or source_tokens is None:
        if sources is not None or source_tokens is not None:
            raise ValueError("sources and source_tokens come together")
        return Quotas([""], np.zeros(count, dtype=np.int64), [token_budget])
    total = sum(source_tokens.values())
    if total != token_budget:
        raise UserError(f"mixture: its sources get {total:,} tokens, the budget is {token_budget:,}; plan it again")
    labels = np.asarray(sources, dtype=str)
    if len(labels) != count:
        raise ValueError(f"{count} candidates, but {len(labels)} sources")
    names, quota_of = np.unique(labels, return_inverse=True)
    return Quotas(
        names.tolist(), quota_of.astype(np.int64), [int(source_tokens.get(name, 0)) for name in names.tolist()]
    )


def training_order(doc_ids: np.ndarray, seed: int) -> np.ndarray:
    """Return a shuffle of uint8 ``[N, 16]`` documents: the place of each in training, int64 ``[N]``, ``0 .. N-1``."""
    place = np.empty(len(doc_ids), dtype=np.int64)
    place[sorted_by(doc_ids, seeded_keys(doc_ids, seed, "order"))] = np.arange(len(doc_ids))
    return place


def sorted_by(doc_ids: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Return the positions sorted by the first key, then the next ..., ties by doc_id; all ascending."""
    # Two native integers a document sort many times faster than one structured value.
    halves = np.ascontiguousarray(doc_ids).view(">u8").reshape(-1, 2).astype(np.uint64)
    return np.lexsort((halves[:, 1], halves[:, 0], *reversed(keys)))
