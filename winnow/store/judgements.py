"""Judgements on documents: who has none yet, their texts in batches of bounded size, and writing what was found.

A judgement is keyed by document, method and version; it is computed once for each document, whichever shard brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from winnow.store.store import Store, load

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection


def pending(store: Store, table: str, version_column: str, version: str) -> pa.Table:
    """Return the documents that ``table`` has no row of the given version for, sorted by ``doc_id``.

    Whichever delivery brought them: the next run takes up what a killed one left. Columns: doc_id, source, characters.
    """
    with store.scratch(table, "documents", only={version_column: version}) as connection:
        return connection.execute(
            f"SELECT doc_id, source, characters FROM documents ANTI JOIN {table} USING (doc_id) ORDER BY doc_id"  # noqa: S608
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
    """Yield (doc_id, text) of the given documents in tables of at most ``rows``, sorted by ``doc_id`` inside each.

    ``documents`` needs a ``doc_id`` column; sorted input gives sorted output. Which documents share a table is no part
    of any result: methods are free of batch and order.
    """
    for start in range(0, len(documents), rows):
        ids = documents.slice(start, rows).select(["doc_id"])
        with store.scratch("texts") as connection:
            load(connection, "wanted", ids)
            found = connection.execute(
                "SELECT doc_id, text FROM texts SEMI JOIN wanted USING (doc_id) ORDER BY doc_id"
            ).to_arrow_table()
        if len(found) != len(ids):
            raise LookupError(
                f"{len(ids) - len(found)} of {len(ids)} documents have no text part in {store.home.parts}: "
                "deliver their files again"
            )
        yield found.set_column(1, "text", found["text"].cast(pa.large_string()))


def all_texts(store: Store, documents: pa.Table) -> pa.Table:
    """Return (doc_id, text) of documents sorted by ``doc_id`` as one table in that order; mind the memory."""
    pieces = list(texts_of(store, documents))
    if pieces:
        return pa.concat_tables(pieces).combine_chunks()
    return pa.table({"doc_id": pa.array([], pa.uuid()), "text": pa.array([], pa.large_string())})


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
