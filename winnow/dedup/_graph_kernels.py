"""Compiled loops over pairs of documents: components, keepers, similarities. Imported only inside functions."""

from __future__ import annotations

from winnow.compiled import kernel


@kernel
def unite(parent, left, right):
    """Join the trees of pairs of documents in ``parent`` int32 ``[N]``, which begins as ``0..N - 1``.

    Union by lower position with path halving: the root of a component is its smallest member.
    """
    for pair in range(len(left)):
        a, b = left[pair], right[pair]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[max(a, b)] = min(a, b)


@kernel
def flatten(parent):
    """Let every document point to the root of its component."""
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]  # a parent is never above its child, so it is already a root


@kernel
def adjacency(left, right, weights, starts, neighbours, similarities):
    """Fill the adjacency of N documents from pairs: both directions of each, by document.

    ``starts`` int64 ``[N + 1]`` comes in as where the entries of a document begin, and leaves so.
    """
    for pair in range(len(left)):
        for a, b in ((left[pair], right[pair]), (right[pair], left[pair])):
            neighbours[starts[a]] = b
            similarities[starts[a]] = weights[pair]
            starts[a] += 1
    for i in range(len(starts) - 1, 0, -1):
        starts[i] = starts[i - 1]
    starts[0] = 0


@kernel
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


@kernel
def gather(hashes, starts, ends, out):
    """Lay the pieces ``hashes[starts[i]:ends[i]]`` end to end into ``out``, uint64 of their length in all."""
    at = 0
    for i in range(len(starts)):
        for source in range(starts[i], ends[i]):
            out[at] = hashes[source]
            at += 1


STEPS = 64
"""Steps of a merge between two looks at whether the threshold can still be reached."""


@kernel
def jaccard(left, right, one, other, threshold, first, last, out):
    """Fill ``out`` float64 ``[P]`` with the similarity of sets, -1 where it is certainly below ``threshold``.

    A pair's left set is of ``one``, its right of ``other``: (starts, ends, hashes), set i the sorted
    ``hashes[starts[i]:ends[i]]``; two empty ones have similarity 0. What bounds a similarity from
    above is computed as the similarity itself is, and division rounds monotonically: no pair at the threshold is lost.
    """
    starts_a, ends_a, hashes_a = one
    starts_b, ends_b, hashes_b = other
    for pair in range(first, last):
        a, end_a = starts_a[left[pair]], ends_a[left[pair]]
        b, end_b = starts_b[right[pair]], ends_b[right[pair]]
        total, shared = end_a - a + end_b - b, 0
        if total == 0:
            out[pair] = 0.0 if threshold <= 0.0 else -1.0
            continue
        alive = True
        while a < end_a and b < end_b:
            most = shared + min(end_a - a, end_b - b)
            if most / (total - most) < threshold:
                alive = False
                break
            stop = min(STEPS, end_a - a, end_b - b)
            for _ in range(stop):
                # Without branches: which list advances is a coin toss.
                x, y = hashes_a[a], hashes_b[b]
                shared += int(x == y)
                a += int(x <= y)
                b += int(y <= x)
        similarity = shared / (total - shared)
        out[pair] = similarity if alive and similarity >= threshold else -1.0
