"""What a user does with takedowns: add, preview, list and lift them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from winnow.errors import UserError
from winnow.stages.demands import Demand, demand_rows
from winnow.stages.documents import count_rows, derive_documents
from winnow.stages.takedowns import find_reached, manifests_with, tell_why, withdraw
from winnow.stages.withdrawn_texts import Hashed, doc_ids_by_hash, purge_withdrawn
from winnow.store.store import Store, live_parts, load, now

if TYPE_CHECKING:
    from winnow.store.store import Connection


@dataclass(frozen=True)
class Taken:
    """What demands did or, in a preview, would do. ``manifests``: version -> rows that hold one of the documents."""

    added: int
    documents: int
    occurrences: int
    manifests: Mapping[str, int]


@dataclass(frozen=True)
class Lifted:
    """Documents that no takedown holds back any more, and the shards that bring them back when they are read again."""

    documents: int
    shards: Sequence[str]


def preview_takedowns(store: Store, demands: Sequence[Demand]) -> Taken:
    """Return what :func:`add_takedowns` would do, and do nothing."""
    rows = demand_rows(demands)
    hashed = _hash_live(store, rows)
    with store.read() as connection:
        added = _load_new(connection, rows)
        find_reached(connection, "demands", None, hashed)
        connection.execute(
            "CREATE TEMP TABLE moving AS SELECT doc_id FROM occurrences SEMI JOIN reached USING (doc_id)"
        )
        documents = count_rows(connection, "(SELECT DISTINCT doc_id FROM moving)")
        manifests = manifests_with(store, connection, "reached")
        return Taken(added, documents, count_rows(connection, "moving"), manifests)


def add_takedowns(store: Store, demands: Sequence[Demand]) -> Taken:
    """Record demands and withdraw what they reach, in one transaction; then write the text parts without it.

    A demand that is there already keeps its time and its reason.
    """
    rows = demand_rows(demands)
    hashed = _hash_live(store, rows)
    with store.write() as connection:
        come = set(live_parts(connection).get("texts", [])) - hashed.parts
        hashed += doc_ids_by_hash(store, come, hashed.hashes)
        added = _load_new(connection, rows)
        connection.execute("INSERT INTO takedowns BY NAME SELECT *, $now AS added_at FROM demands", {"now": now()})
        find_reached(connection, "demands", None, hashed)
        occurrences = withdraw(connection)
        documents = _forget_moved(connection)
        manifests = manifests_with(store, connection, "reached")
    purge_withdrawn(store)
    return Taken(added, documents, occurrences, manifests)


def remove_takedowns(store: Store, demands: Sequence[Demand]) -> Lifted:
    """Lift demands. What no other demand holds back comes in again when its files are read again, which is asked for.

    Raises :class:`UserError` for a demand that is not there; then nothing is lifted.
    """
    with store.write() as connection:
        load(connection, "lifted", demand_rows(demands).select(["kind", "value"]))
        absent = connection.execute("SELECT kind, value FROM lifted ANTI JOIN takedowns USING (kind, value)").fetchone()
        if absent:
            raise UserError(
                f"there is no takedown {absent[0]} {absent[1]}; `winnow takedown list` shows those there are"
            )
        connection.execute(
            "CREATE TEMP TABLE reached AS SELECT DISTINCT doc_id FROM withdrawn SEMI JOIN lifted USING (kind, value)"
        )
        for table in ("takedowns", "withdrawn"):
            connection.execute(
                f"DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM lifted"  # noqa: S608
                f" WHERE lifted.kind = {table}.kind AND lifted.value = {table}.value)"
            )
        connection.execute(
            "CREATE TEMP TABLE released AS SELECT doc_id FROM reached ANTI JOIN withdrawn USING (doc_id)"
        )
        connection.execute(
            "CREATE TEMP TABLE again AS SELECT DISTINCT shard FROM quarantine"
            " WHERE reason = 'withdrawn' AND doc_id IN (SELECT doc_id FROM released)"
        )
        connection.execute("UPDATE shards SET reader = '' WHERE shard IN (SELECT shard FROM again)")
        tell_why(connection, "reached")
        return Lifted(
            count_rows(connection, "released"),
            [shard for (shard,) in connection.execute("FROM again ORDER BY shard").fetchall()],
        )


def list_takedowns(store: Store) -> list[dict[str, Any]]:
    """Return every demand with how many documents it holds back and which manifests have how many rows of them."""
    with store.read() as connection:
        rows = store.view("manifest_rows", live_parts(connection))
        cursor = connection.execute(
            f"""
            WITH held AS (
                SELECT kind, value, version, count(*) AS rows
                FROM ({rows}) JOIN withdrawn USING (doc_id) GROUP BY ALL
            )
            SELECT kind, value, reason, added_at,
                   (SELECT count(*) FROM withdrawn w WHERE w.kind = t.kind AND w.value = t.value) AS documents,
                   (SELECT list((version, rows) ORDER BY len(version), version) FROM held h
                    WHERE h.kind = t.kind AND h.value = t.value) AS manifests
            FROM takedowns t ORDER BY added_at, kind, value
            """  # noqa: S608
        )
        names = [column[0] for column in cursor.description or ()]
        found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row | {"manifests": dict(row["manifests"] or [])} for row in found]


def _load_new(connection: Connection, rows: pa.Table) -> int:
    """Make ``demands`` of those that are not yet in the store; return how many."""
    load(connection, "given", rows)
    connection.execute("CREATE TEMP TABLE demands AS SELECT * FROM given ANTI JOIN takedowns USING (kind, value)")
    return count_rows(connection, "demands")


def _hash_live(store: Store, rows: pa.Table) -> Hashed:
    """Hash the texts of all live parts, if a demand names a hash, with no connection open."""
    pairs = zip(rows["kind"].to_pylist(), rows["value"].to_pylist(), strict=True)
    hashes = frozenset(value for kind, value in pairs if kind == "sha256")
    with store.read() as connection:
        live = live_parts(connection).get("texts", [])
    return doc_ids_by_hash(store, live, hashes)


def _forget_moved(connection: Connection) -> int:
    """Drop the documents that moved, with all their judgements; return how many: none has an occurrence left."""
    load(connection, "priorities", pa.schema([("source", pa.string()), ("priority", pa.int64())]).empty_table())
    connection.execute("CREATE TEMP TABLE touched AS SELECT DISTINCT doc_id FROM moving")
    return derive_documents(connection)[1] if count_rows(connection, "touched") else 0
