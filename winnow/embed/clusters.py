"""Spherical k-means over document vectors: fitted once, then only assigned to."""

from __future__ import annotations

import logging

import numpy as np
import xxhash

from winnow.errors import UserError

logger = logging.getLogger(__name__)

# More points a centroid hardly move it: faiss's own default.
POINTS_PER_CENTROID = 256
# Rows of one matrix product in `assign`; fixed, so that a row's rounding does not depend on how many come with it.
BLOCK = 1024


def default_k(documents: int) -> int:
    """Return the usual number of clusters: one for each hundred documents, within 8 and 1,000 (and the documents)."""
    return max(1, min(documents, 1000, max(8, round(documents / 100))))


def fit_centroids(vectors: np.ndarray, k: int, seed: int, iterations: int = 25) -> np.ndarray:
    """Fit spherical k-means and return unit centroids, float32 ``[k, D]``.

    ``vectors`` is float32 ``[N, D]`` of unit length. Rows are put in the order of a seeded hash of their own bytes, and
    at most 256 a centroid are used, the first in that order: the result depends on the set of vectors and the seed,
    not on the order they come in. A cluster left empty in an iteration takes half of a large one (faiss).
    Raises UserError when k is not within 1 and N.

    Source: Dhillon and Modha 2001, "Concept decompositions for large sparse text data"; faiss ``Kmeans(spherical)``.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not 1 <= k <= len(vectors):
        raise UserError(f"clusters: k = {k} for {len(vectors)} vectors; set k between 1 and the number of documents")
    keys = np.fromiter(
        (xxhash.xxh3_64_intdigest(row.tobytes(), seed=seed & (2**64 - 1)) for row in vectors),
        dtype=np.uint64,
        count=len(vectors),
    )
    sample = vectors[np.argsort(keys, kind="stable")[: k * POINTS_PER_CENTROID]]
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=iterations,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CENTROID,
    )
    kmeans.train(sample)
    logger.info("fitted %d centroids on %d of %d vectors", k, len(sample), len(vectors))
    return np.ascontiguousarray(kmeans.centroids, dtype=np.float32)


def assign(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each vector's nearest centroid and its distance: int32 ``[N]`` and float32 ``[N]`` in [0, 2].

    ``vectors`` float32 ``[N, D]`` and ``centroids`` float32 ``[k, D]`` are of unit length; distance = 1 - cosine. Of
    equally near centroids the lower index wins. A row's result does not depend on the other rows.
    """
    cluster = np.empty(len(vectors), dtype=np.int32)
    distance = np.empty(len(vectors), dtype=np.float32)
    block = np.zeros((BLOCK, centroids.shape[1]), dtype=np.float32)
    transposed = np.ascontiguousarray(centroids.T, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        block[: len(rows)] = rows
        nearest = np.argmax(block @ transposed, axis=1)[: len(rows)]
        cluster[start : start + BLOCK] = nearest
        cosine = np.einsum("nd,nd->n", block[: len(rows)], centroids[nearest], dtype=np.float64)
        distance[start : start + BLOCK] = np.clip(1.0 - cosine, 0.0, 2.0)
    return cluster, distance
