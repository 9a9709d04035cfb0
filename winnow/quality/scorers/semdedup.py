r"""SemDeDup as a score: first the documents that it keeps, at random, then the others, the least duplicated first.

    score(x) = u(x)                        for a document that SemDeDup keeps, u a seeded uniform of its id in [0, 1)
    score(x) = t - max cos(x, earlier)     below 0, for one that it removes

``earlier`` are the documents of the same k-means cluster that lie farther from its centroid (ties by doc_id), t the
threshold: 1 - ``epsilon``, or with ``kept`` > 0 the one at which that share of the documents is kept. Compared is with
every earlier document, removed or not, as in the released code (:mod:`winnow.dedup.semantic`, variant ``code``).
SemDeDup does not rank what it keeps.

Source: Abbas et al. 2023 (arXiv 2303.09540), section 3; facebookresearch/SemDeDup.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext
from winnow.quality.scorers.random import uniforms
from winnow.selection.options import option

if TYPE_CHECKING:
    from winnow.dedup.semantic import SemanticDuplicates


@dataclass(frozen=True)
class Options:
    epsilon: float = option(0.05, 1e-6, 0.999999)
    kept: float = option(0.0, 0.0, 1.0)
    clusters: int = option(0, 0)


@dataclass(eq=False)
class FittedSemDeDup(Fitted):
    """The seed; all else needs the candidates themselves."""

    options: Options
    seed: int

    def _score(self, documents: Documents) -> Scored:
        found, threshold = compared(documents, self.options, self.seed)
        below = threshold - found.nearest_similarity  # NaN where there is no earlier document
        values = np.where(below < 0.0, below, uniforms(documents.doc_ids, self.seed, "semdedup"))
        return Scored(values, (None,) * len(documents))


class SemDeDup(Scorer, name="semdedup", needs=("vectors",), whole=True):
    """Semantic deduplication in clusters."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedSemDeDup:
        return FittedSemDeDup(self.options, context.seed)


def compared(documents: Documents, options: Options, seed: int) -> tuple[SemanticDuplicates, float]:
    """Return the documents compared with those of their cluster, and the cosine above which one is removed."""
    from winnow.dedup.semantic import find_semantic_duplicates
    from winnow.dedup.semantic_clusters import cluster_documents

    vectors = np.ascontiguousarray(documents.rows("vectors", 0, len(documents)), dtype=np.float32)
    clusters = cluster_documents(documents.doc_ids, vectors, clusters=options.clusters, seed=seed)
    found = find_semantic_duplicates(clusters, options.epsilon, "code", epsilons=())
    if not options.kept or not len(documents):
        return found, 1.0 - options.epsilon
    greatest = np.sort(np.nan_to_num(found.nearest_similarity, nan=-1.0))
    # The share is a decimal number: 0.7 of 10 must not become 8 by rounding up 7.000000000000001.
    return found, float(greatest[max(1, ceil(round(options.kept * len(greatest), 6))) - 1])
