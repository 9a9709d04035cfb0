"""The published file: what users query while the working store goes on.

It is a copy under a temporary name, renamed into place: a shell that holds the old file open keeps one whole state for
ever, blocks nobody and is blocked by nobody. Bulk tables are views over an explicit list of parts.

It is not writable, so that a shell which opens it has to say that it only reads, unless it is root's.

A store in one file is copied as bytes, as long as at most half of it is free space; other stores table by table.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb

from winnow.errors import UserError
from winnow.store.backends import FileBackend
from winnow.store.connections import SETTINGS, configure, quoted
from winnow.store.faults import SAID_FULL, explained
from winnow.store.lineage import LINEAGE, LINEAGE_COLUMNS, LINEAGE_MEANING
from winnow.store.published import open_published, remove_logs
from winnow.store.schema import tables
from winnow.store.store import Connection, Store, get_meta, live_parts, set_meta
from winnow.store.turns import file_turn
from winnow.store.views import uniform_tables
from winnow.store.wide import Column, current_columns, described, make_scores_wide


def publish(store: Store) -> bool:
    """Swap in a fresh ``winnow.duckdb`` if the store has changed since the last one; return whether it did.

    Raises :class:`UserError` when another process publishes for longer than ``store.lock_wait_seconds``, and when the
    published file shows a newer state of this store.
    """
    if not store.backend.exists():
        return False
    home = store.home
    home.store.mkdir(parents=True, exist_ok=True)
    turn = file_turn(home.store, store.settings.lock_wait_seconds, "publish", "published")
    with explained(str(home.root), "publishing"), turn:
        for abandoned in home.root.glob(".winnow-*.duckdb*"):  # of a killed run: the lock is ours
            abandoned.unlink(missing_ok=True)
        temporary = home.root / f".winnow-{uuid.uuid4().hex}.duckdb"
        try:
            with store.read() as connection:
                ours, theirs = _state(connection) | {"home": str(home.root)}, _published(store)
                if ours == theirs:
                    return False
                _require_no_newer(store, ours, theirs)
                live = live_parts(connection)
                copy_state(store, connection, temporary)
            _finish(store, temporary, live)
            temporary.chmod(temporary.stat().st_mode & ~0o222)  # no shell writes to it by mistake
            remove_logs(home)
            temporary.replace(home.published)
        finally:
            for left in (temporary, temporary.with_name(temporary.name + ".wal")):
                left.unlink(missing_ok=True)
    return True


def _state(connection: Connection) -> dict[str, str | None]:
    """Return which store it is, the number of its last write, and the places that its views point into."""
    return {key: get_meta(connection, key) for key in ("store", "generation", "home", "data")}


def _published(store: Store) -> dict[str, str | None]:
    """Return the state that the published file shows, nothing where there is none that can be read."""
    try:
        with open_published(store.home, store.settings) as connection:
            return _state(connection)
    except (UserError, duckdb.Error):
        return {}


def _require_no_newer(store: Store, ours: dict[str, str | None], theirs: dict[str, str | None]) -> None:
    same = all(ours[key] is not None and ours[key] == theirs.get(key) for key in ("store", "home"))
    if same and int(theirs["generation"] or 0) > int(ours["generation"] or 0):
        raise UserError(
            f"{store.home.published} shows write {theirs['generation']} of this store, which is only at "
            f"{ours['generation']}: if the store was put back to an older state, move that file away and run again"
        )


def copy_state(store: Store, connection: Connection, path: Path) -> None:
    """Copy the state that ``connection`` has open into a new DuckDB file: every table that lives in DuckDB."""
    if isinstance(store.backend, FileBackend) and _mostly_used(connection):
        for suffix in ("", ".wal"):  # a writer that was killed leaves a log, which opening the copy plays back
            source = store.backend.path.with_name(store.backend.path.name + suffix)
            if not suffix or source.exists():
                copy_bytes(source, path.with_name(path.name + suffix))
        return
    connection.execute(f"ATTACH '{quoted(str(path))}' AS published (READ_WRITE)")
    for table in tables().values():
        if not table.parts:
            connection.execute(f"CREATE TABLE published.{table.name} AS SELECT * FROM {table.name}")  # noqa: S608
    connection.execute("COMMIT")
    connection.execute("DETACH published")


def _mostly_used(connection: Connection) -> bool:
    used, total = connection.execute(
        "SELECT used_blocks, total_blocks FROM pragma_database_size() WHERE database_name = current_database()"
    ).fetchone() or (0, 1)
    return bool(2 * used >= total)


def copy_bytes(source: Path, target: Path) -> None:
    """Copy a DuckDB file that this process may have open.

    In a process of its own: closing a file drops all locks that its process holds on it, DuckDB's too.
    """
    done = subprocess.run(  # noqa: S603 - the paths are Winnow's own
        ["cp", "--", str(source), str(target)],  # noqa: S607 - wherever the system has it
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.split())
        full = done.returncode == -signal.SIGXFSZ or any(sign in said for sign in SAID_FULL)
        raise OSError(errno.ENOSPC if full else errno.EIO, f"copying {source} to {target} failed: {said}")


def _finish(store: Store, path: Path, live: dict[str, list[str]]) -> None:
    """Make a copy of the state what users query: internal tables go, views over parts, wide scores, comments come."""
    connection = duckdb.connect(path, config=dict(SETTINGS))
    try:
        configure(connection, store.settings, store.home.scratch)
        for table in tables().values():
            if table.internal:
                connection.execute(f"DROP TABLE IF EXISTS {table.name}")
        uniform = uniform_tables(connection)
        connection.execute("CHECKPOINT")  # so that their space is used again
        connection.execute("BEGIN")
        for table in tables().values():
            if table.parts:
                connection.execute(f"CREATE VIEW {table.name} AS {store.view(table.name, live, uniform)}")
        columns = current_columns(connection, store.storage, live.get("scores", []))
        make_scores_wide(connection, columns, store.storage)
        connection.execute(f"CREATE VIEW lineage AS {LINEAGE}")
        _comment(connection, columns)
        set_meta(connection, "home", str(store.home.root))
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")
    finally:
        connection.close()


def _comment(connection: Connection, columns: Sequence[Column]) -> None:
    """Carry every column's meaning into the published file, where DESCRIBE-like tools can show it."""
    comments = [
        ("VIEW" if table.parts else "TABLE", table.name, table.meaning, table.columns)
        for table in tables().values()
        if not table.internal
    ]
    comments.append(("TABLE", "scores_wide", "A document's current judgements side by side.", described(columns)))
    comments.append(("VIEW", "lineage", LINEAGE_MEANING, LINEAGE_COLUMNS))
    for kind, name, meaning, explanations in comments:
        connection.execute(f"COMMENT ON {kind} {name} IS '{quoted(meaning)}'")
        for column, _, told in explanations:
            connection.execute(f"COMMENT ON COLUMN {name}.\"{column}\" IS '{quoted(told)}'")
