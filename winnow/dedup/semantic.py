"""Semantic duplicates: documents whose embeddings point the same way, by cosine inside k-means clusters (SemDeDup).

In each cluster the documents are walked from the one farthest from the centroid to the nearest, ties by doc_id (a
source's priority, where sources have different ones, comes first). With the threshold ``t = 1 - epsilon``:

``paper``   a document is a duplicate of the first document of the walk that is kept and has a cosine above t with it;
            else it is kept. So of each group the one with the lowest cosine to the centroid is kept (Abbas et al. 2023,
            section 3), and every duplicate resembles its keeper directly: the paper does not say what a group is when
            similarity chains, and here it is what one kept document stands for.
``code``    a document is removed when its greatest cosine to *any* earlier document of the walk, kept or not, exceeds
            t: the rule of the released code. Its keeper is where the chain of most similar earlier documents ends; the
            cosine to it can be below t.

``code`` removes all that ``paper`` removes, and more where similarity chains. Both come out of one pass.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa

from winnow.config import Semantic
from winnow.dedup.semantic_clusters import ROWS, SemanticClusters, planned_clusters
from winnow.embed.clusters import POINTS_PER_CENTROID, assign, fit_centroids
from winnow.errors import UserError
from winnow.identity import digest, ids_as_keys, seeded_keys

log = logging.getLogger(__name__)

SEMANTIC_VERSION = "1"
"""Raise it when the method changes: all documents are then compared anew."""

VARIANTS = ("paper", "code")
EPSILONS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3)
"""Where the kept share is counted, besides the epsilon that is asked for."""

BLOCK = 2_048
"""Rows and columns of one matrix product: 16 MiB of cosines at a time, whatever the size of a cluster."""


def semantic_version(settings: Semantic) -> str:
    """Return the version of the method with its settings; ``enabled`` and ``filter`` change nothing that is found."""
    return digest([SEMANTIC_VERSION, settings.model_dump(mode="json", exclude={"enabled", "filter"})])[:16]


@dataclass(frozen=True, eq=False)
class SemanticDuplicates:
    """What was found at one epsilon by one variant; positions refer to ``clusters``, N documents.

    ``keeper`` int64 ``[N]``: the document that is kept for this one, itself if it is kept. ``similarity`` float64
    ``[N]``: cosine to the keeper, 1 for a kept document. ``component`` int64 ``[N]``: the document with the smallest
    doc_id among those connected by pairs above the threshold. ``group_size`` int64 ``[N]``: documents that share the
    keeper, itself included. ``nearest`` int64 ``[N]``: the earlier document of the walk with the greatest cosine, and
    ``nearest_similarity`` float64 ``[N]`` that cosine; -1 and NaN for the first of a cluster. ``counted``: documents
    kept by (variant, epsilon).
    """

    clusters: SemanticClusters
    variant: str
    epsilon: float
    keeper: np.ndarray
    similarity: np.ndarray
    component: np.ndarray
    group_size: np.ndarray
    nearest: np.ndarray
    nearest_similarity: np.ndarray
    counted: dict[tuple[str, float], int]

    @property
    def kept(self) -> np.ndarray:
        """Positions of the documents that are kept, int64, ascending."""
        return np.flatnonzero(self.keeper == np.arange(len(self.keeper)))

    @property
    def removed(self) -> np.ndarray:
        """Positions of the semantic duplicates, int64, ascending."""
        return np.flatnonzero(self.keeper != np.arange(len(self.keeper)))

    @property
    def grouped(self) -> np.ndarray:
        """Positions of the documents that have a pair above the threshold, int64, ascending."""
        return np.flatnonzero(np.bincount(self.component, minlength=len(self.component))[self.component] > 1)

    def kept_share(self, epsilon: float | None = None) -> float:
        """Return the share of documents kept at another epsilon (this one if None); 1 without documents.

        For ``code`` every epsilon is known; for ``paper`` those of the sweep, another one is compared for.
        """
        if not len(self.keeper):
            return 1.0
        epsilon = self.epsilon if epsilon is None else _checked(epsilon)
        if (self.variant, epsilon) in self.counted:
            return self.counted[self.variant, epsilon] / len(self.keeper)
        if self.variant == "code":
            return 1.0 - float(np.mean(self.nearest_similarity > 1.0 - epsilon))
        return self.rethreshold(epsilon).kept_share()

    def rethreshold(self, epsilon: float) -> SemanticDuplicates:
        """Return what is found at another epsilon in the same clusters; it costs one more pass over the cosines."""
        return find_semantic_duplicates(self.clusters, epsilon, self.variant)

    def sweep(self) -> pa.Table:
        """Return the kept share of both variants by epsilon: variant, epsilon, documents, kept, kept_share."""
        rows, documents = sorted(self.counted.items()), len(self.keeper)
        return pa.table(
            {
                "variant": pa.array([variant for (variant, _), _ in rows], pa.string()),
                "epsilon": pa.array([epsilon for (_, epsilon), _ in rows], pa.float64()),
                "documents": pa.array([documents] * len(rows), pa.int64()),
                "kept": pa.array([kept for _, kept in rows], pa.int64()),
                "kept_share": pa.array([kept / documents if documents else 1.0 for _, kept in rows], pa.float64()),
            }
        )

    def near_threshold(self, pairs: int = 3) -> np.ndarray:
        """Return documents whose greatest cosine to an earlier one lies next to the threshold, int64 ``[P]``.

        Up to ``pairs`` above it, the least similar first, then up to ``pairs`` not above it, the most similar first.
        Ties go to the smaller doc_id.
        """
        keys = ids_as_keys(self.clusters.ids)
        order = np.lexsort((keys["low"], keys["high"], self.nearest_similarity))
        order = order[: np.count_nonzero(self.nearest >= 0)]  # NaN sorts last
        above = self.nearest_similarity[order] > 1.0 - self.epsilon
        return np.concatenate([order[above][:pairs], order[~above][::-1][:pairs]])


def find_semantic_duplicates(
    clusters: SemanticClusters, epsilon: float, variant: str = "paper", epsilons: tuple[float, ...] = EPSILONS
) -> SemanticDuplicates:
    """Compare the documents of each cluster by cosine and say which are duplicates of which.

    Cosines are float32 products in blocks of 2,048 x 2,048; one that rounding could put on the wrong side of a
    threshold is computed anew in float64, so that threads and blocks decide nothing. Memory: one cluster's vectors and
    a block, and about 100 bytes a document. The kept share is counted at ``epsilons`` too, for both variants. Raises
    :class:`UserError` for an epsilon outside 0 to 1 or an unknown variant.

    Source: Abbas et al. 2023, "SemDeDup" (arXiv 2303.09540), section 3 (``paper``); facebookresearch/SemDeDup and NeMo
    Curator (``code``).
    """
    if variant not in VARIANTS:
        raise UserError(f"semantic duplicates: no variant '{variant}'; there are {', '.join(VARIANTS)}")
    grid = np.array(sorted({_checked(epsilon), *map(_checked, epsilons)}))
    chosen = int(np.searchsorted(grid, epsilon))
    count = len(clusters.ids)
    nearest, nearest_similarity = np.full(count, -1), np.full(count, np.nan)
    removed, keeper, root = np.zeros(count, np.uint64), np.arange(count), np.arange(count)
    for walk in clusters.walks():
        found = _compare(np.ascontiguousarray(clusters.vectors[walk]), 1.0 - grid, chosen)
        other, nearest_similarity[walk], removed[walk], first_kept, member = found
        nearest[walk] = np.where(other >= 0, walk[other], -1)
        keeper[walk] = np.where(first_kept >= 0, walk[first_kept], walk)
        root[walk] = walk[member]
    copies = np.flatnonzero(clusters.original != np.arange(count))
    source = clusters.original[copies]
    nearest[copies], nearest_similarity[copies] = source, 1.0
    removed[copies] = np.uint64(0xFFFFFFFFFFFFFFFF)
    keeper[copies], root[copies] = keeper[source], root[source]
    if variant == "code":
        keeper = _ends(np.where(nearest_similarity > 1.0 - epsilon, nearest, np.arange(count)))
    counted = {}
    for bit, value in enumerate(grid.tolist()):
        counted["paper", value] = count - int(np.count_nonzero(removed >> np.uint64(bit) & np.uint64(1)))
        counted["code", value] = count - int(np.count_nonzero(nearest_similarity > 1.0 - value))
    return SemanticDuplicates(
        clusters=clusters,
        variant=variant,
        epsilon=epsilon,
        keeper=keeper,
        similarity=_similarities(clusters.vectors, keeper),
        component=_smallest(clusters.ids, root),
        group_size=np.bincount(keeper, minlength=count)[keeper],
        nearest=nearest,
        nearest_similarity=nearest_similarity,
        counted=counted,
    )


def find_prototypes(
    found: SemanticDuplicates, share: float, clusters: int = 0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most prototypical of the documents that were kept, to drop so that ``share`` of them is left.

    What was kept is clustered anew, and documents are dropped by their distance to the nearest centroid, the smallest
    first, over all clusters together, ties by doc_id, until ``ceil(share * kept)`` are left. Returns positions int64,
    ascending, and the distances 1 - cosine, float32 ``[N]``, NaN for the duplicates.

    Source: Sorscher et al. 2022, "Beyond neural scaling laws" (arXiv 2206.14486), self-supervised prototypes;
    Tirumala et al. 2023, "D4" (arXiv 2308.12284), section 3: after SemDeDup, on new clusters.
    """
    if not 0 < share <= 1:
        raise UserError(f"semantic duplicates: prototypes_kept = {share}; give a share above 0 and at most 1")
    kept, vectors = found.kept, found.clusters.vectors
    ids = found.clusters.ids[kept]
    keys = ids_as_keys(ids)
    k = min(clusters or planned_clusters(len(kept)), len(kept))
    distance = np.full(len(found.keeper), np.nan, np.float32)
    if k:
        drawn = np.lexsort((keys["low"], keys["high"], seeded_keys(ids, seed, "prototypes")))[: k * POINTS_PER_CENTROID]
        centroids = fit_centroids(vectors[np.sort(kept[drawn])], k, seed)
        for start in range(0, len(kept), ROWS):
            rows = kept[start : start + ROWS]
            distance[rows] = assign(vectors[rows], centroids)[1]
    # The share is a decimal number: 0.7 of 10 must not become 8 by rounding up 7.000000000000001.
    left = ceil(round(share * len(kept), 6))
    nearest_first = np.lexsort((keys["low"], keys["high"], distance[kept]))
    return np.sort(kept[nearest_first[: len(kept) - left]]), distance


def _compare(
    vectors: np.ndarray, thresholds: np.ndarray, chosen: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compare one cluster's documents in the order of their walk, block by block; see ``_semantic_kernels.compare``."""
    from winnow.dedup import _semantic_kernels

    count, dimension = vectors.shape
    # The bound of Higham 2002, section 3.1, for a sum of `dimension` products of float32 at vectors of unit length.
    margin = 1.01 * (dimension + 2) * 2.0**-24
    nearest, at = np.full(count, -np.inf), np.full(count, -1)
    removed, keeper, parent = np.zeros(count, np.uint64), np.full(count, -1), np.arange(count)
    for start in range(0, count, BLOCK):
        rows = vectors[start : start + BLOCK]
        for other in range(0, start + 1, BLOCK):
            products = rows @ vectors[other : other + BLOCK].T
            _semantic_kernels.compare(
                products, vectors, start, other, thresholds, margin, chosen, nearest, at, removed, keeper, parent
            )
    nearest[at < 0] = np.nan
    return at, nearest, removed, keeper, _semantic_kernels.roots(parent)


def _similarities(vectors: np.ndarray, keeper: np.ndarray) -> np.ndarray:
    """Return the cosine of every document with its keeper, 1 where it is its own."""
    from winnow.dedup import _semantic_kernels

    similarity = np.ones(len(keeper))
    removed = np.flatnonzero(keeper != np.arange(len(keeper)))
    for start in range(0, len(removed), ROWS):
        rows = removed[start : start + ROWS]
        similarity[rows] = _semantic_kernels.cosines(vectors[rows], vectors[keeper[rows]])
    return similarity


def _ends(follow: np.ndarray) -> np.ndarray:
    """Return where the chain of each place ends, int64; ``follow`` names the next one, itself at an end."""
    while not np.array_equal(further := follow[follow], follow):
        follow = further
    return follow


def _smallest(ids: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return for each document the one with the smallest id among those of the same root, int64."""
    keys = ids_as_keys(ids)
    by_id = np.lexsort((keys["low"], keys["high"]))
    _, first, member = np.unique(root[by_id], return_index=True, return_inverse=True)
    smallest = np.empty(len(root), np.int64)
    smallest[by_id] = by_id[first][member]
    return smallest


def _checked(epsilon: float) -> float:
    if not 0 < epsilon < 1:
        raise UserError(f"semantic duplicates: epsilon {epsilon} is not between 0 and 1; 0.05 is usual")
    return float(epsilon)
