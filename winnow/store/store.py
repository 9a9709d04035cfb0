"""The store: short transactions, parts, snapshots for computing, and the published file that users query.

DuckDB lets one process write and then nobody else read, so: compute with no connection open (:meth:`Store.scratch`),
then one short transaction (:meth:`Store.write`); users read a published copy (:meth:`Store.publish`).
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.backends import SETTINGS, configure, is_busy, make_backend, open_waiting, writing_turn
from winnow.store.parts import Part, conform, write_parts
from winnow.store.schema import SCHEMA_VERSION, Table, tables

Connection = duckdb.DuckDBPyConnection


def now() -> datetime:
    """Return the present time in UTC without a zone, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Store:
    """One working store; cheap to make, opens nothing until asked."""

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        self.home, self.settings = home, settings
        self.backend = make_backend(home.store, settings, home.scratch)

    # -- connections ------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one state of the working store; it may block writers, so hold it no longer than a query.

        Raises :class:`UserError` when the store stays locked, or a newer Winnow wrote it.
        """
        connection = self._open_whole()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()

    def _open_whole(self) -> Connection:
        """Open for reading; where there are no tables (no store, or its first write was cut off), create them first."""
        if self.backend.exists():
            connection = open_waiting(self.backend, True, self.settings.lock_wait_seconds)
            try:
                if _schema_version(connection) is not None:
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
        with self.write():
            pass
        return open_waiting(self.backend, True, self.settings.lock_wait_seconds)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open one transaction: committed when the block ends, rolled back when it raises, closed either way."""
        with writing_turn(self.home.store, self.settings.lock_wait_seconds):
            connection = open_waiting(self.backend, False, self.settings.lock_wait_seconds)
            try:
                known = _schema_version(connection)
                connection.execute("BEGIN")
                if known is None:
                    _create_tables(connection)
                yield connection
                set_meta(connection, "generation", str(int(get_meta(connection, "generation") or 0) + 1))
                connection.execute("COMMIT")
            finally:
                connection.close()  # what is not committed is rolled back

    @contextmanager
    def scratch(self, *names: str, only: Mapping[str, str] | None = None) -> Iterator[Connection]:
        """Open an in-memory database to compute in, holding one consistent state and no lock.

        ``names`` are tables of the store: those of DuckDB are copied, parts are views over the live files. ``only``
        (column = value) leaves out the other rows of the tables that have such a column. Memory and spill follow the
        settings.
        """
        copies: dict[str, pa.Table] = {}
        wanted = [tables()[name] for name in names]
        filters = {table.name: _filter(table, only or {}) for table in wanted}
        with self.read() as connection:
            for table in wanted:
                if not table.parts:
                    query = f"SELECT * FROM {table.name}{filters[table.name]}"  # noqa: S608
                    copies[table.name] = connection.execute(query).to_arrow_table()
            if any(table.parts for table in wanted) and "documents" not in copies:
                copies["documents"] = connection.execute("SELECT * FROM documents").to_arrow_table()
            live = live_parts(connection)
        memory = duckdb.connect(":memory:", config=dict(SETTINGS))
        try:
            configure(memory, self.settings, self.home.scratch)
            for name, rows in copies.items():
                load(memory, name, rows)
            for table in wanted:
                if table.parts:
                    view = f"SELECT * FROM ({self.view(table.name, live)}){filters[table.name]}"  # noqa: S608
                    memory.execute(f"CREATE VIEW {table.name} AS {view}")
            yield memory
        finally:
            memory.close()

    def query(self, sql: str, parameters: dict[str, Any] | list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one SELECT on the working store's tables and return its rows."""
        with self.read() as connection:
            return connection.execute(sql, parameters or {}).fetchall()

    def arrow(self, sql: str, parameters: dict[str, Any] | list[Any] | None = None) -> pa.Table:
        """Run one SELECT on the working store's tables and return it as Arrow."""
        with self.read() as connection:
            return connection.execute(sql, parameters or {}).to_arrow_table()

    # -- parts ------------------------------------------------------------------------------------------------------

    def write_parts(self, kind: str, rows: Iterable[pa.Table]) -> list[Part]:
        """Write bulk rows as parts; make them live with :func:`add_parts` inside a transaction."""
        return write_parts(self.home.parts, kind, rows)

    def part_path(self, kind: str, digest: str) -> Path:
        return self.home.parts / kind / f"{digest}.parquet"

    def view(self, name: str, live: dict[str, list[str]]) -> str:
        """Return the SELECT that a view of a parts-backed table is made of: an explicit list of files."""
        table = tables()[name]
        columns = ", ".join(f'"{column}"' for column, _, _ in table.columns)
        paths = [str(self.part_path(name, part)).replace("'", "''") for part in live.get(name, [])]
        if not paths:
            typed = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind, _ in table.columns)
            return f"SELECT {typed} WHERE false"
        files = "read_parquet([" + ", ".join(f"'{path}'" for path in paths) + "])"
        if name == "texts":
            return f"SELECT {columns} FROM {files} SEMI JOIN documents USING (doc_id, shard, row)"  # noqa: S608
        if table.document:
            return f"SELECT {columns} FROM {files} SEMI JOIN documents USING ({table.document})"  # noqa: S608
        return f"SELECT {columns} FROM {files}"  # noqa: S608

    def publish(self) -> bool:
        """Swap in a fresh published file if the store has changed; see :func:`winnow.store.publish.publish`."""
        from winnow.store.publish import publish

        return publish(self)


def open_published(home: Home) -> Connection:
    """Open the published file read-only. Raises :class:`UserError` when there is none."""
    if not home.published.exists():
        raise UserError(f"{home.published} does not exist: run `winnow demo` or `winnow run` first, or set WINNOW_HOME")
    try:
        return duckdb.connect(home.published, read_only=True, config=dict(SETTINGS))
    except duckdb.IOException as error:
        if not is_busy(error):
            raise
    # Somebody's shell holds the file for writing: read a copy of our own, whose name goes at once.
    home.scratch.mkdir(parents=True, exist_ok=True)
    copy = home.scratch / f"published-{uuid.uuid4().hex}.duckdb"
    try:
        shutil.copyfile(home.published, copy)
        return duckdb.connect(copy, read_only=True, config=dict(SETTINGS))
    finally:
        copy.unlink(missing_ok=True)


def open_store(home: Home, settings: StoreSettings | None = None) -> Store:
    """Return the store of a home; without ``settings``, as its ``winnow.toml`` says."""
    if settings is None:
        from winnow.config import load_config

        settings = load_config(home.config).store
    return Store(home, settings)


# -- inside a transaction -------------------------------------------------------------------------------------------


def insert(connection: Connection, name: str, rows: pa.Table) -> None:
    """Append Arrow rows to a table, columns matched by name; absent columns are null."""
    if not len(rows):
        return
    connection.register("incoming_rows", conform(name, rows))
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming_rows")  # noqa: S608
    connection.unregister("incoming_rows")


def load(connection: Connection, name: str, rows: pa.Table) -> None:
    """Make Arrow rows a temporary table; DuckDB cannot filter a registered Arrow table by UUID."""
    connection.register("loading_rows", rows)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM loading_rows")  # noqa: S608
    connection.unregister("loading_rows")


def replace_rows(connection: Connection, name: str, rows: pa.Table, keys: Sequence[str]) -> None:
    """Insert rows after deleting those with the same values of ``keys``."""
    if not len(rows):
        return
    load(connection, "replacing_rows", rows.select(list(keys)))
    same = " AND ".join(f'{name}."{key}" IS NOT DISTINCT FROM replacing_rows."{key}"' for key in keys)
    connection.execute(f"DELETE FROM {name} WHERE EXISTS (SELECT 1 FROM replacing_rows WHERE {same})")  # noqa: S608
    connection.execute("DROP TABLE replacing_rows")
    insert(connection, name, rows)


def insert_row(connection: Connection, name: str, **values: Any) -> None:
    """Append one row given by column name."""
    columns = ", ".join(f'"{column}"' for column in values)
    marks = ", ".join(f"${column}" for column in values)
    connection.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", values)  # noqa: S608


def add_parts(connection: Connection, parts: Iterable[Part]) -> None:
    """Make parts live; one that already is stays as it is."""
    for part in parts:
        known = connection.execute("SELECT 1 FROM parts WHERE part = $part", {"part": part.digest}).fetchone()
        if not known:
            insert_row(
                connection, "parts", part=part.digest, kind=part.kind, rows=part.rows, bytes=part.bytes, added_at=now()
            )


def live_parts(connection: Connection) -> dict[str, list[str]]:
    """Return the live part digests by kind, sorted."""
    live: dict[str, list[str]] = {}
    for kind, part in connection.execute("SELECT kind, part FROM parts ORDER BY kind, part").fetchall():
        live.setdefault(kind, []).append(part)
    return live


def get_meta(connection: Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = $key", {"key": key}).fetchone()
    return row[0] if row else None


def set_meta(connection: Connection, key: str, value: str) -> None:
    connection.execute("DELETE FROM meta WHERE key = $key", {"key": key})
    insert_row(connection, "meta", key=key, value=value)


def _schema_version(connection: Connection) -> int | None:
    """Return the schema version, None before there are tables. Raises :class:`UserError` for a newer Winnow's."""
    try:
        found = get_meta(connection, "schema_version")
    except duckdb.CatalogException:
        return None
    if found is not None and int(found) > SCHEMA_VERSION:
        raise UserError(
            f"the store has schema version {found}, this Winnow knows {SCHEMA_VERSION}: "
            "upgrade winnow, or use another WINNOW_HOME"
        )
    return int(found) if found is not None else None


def _create_tables(connection: Connection) -> None:
    for table in tables().values():
        if not table.parts:
            connection.execute(table.create())
    set_meta(connection, "schema_version", str(SCHEMA_VERSION))


def _filter(table: Table, only: Mapping[str, str]) -> str:
    """Return a WHERE clause for the columns of ``only`` that the table has; quoted, as a view takes no parameters."""
    columns = {name for name, _, _ in table.columns}
    conditions = [f"\"{column}\" = '{quoted(value)}'" for column, value in only.items() if column in columns]
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def quoted(text: str) -> str:
    return text.replace("'", "''")
