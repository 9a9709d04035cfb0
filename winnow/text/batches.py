"""Documents to Arrow tables, a batch of bounded size at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from winnow.identity import UUID, ids_from_bytes
from winnow.text.records import Document

DOCUMENTS = pa.schema(
    [
        ("row", pa.int64()),
        ("doc_id", UUID),
        ("text", pa.large_string()),
        ("original_id", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("metadata", pa.string()),
        ("characters", pa.int64()),
        ("bytes", pa.int64()),
    ]
)

# What a document costs in Python objects besides its characters; without it, a batch of tiny documents would be huge.
DOCUMENT_OVERHEAD = 512


class BatchBuilder:
    """Gather documents until their size in memory reaches ``batch_bytes``."""

    def __init__(self, batch_bytes: int) -> None:
        self._batch_bytes = batch_bytes
        self._documents: list[Document] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, document: Document) -> bool:
        """Add one document and say whether the batch is full."""
        self._documents.append(document)
        self._size += len(document.utf8) + len(document.metadata) + DOCUMENT_OVERHEAD
        return self._size >= self._batch_bytes

    def take(self) -> pa.Table:
        """Return the documents gathered as a table of schema ``DOCUMENTS``, in order, and start anew."""
        if not self._documents:
            return DOCUMENTS.empty_table()
        rows, texts, characters, original_ids, urls, dates, metadata = map(list, zip(*self._documents, strict=True))
        self._documents, self._size = [], 0
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        digest = xxhash.xxh3_128_digest
        columns = [
            pa.array(rows, pa.int64()),
            ids_from_bytes(b"".join([digest(text) for text in texts])),
            _strings(texts, sizes),
            pa.array(original_ids, pa.string()),
            pa.array(urls, pa.string()),
            pa.array(dates, pa.string()),
            pa.array(metadata, pa.string()),
            pa.array(characters, pa.int64()),
            pa.array(sizes, pa.int64()),
        ]
        return pa.Table.from_arrays(columns, schema=DOCUMENTS)


def _strings(texts: list[bytes], sizes: np.ndarray) -> pa.Array:
    """Wrap UTF-8 texts, already encoded once for their ids, as a ``large_string`` array without encoding them again."""
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
