"""Compiled loops over cosines of blocks of documents. Imported only inside functions.

A float32 matrix product only proposes: where it lies so near to a decision that its rounding could tip it, the cosine
is computed anew in float64, in an order that the code of a kind of CPU fixes. So no decision depends on threads, blocks
or the library that multiplies.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel


@kernel(fastmath={"reassoc"})
def _cosine(left, right):
    """Return the cosine of two unit float32 ``[D]``; products are exact in float64, vector lanes are summed apart."""
    total = 0.0
    for place in range(len(left)):
        total += np.float64(left[place]) * np.float64(right[place])
    return min(total, 1.0)


@kernel
def cosines(left, right):
    """Return the cosine of each row of ``left`` with the same row of ``right`` (unit float32 ``[N, D]``), float64."""
    found = np.empty(len(left))
    for row in range(len(left)):
        found[row] = _cosine(left[row], right[row])
    return found


@kernel
def _root(parent, member):
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@kernel
def roots(parent):
    """Return the root of every member's component, int64 ``[N]``."""
    found = np.empty(len(parent), np.int64)
    for member in range(len(parent)):
        found[member] = _root(parent, member)
    return found


@kernel
def compare(
    products, vectors, row_start, column_start, thresholds, margin, chosen, nearest, at, removed, keeper, parent
):
    """Take in one block of a cluster's cosines, each document (row) with documents before it (columns).

    The cluster's ``vectors`` float32 ``[N, D]`` stand in the order in which they are walked; ``products`` float32 are
    the rows from ``row_start`` times those from ``column_start``. Blocks come by rows, then columns, the diagonal last:
    then whether an earlier document is kept is settled before it is asked. ``thresholds`` float64 ``[E]`` fall,
    ``margin`` bounds the rounding of a product, ``chosen`` is the threshold that ``keeper`` and ``parent`` follow.

    Updated in place, all ``[N]``: ``nearest`` float64 and ``at`` int64, the greatest cosine with an earlier document
    and the first that has it; ``removed`` uint64, bit e set when an earlier document that is kept at threshold e is
    more similar than it; ``keeper`` int64, the first such at the chosen threshold (-1: none); ``parent`` int64, the
    union-find over all pairs above the chosen one.
    """
    count = len(thresholds)
    lowest = thresholds[count - 1] - margin
    every = np.uint64(0xFFFFFFFFFFFFFFFF)
    chosen_bit = np.uint64(1) << np.uint64(chosen)
    for row in range(products.shape[0]):
        document = row_start + row
        columns = row if column_start == row_start else products.shape[1]
        for column in range(columns):
            cosine = np.float64(products[row, column])
            if cosine <= lowest and cosine <= nearest[document] - margin:
                continue
            other = column_start + column
            exact = False
            if nearest[document] < 1.0 and cosine > nearest[document] - margin:
                cosine, exact = _cosine(vectors[document], vectors[other]), True
                if cosine > nearest[document]:
                    nearest[document], at[document] = cosine, other
            first = count
            while first > 0:
                if not exact and abs(cosine - thresholds[first - 1]) <= margin:
                    cosine, exact = _cosine(vectors[document], vectors[other]), True
                if cosine <= thresholds[first - 1]:
                    break
                first -= 1
            if first == count:
                continue
            above = every << np.uint64(first)
            removed[document] |= ~removed[other] & above
            if above & chosen_bit:
                if keeper[document] < 0 and not removed[other] & chosen_bit:
                    keeper[document] = other
                a, b = _root(parent, document), _root(parent, other)
                parent[max(a, b)] = min(a, b)
