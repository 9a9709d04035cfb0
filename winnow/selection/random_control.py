"""The control: equal-budget random documents, drawn by seeded hash under the same budget rules as the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.identity import digest_ids, seeded_keys
from winnow.selection.budget import make_quotas, sorted_by, take_in_order


@dataclass(frozen=True, eq=False)
class RandomControl:
    """A random selection: ``selected`` bool ``[N]`` over the candidates, its documents, tokens and digest.

    ``digest`` is the SHA-256 of the set of selected ids, whatever their order.
    """

    selected: np.ndarray
    documents: int
    tokens: int
    digest: str


def random_control(
    doc_ids: np.ndarray,
    tokens: np.ndarray,
    token_budget: int,
    seed: int,
    sources: np.ndarray | None = None,
    source_tokens: Mapping[str, int] | None = None,
    available: np.ndarray | None = None,
) -> RandomControl:
    """Draw documents at random until none that is left fits into the budget.

    ``doc_ids`` uint8 ``[N, 16]``, ``tokens`` int64 ``[N]``; ``sources`` and ``source_tokens`` as in
    :func:`~winnow.selection.decide.decide`: then the draw is stratified by source. ``available`` bool ``[N]``: what may
    be drawn (all). The same documents give the same draw in whatever order they come.
    """
    counts = np.ascontiguousarray(tokens, dtype=np.int64)
    quotas = make_quotas(len(counts), token_budget, sources, source_tokens)
    selected = np.zeros(len(counts), dtype=bool)
    order = sorted_by(doc_ids, seeded_keys(doc_ids, seed, "control"))
    order = order if available is None else order[available[order]]
    take_in_order(order, counts, selected, quotas.limit())
    return RandomControl(
        selected, int(selected.sum()), int(counts[selected].sum()), digest_ids(np.ascontiguousarray(doc_ids)[selected])
    )
