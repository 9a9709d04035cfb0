"""Embedding rows as the store keeps them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from winnow.embed.encoder import Encoder, encode


def embedding_rows(encoder: Encoder, texts: pa.Table) -> pa.Table:
    """Return the ``embeddings`` rows of documents: ``texts`` has ``doc_id`` and ``text``."""
    vectors = encode(encoder, texts["text"])
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.table(
        {
            "doc_id": texts["doc_id"],
            "model": pa.array([encoder.digest] * len(texts), pa.string()),
            "vector": pa.ListArray.from_arrays(offsets, np.ascontiguousarray(vectors, np.float32).reshape(-1)),
        }
    )


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return a ``vector`` column as float32 ``[N, D]``; its lists must be of one length and none null."""
    if not len(column):
        return np.zeros((0, 0), np.float32)
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks]).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat, np.float32).reshape(len(column), -1)
