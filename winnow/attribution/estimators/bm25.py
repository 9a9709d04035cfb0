r"""BM25: the words that document and query share, rare ones more, repeated ones ever less, long documents less.

    score(q, i) = sum over words w of q, as often as q has them
                    log(1 + (N - n_w + 1/2) / (n_w + 1/2)) * c (k + 1) / (c + k (1 - b + b |i| / mean |i|))

c: how often i has w; n_w: documents that have w; k = 1.2 and b = 0.75 (options ``k`` and ``b``). Source: Robertson and
Zaragoza 2009, section 3.4; the logarithm with 1 + is Lucene's, never negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.attribution.terms import Vocabulary
from winnow.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

K, B = 1.2, 0.75


class Bm25(Estimator, name="bm25", needs=frozenset({"texts"})):
    """The lexical baseline of fact tracing."""

    uses = frozenset()
    options = frozenset({"k", "b"})

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        if run.texts is None:
            raise UserError("bm25 compares words; give the run's texts")
        vocabulary = Vocabulary(run.texts)
        k, b = settings.options.get("k", K), settings.options.get("b", B)
        counts = vocabulary.counts(run.texts)
        return _Fitted(vocabulary, bm25_weights(counts, np.asarray(counts.sum(axis=1)).ravel(), k, b))


def bm25_weights(counts: csr_matrix, lengths: np.ndarray, k: float = K, b: float = B) -> csr_matrix:
    """Return what each word of N documents is worth, float64 ``[N, words]``, from its counts there.

    ``lengths`` ``[N]`` are the documents' words in all: those counted may be a query's alone.
    """
    weights = counts.copy()
    documents = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((counts.shape[0] - documents + 0.5) / (documents + 0.5))
    norm = k * (1.0 - b + b * lengths / max(float(lengths.mean()), 1.0))
    weights.data = rarity[counts.indices] * counts.data * (k + 1.0)
    weights.data /= counts.data + np.repeat(norm, np.diff(counts.indptr))
    return weights


@dataclass(frozen=True)
class _Fitted(Fitted):
    vocabulary: Vocabulary
    weights: csr_matrix

    def score(self, queries: Queries) -> np.ndarray:
        if queries.texts is None:
            raise UserError("bm25 compares words; give the queries' texts")
        return (self.vocabulary.counts(queries.texts) @ self.weights.T).toarray()
