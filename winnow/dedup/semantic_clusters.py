"""The clusters inside which semantic duplicates are looked for: k-means on a sample, oversize clusters split.

Two documents in different clusters are never compared, so clusters are as large as the quadratic work inside them
allows. They have nothing to do with the bandit's arms (table ``clusters``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import xxhash

from winnow.embed.clusters import POINTS_PER_CENTROID, assign, fit_centroids
from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys

log = logging.getLogger(__name__)

DOCUMENTS_A_CLUSTER = 5_000
"""What a planned cluster holds on average: comparing inside it costs about 2 million multiplications a document."""

ROWS = 8_192
"""Vectors that are checked and hashed at a time."""


@dataclass(frozen=True, eq=False)
class SemanticClusters:
    """N documents in their clusters; positions refer to the order in which they were given.

    ``ids`` uint8 ``[N, 16]``; ``vectors`` float32 ``[N, D]`` of unit length; ``priority`` int64 ``[N]``, smaller is
    preferred; ``original`` int64 ``[N]``: of the documents with this very vector the first by (priority, doc_id), the
    document itself if it is that one; ``cluster`` int32 ``[N]``; ``distance`` float32 ``[N]``: 1 - cosine to the
    cluster's centroid.
    """

    ids: np.ndarray
    vectors: np.ndarray
    priority: np.ndarray
    original: np.ndarray
    cluster: np.ndarray
    distance: np.ndarray

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.cluster.max()) + 1 if len(self.cluster) else 0

    @property
    def largest(self) -> int:
        """Documents in the largest cluster."""
        return int(np.bincount(self.cluster).max()) if len(self.cluster) else 0

    def walks(self) -> list[np.ndarray]:
        """Return each cluster's documents (those with distinct vectors), int64, in the order in which they are walked.

        That order is (priority, distance to the centroid falling, doc_id): the farthest first, as in the paper's
        released code.
        """
        distinct = np.flatnonzero(self.original == np.arange(len(self.ids)))
        keys = ids_as_keys(self.ids[distinct])
        cluster = self.cluster[distinct]
        order = np.lexsort((keys["low"], keys["high"], -self.distance[distinct], self.priority[distinct], cluster))
        cuts = np.flatnonzero(np.diff(cluster[order])) + 1
        return np.split(distinct[order], cuts) if len(distinct) else []


def planned_clusters(documents: int) -> int:
    """Return the number of clusters for so many documents: one for each 5,000, at least 1."""
    return max(1, -(-documents // DOCUMENTS_A_CLUSTER))


def cluster_documents(
    ids: np.ndarray,
    vectors: np.ndarray,
    priority: np.ndarray | None = None,
    clusters: int = 0,
    max_cluster: int = 20_000,
    seed: int = 0,
) -> SemanticClusters:
    """Put documents into clusters by spherical k-means.

    ``ids`` uint8 ``[N, 16]`` distinct; ``vectors`` float32 ``[N, D]`` of unit length, in memory or mapped; ``priority``
    integer ``[N]``, all equal if absent. ``clusters`` 0 plans them (:func:`planned_clusters`). Centroids are fitted on
    256 documents each, the first by a seeded hash of their ids, all others are only assigned. A cluster of more than
    ``max_cluster`` documents is split by k-means of its own members, again until it is small enough or no longer falls
    apart; then the finer centroids count. Documents with bitwise equal vectors are clustered as one. The result depends
    on the set of documents, not on their order. Raises :class:`UserError` for a vector that is not of unit length.

    Source: Abbas et al. 2023, "SemDeDup" (arXiv 2303.09540), section 3; fitting on a sample as NeMo Curator does.
    """
    priority = np.zeros(len(ids), np.int64) if priority is None else np.asarray(priority, np.int64)
    original = _originals(ids, vectors, priority)
    distinct = np.flatnonzero(original == np.arange(len(ids)))
    cluster, distance = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
    waiting = [(distinct, min(clusters or planned_clusters(len(ids)), len(distinct)))] if len(distinct) else []
    found = 0
    while waiting:
        members, k = waiting.pop()
        where, distance[members] = _kmeans(ids, vectors, members, k, seed)
        for part in range(k):
            inside = members[where == part]
            if len(inside) > max_cluster and (k == 1 or len(inside) < len(members)):
                waiting.append((inside, _pieces(len(inside), max_cluster)))
            elif len(inside):
                cluster[inside] = found
                found += 1
    log.info("%d documents (%d distinct vectors) in %d clusters", len(ids), len(distinct), found)
    return SemanticClusters(ids, vectors, priority, original, cluster[original], distance[original])


def _pieces(documents: int, max_cluster: int) -> int:
    """Return into how many clusters one that is too large is split, so that few of them are too large again."""
    return -(-documents // max(1, min(DOCUMENTS_A_CLUSTER, max_cluster // 2)))


def _kmeans(
    ids: np.ndarray, vectors: np.ndarray, members: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit k centroids on a sample of the members; return each member's centroid and distance."""
    keys = ids_as_keys(ids[members])
    order = np.lexsort((keys["low"], keys["high"], seeded_keys(ids[members], seed, "semantic")))
    sample = np.sort(members[order[: k * POINTS_PER_CENTROID]])  # sorted: a mapped file is read forwards
    centroids = fit_centroids(vectors[sample], k, seed)
    where, distance = np.empty(len(members), np.int32), np.empty(len(members), np.float32)
    for start in range(0, len(members), ROWS):
        rows = slice(start, start + ROWS)
        where[rows], distance[rows] = assign(vectors[members[rows]], centroids)
    return where, distance


def _originals(ids: np.ndarray, vectors: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Return for each document the first by (priority, doc_id) that has the same vector, int64 ``[N]``; check them."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(ids):
        raise UserError(
            f"semantic duplicates: {len(ids)} documents, vectors {vectors.dtype} {vectors.shape}; "
            "give one float32 row a document"
        )
    hashes = np.empty((len(ids), 2), np.uint64)
    for start in range(0, len(ids), ROWS):
        rows = np.ascontiguousarray(vectors[start : start + ROWS])
        length = np.linalg.norm(rows, axis=1)
        if len(bad := np.flatnonzero(~(np.abs(length - 1) < 1e-3))):
            raise UserError(
                f"semantic duplicates: the vector of row {start + bad[0]} has length {length[bad[0]]:.4g}; "
                "give vectors of length 1"
            )
        raw = b"".join(xxhash.xxh3_128_digest(row) for row in rows)
        hashes[start : start + ROWS] = np.frombuffer(raw, np.uint64).reshape(-1, 2)
    keys = ids_as_keys(ids)
    order = np.lexsort((keys["low"], keys["high"], priority, hashes[:, 0], hashes[:, 1]))
    fresh = np.ones(len(ids), bool)
    fresh[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    original = np.empty(len(ids), np.int64)
    original[order] = order[fresh][np.cumsum(fresh) - 1] if len(ids) else order
    return original
