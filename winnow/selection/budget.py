"""Whole documents into a token budget: the rules that a policy and its random control share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import seeded_keys

Limit = tuple[np.ndarray, np.ndarray]


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

    def limit(self) -> Limit:
        """Return the quotas as a fresh limit of :func:`take_in_order`."""
        return self.quota_of, np.array(self.limits, dtype=np.int64)


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
    if len(sources) != count:
        raise ValueError(f"{count} candidates, but {len(sources)} sources")
    names, quota_of = coded(sources)
    return Quotas(names, quota_of, [int(source_tokens.get(name, 0)) for name in names])


def coded(labels: np.ndarray | pa.Array | pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Return the names among N string labels, sorted, and for each label the place of its name, int64 ``[N]``."""
    array = labels if isinstance(labels, pa.Array | pa.ChunkedArray) else pa.array(np.asarray(labels), pa.string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    found = array if isinstance(array, pa.DictionaryArray) else array.dictionary_encode()
    names = found.dictionary.to_pylist()
    place = np.empty(len(names), dtype=np.int64)
    place[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(len(names))
    return sorted(names), place[found.indices.to_numpy(zero_copy_only=False)]


def take_in_order(
    order: np.ndarray, costs: np.ndarray, taken: np.ndarray, limit: Limit, other: Limit | None = None
) -> None:
    """Take documents in ``order`` (int64 positions) while they fit; one that does not is skipped, later ones may fit.

    ``costs`` int64 ``[N]`` in tokens. A limit is the group of each document, int64 ``[N]``, and what each group has
    left, int64. What is left and ``taken`` bool ``[N]`` are updated in place.
    """
    from winnow.selection import _kernels as kernels

    if other is None:
        kernels.take(order, costs, *limit, taken)
    else:
        kernels.take_within_two(order, costs, *limit, *other, taken)


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
