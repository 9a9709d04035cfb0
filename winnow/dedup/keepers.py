"""Which document of a group of duplicates is kept.

In every component of verified pairs the documents are walked by priority: (source priority, most verified pairs first,
longest first, doc_id). A document is a duplicate of the first kept document with which it has a verified pair; if there
is none it is kept too. So a duplicate always resembles its keeper directly: no chains through third documents. The rule
is local to the component and independent of the order of its input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.dedup.positions import Positions
from winnow.errors import UserError


@dataclass(frozen=True)
class Keepers:
    """The keeper of each of N documents; positions refer to the ``ids`` that were given.

    ``component`` int64 ``[N]``: position of the smallest doc_id of the component. ``keeper`` int32 ``[N]``: position of
    the document that is kept for this one, itself if it is kept. ``similarity`` float64 ``[N]``: Jaccard similarity to
    the keeper, 1 for a kept document. ``group_size`` int32 ``[N]``: documents that share this keeper, itself included.
    """

    component: np.ndarray
    keeper: np.ndarray
    similarity: np.ndarray
    group_size: np.ndarray

    @property
    def duplicates(self) -> np.ndarray:
        """Positions of the documents that are not kept, int64, ascending."""
        return np.flatnonzero(self.keeper != np.arange(len(self.keeper)))


def assign_keepers(
    ids: np.ndarray,
    edges: np.ndarray,
    similarity: np.ndarray,
    source_priority: np.ndarray,
    characters: np.ndarray,
) -> Keepers:
    """Give every document its keeper.

    ``ids`` uint8 ``[N, 16]`` distinct; ``edges`` integer ``[M, 2]`` positions of verified pairs, in any order and
    direction, repeats allowed; ``similarity`` float ``[M]``; ``source_priority`` integer ``[N]``, smaller is preferred;
    ``characters`` integer ``[N]``. Raises ``UserError`` if an edge names a position outside ``ids`` or joins a document
    to itself.
    """
    from winnow.dedup import _graph_kernels

    count = len(ids)
    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    if len(edges) and (edges.min() < 0 or edges.max() >= count or (edges[:, 0] == edges[:, 1]).any()):
        raise UserError(
            f"an edge of the duplicate pairs does not join two of the {count} documents; verify the pairs anew"
        )
    low, high = edges.min(axis=1, initial=count), edges.max(axis=1, initial=-1)
    codes, first = np.unique(low * count + high, return_index=True)
    low, high, weights = codes // max(count, 1), codes % max(count, 1), np.asarray(similarity, np.float64)[first]

    # Adjacency: both directions of every pair, by document.
    degree = np.bincount(low, minlength=count) + np.bincount(high, minlength=count)
    starts = np.concatenate([[0], np.cumsum(degree)])
    neighbours, similarities = np.empty(2 * len(low), np.int64), np.empty(2 * len(low), np.float64)
    _graph_kernels.adjacency(low, high, weights, starts, neighbours, similarities)

    by_id = np.empty(count, np.int64)
    by_id[Positions(ids).order] = np.arange(count)
    linked = np.flatnonzero(degree)
    lengths = np.asarray(characters, np.int64)[linked]
    order = linked[np.lexsort((by_id[linked], -lengths, -degree[linked], source_priority[linked]))]
    rank = np.full(count, count, np.int64)
    rank[order] = np.arange(len(order))
    keeper, kept_similarity = np.arange(count), np.ones(count)
    _graph_kernels.walk(order, rank, starts, neighbours, similarities, keeper, kept_similarity)

    # The root of a component is its lowest position in the order of ids.
    parent = np.arange(count, dtype=np.int32)
    _graph_kernels.unite(parent, by_id[low], by_id[high])
    _graph_kernels.flatten(parent)
    of_id = np.empty(count, np.int64)
    of_id[by_id] = np.arange(count)
    return Keepers(
        component=of_id[parent[by_id]],
        keeper=keeper.astype(np.int32),
        similarity=kept_similarity,
        group_size=np.bincount(keeper, minlength=count)[keeper].astype(np.int32),
    )
