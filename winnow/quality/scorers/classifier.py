r"""Quality classifier: the log odds that a document is of the reference rather than of the pool, by a linear model.

    score(x) = w . f(x) + b,    w, b minimise  |w|^2 / 2 + C sum_i a_i log(1 + exp(-y_i (w . f(x_i) + b)))

over the reference (y = 1) and the sample of the pool (y = -1), both classes of equal weight in all, so that the score
estimates log p_ref(x) - log p_pool(x). ``features``:

- ``ngrams``: the share of each hashed run of 1 to ``ngrams`` words among all the document's (times 10), as fastText
  averages over n-grams: a text repeated twice scores the same, and so length alone decides nothing;
- ``vectors``: the document's embedding, as the FineWeb-Edu classifier reads a frozen encoder's.

The pool's sample is not cleaned of documents like the reference: what counts is the order. Convex, so there is neither
seed nor order of training. Top-k of the score is DCLM's use; GPT-3 drew documents by it with noise instead.

Source: Brown et al. 2020, appendix A (linear classifier on hashed features); Li et al. 2024 (DCLM, arXiv 2406.11794),
section 4.4 (fastText, pairs of words); Penedo et al. 2024 (FineWeb-Edu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow.quality.ngrams import buckets, hash_words
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option

SCALE = 10.0  # features of both kinds are then about as long as 1, and one C serves both
ITERATIONS = 500


@dataclass(frozen=True)
class Options:
    features: str = option("ngrams", choices=("ngrams", "vectors"))
    C: float = option(10.0, above=0.0)
    buckets: int = option(2**18, 2, 2**24)
    ngrams: int = option(2, 1, 5)


@dataclass(eq=False)
class FittedClassifier(Fitted):
    """``weights`` float64, one a feature, and ``bias``."""

    options: Options
    weights: np.ndarray
    bias: float

    def _score(self, documents: Documents) -> Scored:
        values = np.empty(len(documents))
        if self.options.features == "vectors":
            for place, vectors in documents.batches("vectors"):
                # One row's products, added along the row: no other document changes a bit.
                values[place] = (vectors.astype(np.float64) * self.weights).sum(axis=1) + self.bias
            return with_reason(values, "its vector is not finite")
        for place, texts in documents.batches("texts"):
            columns, owner, count = _runs(texts, self.options)
            total = np.bincount(owner, weights=self.weights[columns], minlength=len(texts))
            values[place] = np.where(count > 0, SCALE * total / np.maximum(count, 1) + self.bias, np.nan)
        return with_reason(values, "fewer than 1 words")


class Classifier(Scorer, name="classifier", needs=("reference", "sample")):
    """Logistic regression, reference against pool."""

    Options = Options

    @property
    def needs(self) -> frozenset[str]:
        return self._needs | {"vectors" if self.options.features == "vectors" else "texts"}

    def _fit(self, context: ScorerContext) -> FittedClassifier:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        assert context.reference is not None and context.sample is not None
        parts = [self._features(part) for part in (context.reference, context.sample)]
        classes = np.repeat([1, 0], [part.shape[0] for part in parts])
        model = LogisticRegression(C=self.options.C, class_weight="balanced", max_iter=ITERATIONS, tol=1e-5)
        with threadpool_limits(1):  # sums over several threads round as they are shared out
            model.fit(_stacked(parts), classes)
        return FittedClassifier(self.options, model.coef_[0].astype(np.float64), float(model.intercept_[0]))

    def _features(self, documents: Documents) -> Any:
        """Return the features of documents in the order of their ids: an array or sparse matrix ``[N, F]``."""
        from scipy.sparse import csr_matrix

        if self.options.features == "vectors":
            return np.asarray(documents.sorted_rows("vectors"), dtype=np.float64)
        texts = [text for text in documents.sorted_rows("texts") if text.strip()]
        columns, owner, count = _runs(texts, self.options)
        shape = (len(texts), self.options.buckets)
        features = csr_matrix((SCALE / count[owner], (owner, columns)), shape)
        features.sum_duplicates()
        return features


def _runs(texts: Any, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bucket and text of every run of 1 to ``ngrams`` words, int64 ``[G]``, and how many each text has."""
    words = hash_words(texts)
    runs = [words.ngrams(n) for n in range(1, options.ngrams + 1)]
    owner = np.concatenate([owner for _, owner in runs])
    columns = np.concatenate([buckets(hashes, options.buckets) for hashes, _ in runs])
    return columns, owner, np.bincount(owner, minlength=len(texts))


def _stacked(parts: list[Any]) -> Any:
    from scipy.sparse import issparse, vstack

    return vstack(parts, format="csr") if issparse(parts[0]) else np.concatenate(parts)
