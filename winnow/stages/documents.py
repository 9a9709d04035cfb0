"""Documents derived from occurrences: made, updated and dropped as occurrences come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from winnow.stages.corpus_digest import change_digest, sum_of
from winnow.store.schema import tables
from winnow.store.stage import forget_keys

if TYPE_CHECKING:
    from winnow.store.store import Connection


def derive_documents(connection: Connection) -> tuple[int, int]:
    """Derive the documents of the temporary table ``touched`` (doc_id) anew from their occurrences, in a transaction.

    Returns how many documents are new and how many are no more. Needs the relation ``priorities`` (source, priority).
    Judgements of documents that are no more go, the corpus' digest follows, and the stages whose tables were changed
    are done no longer.
    """
    connection.execute(
        "CREATE TEMP TABLE existed AS SELECT doc_id, source FROM documents WHERE doc_id IN (SELECT doc_id FROM touched)"
    )
    connection.execute("DELETE FROM documents WHERE doc_id IN (SELECT doc_id FROM touched)")
    connection.execute(DERIVE_DOCUMENTS)
    connection.execute("CREATE TEMP TABLE vanished AS SELECT doc_id FROM existed ANTI JOIN documents USING (doc_id)")
    _drop_judgements(connection)
    new = "(SELECT DISTINCT doc_id FROM documents SEMI JOIN touched USING (doc_id) ANTI JOIN existed USING (doc_id))"
    counts = count_rows(connection, new), count_rows(connection, "vanished")
    change_digest(
        connection,
        removed=[sum_of(connection, "SELECT doc_id, source FROM existed")],
        added=[sum_of(connection, "SELECT doc_id, source FROM documents WHERE doc_id IN (SELECT doc_id FROM touched)")],
    )
    forget_keys(connection, *DERIVED)
    return counts


DERIVE_DOCUMENTS = """
INSERT INTO documents BY NAME
SELECT doc_id, shard, row, source, original_id, characters, bytes, words, dup_count
FROM (
    SELECT *,
           count(*) OVER (PARTITION BY doc_id) AS dup_count,
           row_number() OVER (
               PARTITION BY doc_id
               ORDER BY coalesce(priority, 0), source, original_id NULLS LAST, shard, row
           ) AS rank
    FROM occurrences
    LEFT JOIN priorities USING (source)
    WHERE doc_id IN (SELECT doc_id FROM touched)
)
WHERE rank = 1
"""
"""The canonical occurrence: smallest (source priority, source, original id, uri, row)."""


DERIVED = ("duplicate_pairs", "duplicates", "semantic_duplicates", "clusters")
"""Stages whose tables follow the corpus: their rows were changed here, so no earlier key says that they are done."""


def count_rows(connection: Connection, table: str) -> int:
    """Return the number of rows of a table or of a query in parentheses, of our own making."""
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _drop_judgements(connection: Connection) -> None:
    """Delete what was judged of documents that no longer exist; parts only hide theirs.

    Past decisions stay, and so do probes and which documents opened a checkpoint's bandit: one that comes back finds
    them, so that it ends where it would have been without the detour.
    """
    for table in tables().values():
        if table.document and not table.parts and table.name not in ("probes", "judged"):
            connection.execute(
                f"DELETE FROM {table.name} WHERE {table.document} IN (SELECT doc_id FROM vanished)"  # noqa: S608
            )
    connection.execute("DELETE FROM judged WHERE stage <> 'probes' AND doc_id IN (SELECT doc_id FROM vanished)")
    connection.execute(
        "DELETE FROM duplicate_pairs"
        " WHERE doc_a IN (SELECT doc_id FROM vanished) OR doc_b IN (SELECT doc_id FROM vanished)"
    )
