"""The published file: what users query while the working store goes on.

It is a copy under a temporary name, renamed into place: a shell that holds the old file open keeps one whole state for
ever, blocks nobody and is blocked by nobody. Bulk tables are views over an explicit list of parts.
"""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path

import duckdb

from winnow.errors import UserError
from winnow.store.backends import SETTINGS, configure
from winnow.store.dictionary import SCORES_WIDE as WIDE_COLUMNS
from winnow.store.schema import tables
from winnow.store.store import Connection, Store, get_meta, live_parts, open_published, quoted, set_meta

SCORES_WIDE = """
    CREATE TABLE scores_wide AS
    WITH newest AS (SELECT influence_model FROM manifests ORDER BY len(version) DESC, version DESC LIMIT 1)
    SELECT doc_id, source, s.score AS influence, s.checkpoint AS influence_checkpoint,
           gopher_passed, c.cluster, d.keeper_id, coalesce(k.contaminated, false) AS contaminated
    FROM documents
    LEFT JOIN (SELECT * FROM scores WHERE version IN (SELECT influence_model FROM newest)) s USING (doc_id)
    LEFT JOIN signals USING (doc_id)
    LEFT JOIN clusters c USING (doc_id)
    LEFT JOIN (SELECT doc_id, keeper_id FROM duplicates WHERE kind = 'near') d USING (doc_id)
    LEFT JOIN (SELECT doc_id, bool_or(contaminated) AS contaminated FROM contamination GROUP BY doc_id) k USING (doc_id)
"""


def publish(store: Store) -> bool:
    """Swap in a fresh ``winnow.duckdb`` if the store has changed since the last one; return whether it did."""
    if not store.backend.exists():
        return False
    home = store.home
    home.store.mkdir(parents=True, exist_ok=True)
    with (home.store / "publish.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in home.root.glob(".winnow-*.duckdb*"):  # of a killed run: the lock is ours
            abandoned.unlink(missing_ok=True)
        temporary = home.root / f".winnow-{uuid.uuid4().hex}.duckdb"
        try:
            with store.read() as connection:
                if (get_meta(connection, "generation"), str(home.root)) == _published(store):
                    return False
                live = live_parts(connection)
                _copy_tables(connection, temporary)
            _finish(store, temporary, live)
            # A shell that writes to the old file leaves a log, which DuckDB would replay on the new one.
            home.published.with_name(home.published.name + ".wal").unlink(missing_ok=True)
            temporary.replace(home.published)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _published(store: Store) -> tuple[str | None, str | None]:
    """Return the generation of the published file and the home that its views point into."""
    try:
        with open_published(store.home) as connection:
            return get_meta(connection, "generation"), get_meta(connection, "home")
    except (UserError, duckdb.Error):
        return None, None


def _copy_tables(connection: Connection, path: Path) -> None:
    """Copy every public table that lives in DuckDB into a new file, streaming."""
    connection.execute(f"ATTACH '{quoted(str(path))}' AS published (READ_WRITE)")
    for table in tables().values():
        if not table.parts and not table.internal:
            connection.execute(f"CREATE TABLE published.{table.name} AS SELECT * FROM {table.name}")  # noqa: S608
    connection.execute("COMMIT")
    connection.execute("DETACH published")


def _finish(store: Store, path: Path, live: dict[str, list[str]]) -> None:
    """Add to the copied tables what only the published file has: views over parts, wide scores, comments."""
    connection = duckdb.connect(path, config=dict(SETTINGS))
    try:
        configure(connection, store.settings, store.home.scratch)
        for table in tables().values():
            if table.parts:
                connection.execute(f"CREATE VIEW {table.name} AS {store.view(table.name, live)}")
        connection.execute(SCORES_WIDE)
        _comment(connection)
        set_meta(connection, "home", str(store.home.root))
        connection.execute("CHECKPOINT")
    finally:
        connection.close()


def _comment(connection: Connection) -> None:
    """Carry every column's meaning into the published file, where DESCRIBE-like tools can show it."""
    described = [
        ("VIEW" if table.parts else "TABLE", table.name, table.meaning, table.columns)
        for table in tables().values()
        if not table.internal
    ]
    described.append(("TABLE", "scores_wide", "A document's current judgements side by side.", WIDE_COLUMNS))
    for kind, name, meaning, columns in described:
        connection.execute(f"COMMENT ON {kind} {name} IS '{quoted(meaning)}'")
        for column, _, explained in columns:
            connection.execute(f"COMMENT ON COLUMN {name}.\"{column}\" IS '{quoted(explained)}'")
