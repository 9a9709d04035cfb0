r"""TF-IDF cosine: how alike document and query are in their words, rare ones weighing more.

    score(q, i) = cos(x_q, x_i),    x_w = c_w (1 + log((1 + N) / (1 + n_w)))

c_w: how often the text has word w; n_w: documents of the N that have it. Blind to the model, and yet hard to beat
where a model has little more than words to learn. Source: Salton and Buckley 1988; the smoothing is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.attribution.terms import Vocabulary
from winnow.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Tfidf(Estimator, name="tfidf", needs=frozenset({"texts"})):
    """The lexical baseline of subset retraining."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        if run.texts is None:
            raise UserError("tfidf compares words; give the run's texts")
        vocabulary = Vocabulary(run.texts)
        counts = vocabulary.counts(run.texts)
        documents = np.bincount(counts.indices, minlength=counts.shape[1])
        rarity = 1.0 + np.log((1.0 + counts.shape[0]) / (1.0 + documents))
        return _Fitted(vocabulary, rarity, _unit(counts, rarity))


def _unit(counts: csr_matrix, rarity: np.ndarray) -> csr_matrix:
    """Return the weighted rows at unit length; a text without any word stays zero."""
    unit = counts.copy()
    unit.data = counts.data * rarity[counts.indices]
    norms = np.sqrt(np.asarray(unit.multiply(unit).sum(axis=1)).ravel())
    unit.data /= np.repeat(np.where(norms > 0.0, norms, 1.0), np.diff(counts.indptr))
    return unit


@dataclass(frozen=True)
class _Fitted(Fitted):
    vocabulary: Vocabulary
    rarity: np.ndarray
    documents: csr_matrix

    def score(self, queries: Queries) -> np.ndarray:
        return (_unit(self.vocabulary.counts(_texts(queries.texts)), self.rarity) @ self.documents.T).toarray()


def _texts(texts: Sequence[str] | None) -> Sequence[str]:
    if texts is None:
        raise UserError("tfidf compares words; give the queries' texts")
    return texts
