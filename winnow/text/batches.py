"""Documents to Arrow tables, a batch of bounded size at a time: normalization, identity and lengths in one place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from winnow.identity import UUID, ids_from_bytes
from winnow.text.formats.base import Block
from winnow.text.normalize import Normalization
from winnow.text.quarantine import Quarantined, excerpt
from winnow.text.records import Document

DOCUMENTS = pa.schema(
    [
        ("row", pa.int64()),
        ("doc_id", UUID),
        ("text", pa.large_string()),
        ("original", pa.large_string()),
        ("original_id", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("metadata", pa.string()),
        ("characters", pa.int64()),
        ("bytes", pa.int64()),
        ("words", pa.int64()),
    ]
)

# What a document costs in Python objects besides its characters; without it, a batch of tiny documents would be huge.
DOCUMENT_OVERHEAD = 512


class BatchBuilder:
    """Gather documents and blocks until their size in memory reaches ``batch_bytes``."""

    def __init__(self, batch_bytes: int, normalization: Normalization | None = None) -> None:
        self._batch_bytes = batch_bytes
        self._normalization = normalization or Normalization()
        self._documents: list[Document] = []
        self._blocks: list[Block] = []
        self._size = 0

    def add(self, item: Document | Block) -> bool:
        """Add one document or a block of them, and say whether the batch is full."""
        if isinstance(item, Document):
            self._documents.append(item)
            self._size += len(item.utf8) + len(item.metadata) + DOCUMENT_OVERHEAD
        else:
            self._gather()
            self._blocks.append(item)
            self._size += item.texts.nbytes + item.metadata.nbytes + DOCUMENT_OVERHEAD
        return self._size >= self._batch_bytes

    def take(self) -> tuple[pa.Table, list[Quarantined]]:
        """Return what was gathered as a table of schema ``DOCUMENTS``, in order, and start anew.

        The quarantine rows are those of the documents that normalization left empty.
        """
        self._gather()
        blocks, self._blocks, self._size = self._blocks, [], 0
        tables, bad = [], []
        for block in blocks:
            table, rows = self._finish(block)
            tables.append(table)
            bad += rows
        return (pa.concat_tables(tables) if tables else DOCUMENTS.empty_table()), bad

    def _gather(self) -> None:
        """Make one block of the single documents."""
        if self._documents:
            self._blocks.append(_block(self._documents))
            self._documents = []

    def _finish(self, block: Block) -> tuple[pa.Table, list[Quarantined]]:
        bad: list[Quarantined] = []
        originals = pa.nulls(len(block.texts), pa.large_string())
        texts = block.texts
        if self._normalization:
            before = texts.to_pylist()
            after = [self._normalization.apply(text) for text in before]
            emptied = np.array([not text or text.isspace() for text in after], bool)
            changed = [old if old != new else None for old, new in zip(before, after, strict=True)]
            texts, originals = pa.array(after, pa.large_string()), pa.array(changed, pa.large_string())
            bad = [_emptied(int(block.rows[index]), before[index]) for index in np.flatnonzero(emptied)]
            if bad:
                keep = pa.array(~emptied)
                texts, originals = texts.filter(keep), originals.filter(keep)
                block = Block(block.rows[~emptied], *(column.filter(keep) for column in _columns(block)))
        ids, sizes, words, characters = _measure(texts)
        columns = [
            pa.array(block.rows, pa.int64()),
            ids,
            texts,
            originals,
            block.original_ids,
            block.urls,
            block.dates,
            block.metadata,
            characters,
            sizes,
            words,
        ]
        return pa.Table.from_arrays(columns, schema=DOCUMENTS), bad


def _columns(block: Block) -> tuple[pa.Array, ...]:
    return block.texts, block.original_ids, block.urls, block.dates, block.metadata


def _block(documents: list[Document]) -> Block:
    rows, texts, _, original_ids, urls, dates, metadata = map(list, zip(*documents, strict=True))
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    # The texts are UTF-8 already: wrapped, they need no second encoding.
    utf8 = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
    strings = (pa.array(column, pa.string()) for column in (original_ids, urls, dates, metadata))
    return Block(np.array(rows, np.int64), utf8, *strings)


def _measure(texts: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """Return doc_id, bytes, words and characters of large_string texts without nulls."""
    from winnow.text._kernels import count_words

    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    raw = memoryview(data) if data is not None else memoryview(b"")
    digest = xxhash.xxh3_128_digest
    bounds = offsets.tolist()
    ids = [digest(raw[start:end]) for start, end in pairwise(bounds)]
    words = count_words(np.frombuffer(raw, np.uint8), np.ascontiguousarray(offsets))
    characters = pc.utf8_length(texts).cast(pa.int64())
    return ids_from_bytes(b"".join(ids)), pa.array(np.diff(offsets), pa.int64()), pa.array(words), characters


def _emptied(row: int, original: str) -> Quarantined:
    detail = "normalization leaves nothing of the text: it holds control characters only; leave such records out"
    return Quarantined(row, None, "empty_text", detail, excerpt(original.encode()))
