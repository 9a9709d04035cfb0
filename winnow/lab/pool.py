"""The pool of the lab: documents with all that presets may look at, in the order of their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import digest, doc_ids, ids_as_keys, ids_to_numpy, seeded_keys
from winnow.quality.scorers import Documents
from winnow.selection.budget import sorted_by


@dataclass(frozen=True, eq=False)
class LabPool:
    """N documents sorted by doc_id: whatever is computed by position then depends on the set of documents alone.

    ``doc_ids`` uint8 ``[N, 16]``; ``sources`` object ``[N]`` of str; ``texts`` object ``[N]`` of str; ``tokens`` object
    ``[N]`` of int32 arrays without special tokens; ``clusters`` int64 ``[N]`` (all 0 without vectors); ``vectors``
    float32 ``[N, D]`` of unit length and ``centroids`` float32 ``[K, D]``, None where nothing was embedded; ``signals``
    a table or None; ``planted`` object ``[N]`` of str: what is known to be wrong with a document, "" for most;
    ``embedding_flops``: what the vectors cost, all documents together.
    """

    doc_ids: np.ndarray
    sources: np.ndarray
    texts: np.ndarray
    tokens: np.ndarray
    clusters: np.ndarray
    vectors: np.ndarray | None = None
    centroids: np.ndarray | None = None
    signals: pa.Table | None = None
    planted: np.ndarray | None = None
    embedding_flops: float = 0.0

    def __len__(self) -> int:
        return len(self.doc_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document with the end-of-text token that training puts after it, int64 ``[N]``."""
        return np.array([len(tokens) + 1 for tokens in self.tokens], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """Digest of all that a run depends on: ids, tokens, sources, clusters and vectors."""
        import xxhash

        hasher = xxhash.xxh3_128(self.doc_ids.tobytes())
        hasher.update(self.lengths.tobytes())
        for tokens in self.tokens:
            hasher.update(np.asarray(tokens, dtype="<i4").tobytes())
        hasher.update("\0".join(self.sources.tolist()).encode())
        hasher.update(self.clusters.astype("<i8").tobytes())
        if self.vectors is not None:
            hasher.update(np.ascontiguousarray(self.vectors, dtype="<f4").tobytes())
        return hasher.hexdigest()

    def take(self, positions: np.ndarray) -> LabPool:
        """Return the pool of some documents (positions or a mask); their order stays that of the ids."""
        rows = np.flatnonzero(positions) if positions.dtype == np.bool_ else np.sort(positions)
        return replace(
            self,
            doc_ids=self.doc_ids[rows],
            sources=self.sources[rows],
            texts=self.texts[rows],
            tokens=self.tokens[rows],
            clusters=self.clusters[rows],
            vectors=None if self.vectors is None else self.vectors[rows],
            signals=None if self.signals is None else self.signals.take(pa.array(rows)),
            planted=None if self.planted is None else self.planted[rows],
            embedding_flops=self.embedding_flops * len(rows) / max(1, len(self)),
        )

    def documents(self, positions: np.ndarray) -> Documents:
        """Return documents as scorers take them."""
        return Documents(
            self.doc_ids[positions],
            texts=self.texts[positions].tolist(),
            tokens=list(self.tokens[positions]),
            vectors=None if self.vectors is None else self.vectors[positions],
            clusters=self.clusters[positions],
            signals=None if self.signals is None else self.signals.take(pa.array(positions)),
        )


def make_pool(
    texts: Sequence[str],
    sources: Sequence[str],
    tokens: Sequence[np.ndarray],
    *,
    ids: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    centroids: np.ndarray | None = None,
    signals: pa.Table | None = None,
    planted: Sequence[str] | None = None,
    embedding_flops: float = 0.0,
) -> LabPool:
    """Return the pool of N documents given in any order; of equal texts the first is kept.

    ``ids`` uint8 ``[N, 16]``: those of the texts unless given. Raises :class:`UserError` for columns of unlike lengths
    or no documents.
    """
    given = {"sources": sources, "tokens": tokens, "vectors": vectors, "clusters": clusters, "planted": planted}
    for name, column in given.items():
        if column is not None and len(column) != len(texts):
            raise UserError(f"lab pool: {len(texts)} texts but {len(column)} {name}; give one for each document")
    if not len(texts):
        raise UserError("lab pool: it has no documents; give at least some files")
    known = ids_to_numpy(doc_ids(texts)) if ids is None else ids
    _, first = np.unique(ids_as_keys(known), return_index=True)
    rows = first[sorted_by(known[first])]
    return LabPool(
        doc_ids=known[rows],
        sources=_objects(sources, rows),
        texts=_objects(texts, rows),
        tokens=_objects([np.asarray(one, dtype=np.int32) for one in tokens], rows),
        clusters=np.zeros(len(rows), dtype=np.int64) if clusters is None else np.asarray(clusters, np.int64)[rows],
        vectors=None if vectors is None else np.ascontiguousarray(vectors[rows], dtype=np.float32),
        centroids=centroids,
        signals=None if signals is None else signals.take(pa.array(rows)),
        planted=None if planted is None else _objects(planted, rows),
        embedding_flops=embedding_flops,
    )


def hold_out(pool: LabPool, documents: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw up to ``documents`` of each source by seeded hash, for losses out of domain; planted ones are left alone.

    Returns what is left of the pool, bool ``[N]``, and the positions drawn of each source, int64. A source gives at
    most a tenth of its documents.
    """
    keys = seeded_keys(pool.doc_ids, seed, "lab:held-out")
    left, drawn = np.ones(len(pool), dtype=np.bool_), {}
    clean = np.ones(len(pool), dtype=np.bool_) if pool.planted is None else pool.planted == ""
    for source in sorted(set(pool.sources.tolist())):
        rows = np.flatnonzero((pool.sources == source) & clean)
        rows = rows[np.argsort(keys[rows], kind="stable")][: min(documents, len(rows) // 10)]
        if len(rows):
            drawn[source] = np.sort(rows)
            left[rows] = False
    return left, drawn


def facts(pool: LabPool) -> dict[str, object]:
    """Return documents and tokens by source, and what is planted, as JSON."""
    names = sorted(set(pool.sources.tolist()))
    planted = {} if pool.planted is None else {
        name: int((pool.planted == name).sum()) for name in sorted(set(pool.planted.tolist()) - {""})
    }  # fmt: skip
    return {
        "documents": len(pool),
        "tokens": int(pool.lengths.sum()),
        "sources": {name: int(pool.lengths[pool.sources == name].sum()) for name in names},
        "planted": planted,
        "digest": digest(pool.digest)[:16],
    }


def _objects(values: Sequence[object], rows: np.ndarray) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows.tolist()):
        found[place] = values[row]
    return found
