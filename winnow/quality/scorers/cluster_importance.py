r"""Clustered importance sampling (CRISP): how much more of the reference than of the pool lies in a document's cluster.

    log w(x) = log p_ref(c) - log p_pool(c),        p_ref(c) = (n_ref(c) + a p_pool(c)) / (N_ref + a)

c is the cluster of x, n_ref its reference items, p_pool its share of the sample of the pool, in documents. a
(``pseudo_count``) is 0 in the paper: clusters without a reference item then weigh nothing, and their documents have no
score. With a > 0 they score log(a / (N_ref + a)). A log weight: taking the largest of score + Gumbel noise draws
clusters as the reference has them, as the paper does; all documents of a cluster score alike, so plain top-k takes
whole clusters. The reference's ``clusters`` are those that its vectors lie nearest to.

Source: Grangier et al. 2025, "Task-Adaptive Pretrained Language Models via Clustered-Importance Sampling"
(arXiv 2410.03735), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option


@dataclass(frozen=True)
class Options:
    pseudo_count: float = option(1.0, 0.0)


@dataclass(eq=False)
class FittedClusterImportance(Fitted):
    """``clusters`` int64 ``[C]`` ascending with their log weights float64 ``[C]``; ``other``: that of any other."""

    clusters: np.ndarray
    log_weights: np.ndarray
    other: float

    def _score(self, documents: Documents) -> Scored:
        labels = np.asarray(documents.rows("clusters", 0, len(documents)), dtype=np.int64)
        place = np.minimum(np.searchsorted(self.clusters, labels), len(self.clusters) - 1)
        values = np.where(self.clusters[place] == labels, self.log_weights[place], self.other)
        return with_reason(values, "no reference item lies in its cluster")


class ClusterImportance(Scorer, name="cluster_importance", needs=("clusters", "reference", "sample")):
    """Importance weights of clusters."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedClusterImportance:
        assert context.reference is not None and context.sample is not None
        pool = np.asarray(context.sample.rows("clusters", 0, len(context.sample)), dtype=np.int64)
        reference = np.asarray(context.reference.rows("clusters", 0, len(context.reference)), dtype=np.int64)
        clusters, counts = np.unique(pool, return_counts=True)
        share = counts / len(pool)
        # A reference item in a cluster that the pool has nothing of selects nothing, but it is an item.
        items = np.array([np.count_nonzero(reference == cluster) for cluster in clusters])
        smooth = self.options.pseudo_count
        with np.errstate(divide="ignore"):
            weights = np.log((items + smooth * share) / (len(reference) + smooth)) - np.log(share)
            other = float(np.log(smooth / (len(reference) + smooth)))
        return FittedClusterImportance(clusters, weights, other)
