"""Names for clusters: the terms that set each one apart from the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

# About what the encoder reads; a book's hundredth page should not name its cluster.
CHARACTERS = 2000
# Words of at least three letters: no digits, no mark-up.
TERM = r"(?u)\b[^\W\d_]{3,}\b"


def label_clusters(
    texts: pa.Array | pa.ChunkedArray | Sequence[str], cluster: np.ndarray, k: int, terms: int = 5
) -> list[str]:
    """Return one label a cluster, its most distinctive lower-cased words joined by ", ", best first.

    ``texts`` are N documents, ``cluster`` int ``[N]`` in [0, k). A term's weight in a cluster is c-TF-IDF,
    ``tf * log(1 + A / f)``: tf its share among the cluster's terms, f its count over all clusters, A the mean number of
    terms in a cluster. A term counts once a document, so that one long document cannot name the cluster, and only
    where its share exceeds the one it has elsewhere, which takes the place of a list of stop words. Ties go to the
    alphabetically first term; a cluster without terms is called "(none)".

    Source: Grootendorst 2022, "BERTopic", section 3.3.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else texts
    counter = CountVectorizer(token_pattern=TERM, binary=True, dtype=np.int64)
    try:
        present = counter.fit_transform(text[:CHARACTERS] for text in values)
    except ValueError:  # no document holds a term
        return ["(none)"] * k
    members = sparse.csr_matrix(
        (np.ones(len(cluster), np.int64), (cluster, np.arange(len(cluster)))), (k, len(cluster))
    )
    counts = (members @ present).tocsr()
    vocabulary = counter.get_feature_names_out()  # alphabetical, so a stable sort breaks ties by term
    total = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    sizes = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    labels = []
    for row in range(k):
        columns = np.sort(counts.indices[counts.indptr[row] : counts.indptr[row + 1]])
        count = np.asarray(counts[row, columns].todense(), dtype=np.float64).ravel()
        share = count / sizes[row]
        elsewhere = (total[columns] - count) / max(sizes.sum() - sizes[row], 1.0)
        weight = np.where(share > elsewhere, share - elsewhere, 0.0) * np.log1p(sizes.mean() / total[columns])
        best = np.argsort(-weight, kind="stable")[:terms]
        labels.append(", ".join(vocabulary[columns[best]]) or "(none)")
    return labels
