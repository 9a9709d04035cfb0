"""Compiled loops over pairs of documents: components, keepers and batches. Imported only inside functions."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def components(edges, documents):
    """Return for each of N documents the root int64 ``[N]`` of its component; the same root means connected.

    Union by lower position with path halving. Which member is the root depends on the numbering, so callers relabel.
    """
    parent = np.arange(documents)
    for edge in range(len(edges)):
        a, b = np.int64(edges[edge, 0]), np.int64(edges[edge, 1])
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[max(a, b)] = min(a, b)
    for i in range(documents):
        parent[i] = parent[parent[i]]  # a parent is never above its child, so it is already a root
    return parent


@njit(nogil=True, cache=True)
def walk(order, rank, starts, neighbours, weights, keeper, similarity):
    """Walk the documents by priority; each joins its first kept neighbour, else stays its own keeper.

    ``order`` int64 are the documents that have a neighbour, ``rank`` int64 ``[N]`` their places in it, ``starts`` int64
    ``[N + 1]`` with ``neighbours`` and ``weights`` the adjacency. ``keeper`` comes in as ``0..N - 1``.
    """
    for place in range(len(order)):
        document = order[place]
        best = place
        for slot in range(starts[document], starts[document + 1]):
            other = neighbours[slot]
            if keeper[other] == other and rank[other] < best:
                best = rank[other]
                similarity[document] = weights[slot]
        keeper[document] = order[best]


@njit(nogil=True, cache=True)
def batch_bounds(left, right, weights, limit):
    """Cut a list of pairs into runs whose distinct documents weigh at most ``limit``; return the cuts int64.

    A pair that is heavier than the limit by itself gets a run of its own.
    """
    seen = np.full(len(weights), -1, np.int64)
    cuts = np.empty(len(left) + 1, np.int64)
    runs, load = 0, 0
    cuts[0] = 0
    for pair in range(len(left)):
        a, b = left[pair], right[pair]
        extra = (0 if seen[a] == runs else weights[a]) + (0 if seen[b] == runs else weights[b])
        if load + extra > limit and pair > cuts[runs]:
            runs += 1
            cuts[runs] = pair
            load, extra = 0, weights[a] + weights[b]
        load += extra
        seen[a], seen[b] = runs, runs
    cuts[runs + 1 if len(left) else 0] = len(left)
    return cuts[: runs + 2 if len(left) else 1].copy()
