"""Judgements on documents: who has none yet, their texts in batches of bounded size, and writing what was found.

A judgement is keyed by document, method and version; it is computed once for each document, whichever shard brought it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.identity import ids_as_keys, ids_to_numpy
from winnow.store.store import Store, load, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection


def pending(store: Store, table: str, version_column: str, version: str) -> pa.Table:
    """Return the documents that ``table`` has no row of the given version for, sorted by ``doc_id``.

    Whichever delivery brought them: the next run takes up what a killed one left. Columns: doc_id, source, characters.
    """
    with store.read(table) as connection:
        return connection.execute(
            f"""
            SELECT doc_id, source, characters FROM documents
            ANTI JOIN (SELECT doc_id FROM {table} WHERE {version_column} = $version) judged USING (doc_id)
            ORDER BY doc_id
            """,  # noqa: S608
            {"version": version},
        ).to_arrow_table()


def unjudged(store: Store, stage: str, version: str) -> pa.Table:
    """Return the documents that a stage with sparse results has not seen, sorted by ``doc_id``."""
    return store.arrow(
        """
        SELECT doc_id FROM documents
        ANTI JOIN (SELECT doc_id FROM judged WHERE stage = $stage AND version = $version) seen USING (doc_id)
        ORDER BY doc_id
        """,
        {"stage": stage, "version": version},
    )


def texts_of(store: Store, documents: pa.Table, rows: int = 20_000) -> Iterator[pa.Table]:
    """Yield (doc_id, text) of the given documents in tables of at most ``rows`` rows and about ``TABLE_BYTES``.

    ``documents`` needs a ``doc_id`` column without repetitions, in any order. The text parts that hold them are read
    once, one after the other in the order of their digests, each sorted by ``doc_id``: the order is the same whenever
    the parts are, and no part of any result, as methods are free of batch and order. Raises ``LookupError``, before the
    last table, when a document has no text.
    """
    if not len(documents):
        return
    found = 0
    held: pa.Table | None = None
    for table in _together(_batches(store, documents, min(rows, BATCH_ROWS)), rows):
        if held is not None:
            yield held
        held = table
        found += len(table)
    if held is None or found != len(documents):
        raise LookupError(
            f"{len(documents) - found} of {len(documents)} documents have no text in the live parts: "
            "deliver their files again"
        )
    yield held


TABLE_BYTES = 64 * 2**20
BATCH_ROWS = 2_048
PLACES = "SELECT doc_id, shard, row FROM documents SEMI JOIN asked USING (doc_id)"
HOLDERS = """
SELECT shard, part FROM (SELECT shard, unnest(parts) AS part FROM shards) SEMI JOIN parts USING (part)
WHERE shard IN (SELECT shard FROM documents SEMI JOIN asked USING (doc_id))
"""


def _batches(store: Store, documents: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield (doc_id, text) of documents, part by part."""
    with store.scratch() as connection:
        with store.read() as reading:
            load(reading, "asked", documents.select(["doc_id"]))
            load(connection, "wanted", reading.execute(PLACES).to_arrow_table())
            load(connection, "holders", reading.execute(HOLDERS).to_arrow_table())
        for (part,) in connection.execute("SELECT DISTINCT part FROM holders ORDER BY part").fetchall():
            source = quoted(store.storage.uri("texts", part))
            yield from connection.execute(
                f"""
                SELECT doc_id, text FROM read_parquet('{source}')
                SEMI JOIN (
                    SELECT * FROM wanted WHERE shard IN (SELECT shard FROM holders WHERE part = $part)
                ) here USING (doc_id, shard, row)
                ORDER BY doc_id
                """,  # noqa: S608
                {"part": part},
            ).to_arrow_reader(rows)


def _together(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Put batches together to tables of at most ``rows`` rows that end soon after ``TABLE_BYTES``."""
    pieces: list[pa.RecordBatch] = []

    def table() -> pa.Table:
        found = pa.Table.from_batches(pieces)
        pieces.clear()
        return found.set_column(1, "text", found["text"].cast(pa.large_string())).combine_chunks()

    for batch in batches:
        if pieces and sum(map(len, pieces)) + len(batch) > rows:
            yield table()
        pieces.append(batch)
        if sum(piece.nbytes for piece in pieces) >= TABLE_BYTES:
            yield table()
    if pieces:
        yield table()


def all_texts(store: Store, documents: pa.Table) -> pa.Table:
    """Return (doc_id, text) of documents sorted by ``doc_id`` as one table in that order; mind the memory."""
    pieces = list(texts_of(store, documents))
    if not pieces:
        return pa.table({"doc_id": pa.array([], pa.uuid()), "text": pa.array([], pa.large_string())})
    texts = pa.concat_tables(pieces).combine_chunks()
    keys = ids_as_keys(ids_to_numpy(texts["doc_id"]))
    return texts.take(pa.array(np.argsort(keys, order=("high", "low"))))


def row_groups(rows: pa.Table, size: int = 100_000) -> Iterator[pa.Table]:
    """Cut rows so that each piece becomes a row group of a part, whose statistics a query by id or name skips by."""
    for start in range(0, len(rows), size):
        yield rows.slice(start, size)


def mark_judged(connection: Connection, stage: str, version: str, documents: pa.Table) -> None:
    """Record that a sparse stage has seen these documents."""
    connection.register("seen_now", documents.select(["doc_id"]))
    connection.execute(
        "INSERT INTO judged (stage, version, doc_id) SELECT $stage, $version, doc_id FROM seen_now",
        {"stage": stage, "version": version},
    )
    connection.unregister("seen_now")


def forget_judged(connection: Connection, stage: str, version: str) -> None:
    """Forget which documents a sparse stage has seen, before it records them anew."""
    connection.execute(
        "DELETE FROM judged WHERE stage = $stage AND version = $version", {"stage": stage, "version": version}
    )
