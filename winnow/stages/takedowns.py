"""Takedowns in a transaction: documents that must not be used again, named by id, url or hash.

A demand by url or by a file's own id withdraws the *text* found there, wherever else it occurs, now and when it comes
back: the documents that it reached are kept in ``withdrawn``. Their occurrences become rows of ``quarantine``, so that
records = occurrences + quarantined stays true. Whether the demand or the file comes first makes no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from winnow.errors import UserError
from winnow.stages.documents import count_rows
from winnow.stages.withdrawn_texts import PURGE_DUE, Hashed
from winnow.store.store import Store, live_parts, load, now, set_meta

if TYPE_CHECKING:
    from winnow.store.store import Connection


def demanded_hashes(connection: Connection) -> frozenset[str]:
    """Return the SHA-256 digests that takedowns name."""
    rows = connection.execute("SELECT value FROM takedowns WHERE kind = 'sha256'").fetchall()
    return frozenset(value for (value,) in rows)


RECORDS = """
    SELECT doc_id, original_id, url FROM occurrences {among}
    UNION ALL
    SELECT doc_id, original_id, url FROM quarantine {among} WHERE reason = 'withdrawn'
"""
REACHED = """
    WITH records AS ({records}), demanded AS (SELECT * FROM {demands})
    SELECT DISTINCT doc_id, kind, value FROM (
        SELECT doc_id, kind, value FROM records JOIN demanded ON kind = 'url' AND value = url
        UNION ALL
        SELECT doc_id, kind, value FROM records JOIN demanded ON kind = 'original_id' AND value = original_id
        UNION ALL
        SELECT doc_id, kind, value FROM records
        JOIN (SELECT *, try_cast(value AS UUID) AS doc FROM demanded WHERE kind = 'doc_id') ON doc = doc_id
        UNION ALL
        SELECT doc_id, kind, value FROM hashed JOIN demanded USING (value) SEMI JOIN records USING (doc_id)
        WHERE kind = 'sha256'
    )
    ANTI JOIN withdrawn USING (doc_id, kind, value)
"""
DETAILS = """
    SELECT doc_id,
           left(regexp_replace(
               'withdrawn by ' || kind || ' ' || value || CASE WHEN reason <> '' THEN ': ' || reason ELSE '' END,
               '[[:cntrl:]]', ' ', 'g'
           ), 500) AS detail
    FROM (
        SELECT w.doc_id, t.*, row_number() OVER (PARTITION BY w.doc_id ORDER BY t.added_at, t.kind, t.value) AS place
        FROM withdrawn w JOIN takedowns t USING (kind, value)
    )
    WHERE place = 1
"""
"""What a withdrawn record's row says: the earliest demand that reached its document."""


def apply_takedowns(connection: Connection, shards: str | None = None, hashed: Hashed | None = None) -> int:
    """Move the occurrences of demanded documents into quarantine; return how many.

    ``shards`` names a relation with a column ``shard``: only their records are matched with the demands, but what they
    reach goes from every shard. Call it after occurrences, quarantine and shards are inserted and before documents are
    derived, with the ids of all these occurrences already among those to derive. ``hashed`` are the demanded hashes
    found in the new text parts. Raises :class:`UserError` when a hash was demanded after they were read.
    """
    hashed = hashed or Hashed()
    if not connection.execute("SELECT 1 FROM takedowns LIMIT 1").fetchone():
        return 0
    if shards and not demanded_hashes(connection) <= hashed.hashes:
        raise UserError("a takedown was added while the files were read; run the delivery again")
    find_reached(connection, "takedowns", shards, hashed)
    return withdraw(connection)


def find_reached(connection: Connection, demands: str, shards: str | None, hashed: Hashed) -> None:
    """Make ``reached``: the documents that demands reach and that are not yet known to be withdrawn by them."""
    load(connection, "hashed", hashed.documents)
    records = RECORDS.format(among=f"SEMI JOIN {shards} USING (shard)" if shards else "")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE reached AS {REACHED.format(records=records, demands=demands)}")


def withdraw(connection: Connection) -> int:
    """Record what is ``reached`` and move every occurrence of a withdrawn document; return how many moved."""
    connection.execute("INSERT INTO withdrawn BY NAME SELECT *, $now AS withdrawn_at FROM reached", {"now": now()})
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE moving AS SELECT shard, row, doc_id, original_id, url FROM occurrences"
        " SEMI JOIN withdrawn USING (doc_id)"
    )
    connection.execute(
        "INSERT INTO quarantine BY NAME SELECT m.*, 'withdrawn' AS reason, detail, '' AS excerpt, 1 AS records"  # noqa: S608
        f" FROM moving m JOIN ({DETAILS}) USING (doc_id)"
    )
    connection.execute("DELETE FROM occurrences WHERE doc_id IN (SELECT doc_id FROM moving)")
    connection.execute(
        """
        UPDATE shards SET occurrences = occurrences - moved, quarantined = quarantined + moved
        FROM (SELECT shard AS place, count(*) AS moved FROM moving GROUP BY shard) WHERE shard = place
        """
    )
    tell_why(connection, "reached")
    moved = count_rows(connection, "moving")
    if moved:  # the live text parts still hold them
        set_meta(connection, PURGE_DUE, "true")
    return moved


def tell_why(connection: Connection, documents: str) -> None:
    """Bring the details of records that were withdrawn before in line with the demands there are now."""
    connection.execute(
        f"UPDATE quarantine SET detail = d.detail FROM ({DETAILS}) d WHERE reason = 'withdrawn'"  # noqa: S608
        f" AND quarantine.doc_id = d.doc_id AND d.doc_id IN (SELECT doc_id FROM {documents})"
    )


def manifests_with(store: Store, connection: Connection, documents: str) -> dict[str, int]:
    """Return manifest version -> rows whose document is in the relation ``documents``, oldest first."""
    rows = store.view("manifest_rows", live_parts(connection))
    found = connection.execute(
        f"SELECT version, count(*) FROM ({rows}) WHERE doc_id IN (SELECT doc_id FROM {documents})"  # noqa: S608
        " GROUP BY version ORDER BY len(version), version"
    )
    return dict(found.fetchall())
