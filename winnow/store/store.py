"""The store: short transactions, parts, snapshots for computing, and the published file that users query.

DuckDB lets one process write and then nobody else read, so: compute with no connection open (:meth:`Store.scratch`),
then one short transaction (:meth:`Store.write`); users read a published copy (:meth:`Store.publish`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.backends import make_backend, open_waiting
from winnow.store.connections import SETTINGS, configure, quoted
from winnow.store.faults import explained
from winnow.store.parts import Part, conform, write_parts
from winnow.store.schema import Table, tables
from winnow.store.storage import data_root, part_storage, require_parts
from winnow.store.views import files_view, uniform_tables

Connection = duckdb.DuckDBPyConnection


def now() -> datetime:
    """Return the present time in UTC without a zone, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Store:
    """One working store; cheap to make, opens nothing until asked."""

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        self.home, self.settings = home, settings
        self.data = data_root(home, settings)
        self.storage = part_storage(home, settings)
        self.backend = make_backend(home, settings)

    # -- connections ------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self, *names: str) -> Iterator[Connection]:
        """Open one state of the working store; it may block writers, so hold it no longer than a query.

        The parts-backed tables among ``names`` are there as views. Raises :class:`UserError` when the store stays
        locked, or a newer Winnow wrote it.
        """
        with explained(self.data), closing(self._open_whole()) as connection:
            connection.execute("BEGIN")
            wanted = [table for table in (tables()[name] for name in names) if table.parts]
            live, uniform = (live_parts(connection), uniform_tables(connection)) if wanted else ({}, set())
            for table in wanted:
                connection.execute(f"CREATE TEMP VIEW {table.name} AS {self.view(table.name, live, uniform)}")
            yield connection

    def _open_whole(self) -> Connection:
        """Open for reading; where there are no tables, or those of an older Winnow, a write mends that first."""
        from winnow.store.migrations import is_current

        if self.backend.exists():
            connection = open_waiting(self.backend, True, self.settings.lock_wait_seconds)
            try:
                if is_current(connection):
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
        from winnow.store.migrations import bring_forward

        seconds = self.settings.lock_wait_seconds
        with (
            explained(self.data),
            self.backend.turn(seconds),
            closing(open_waiting(self.backend, False, seconds)) as connection,  # what is not committed is rolled back
        ):
            bring_forward(self, connection)
            connection.execute("BEGIN")
            self._follow_data(connection)
            if get_meta(connection, "store") is None:
                set_meta(connection, "store", uuid.uuid4().hex)
            yield connection
            set_meta(connection, "generation", str(int(get_meta(connection, "generation") or 0) + 1))
            connection.execute("COMMIT")

    def _follow_data(self, connection: Connection) -> None:
        """Remember where the data lies, for the readers of the published file and to notice when it was moved."""
        before = get_meta(connection, "data") or ""
        if before != self.settings.data:
            require_parts(self.storage, live_parts(connection), before, self.settings.data)
            set_meta(connection, "data", self.settings.data)

    @contextmanager
    def scratch(self, *names: str, only: Mapping[str, str] | None = None) -> Iterator[Connection]:
        """Open an in-memory database to compute in, holding one consistent state and no lock; empty without names.

        ``names`` are tables of the store: those of DuckDB are copied, parts are views over the live files. ``only``
        (column = value) leaves out the other rows of the tables that have such a column. Memory and spill follow the
        settings.
        """
        wanted = [tables()[name] for name in names]
        filters = {table.name: _filter(table, only or {}) for table in wanted}
        copies: dict[str, pa.Table] = {}
        live: dict[str, list[str]] = {}
        uniform: Collection[str] = ()
        if wanted:
            with self.read() as connection:
                for table in wanted:
                    if not table.parts:
                        query = f"SELECT * FROM {table.name}{filters[table.name]}"  # noqa: S608
                        copies[table.name] = connection.execute(query).to_arrow_table()
                if any(table.parts and table.document for table in wanted) and "documents" not in copies:
                    copies["documents"] = connection.execute("SELECT * FROM documents").to_arrow_table()
                if any(table.parts for table in wanted):
                    live, uniform = live_parts(connection), uniform_tables(connection)
        with explained(self.data), closing(duckdb.connect(":memory:", config=dict(SETTINGS))) as memory:
            configure(memory, self.settings, self.home.scratch)
            for name, rows in copies.items():
                load(memory, name, rows)
            for table in wanted:
                if table.parts:
                    view = f"SELECT * FROM ({self.view(table.name, live, uniform)}){filters[table.name]}"  # noqa: S608
                    memory.execute(f"CREATE VIEW {table.name} AS {view}")
            yield memory

    def query(self, sql: str, parameters: dict[str, Any] | list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one SELECT on the working store's tables and return its rows."""
        with self.read(*_parts_tables(sql)) as connection:
            return connection.execute(sql, parameters or {}).fetchall()

    def arrow(self, sql: str, parameters: dict[str, Any] | list[Any] | None = None) -> pa.Table:
        """Run one SELECT on the working store's tables and return it as Arrow."""
        with self.read(*_parts_tables(sql)) as connection:
            return connection.execute(sql, parameters or {}).to_arrow_table()

    # -- parts ------------------------------------------------------------------------------------------------------

    def write_parts(self, kind: str, rows: Iterable[pa.Table]) -> list[Part]:
        """Write bulk rows as parts; make them live with :func:`add_parts` inside a transaction."""
        return write_parts(self.storage, kind, rows)

    def view(self, name: str, live: dict[str, list[str]], uniform: Collection[str] = ()) -> str:
        """Return the SELECT that a view of a parts-backed table is made of: an explicit list of files.

        ``uniform`` names tables whose files all have the dictionary's columns: see :mod:`winnow.store.views`.
        """
        uris = [self.storage.uri(name, part) for part in live.get(name, [])]
        return files_view(tables()[name], uris, name in uniform)

    def publish(self) -> bool:
        """Swap in a fresh published file if the store has changed; see :func:`winnow.store.publish.publish`."""
        from winnow.store.publish import publish

        return publish(self)


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


def add_parts(
    connection: Connection, parts: Iterable[Part], owner: str | None = None, added_at: datetime | None = None
) -> None:
    """Make parts live; one that already is stays as it is. ``owner`` is what they are all the rows of.

    Raises :class:`UserError` when one that was written does not lie in its storage any more.
    """
    named = {part.digest: part for part in parts}
    if not named:
        return
    for storage in {part.storage for part in named.values() if part.storage is not None}:
        wanted = [(part.kind, part.digest) for part in named.values() if part.storage == storage]
        if gone := storage.missing(wanted):
            raise UserError(
                f"{len(gone)} parts went before they were listed, {storage.uri(*min(gone))} among them: garbage "
                "collection took them, or somebody else; run this again"
            )
    columns: dict[str, list[Any]] = {name: [] for name in ("part", "kind", "rows", "bytes", "owner", "added_at")}
    moment = added_at or now()
    for digest, part in sorted(named.items()):
        row = (digest, part.kind, part.rows, part.bytes, owner, moment)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    load(connection, "listed", conform("parts", pa.table(columns)))
    connection.execute("DELETE FROM unlisted WHERE part IN (SELECT part FROM listed)")
    connection.execute("INSERT INTO parts BY NAME FROM listed ANTI JOIN parts USING (part)")
    connection.execute("DROP TABLE listed")


def unlist_parts(connection: Connection, condition: str, parameters: Mapping[str, Any]) -> None:
    """Make the parts that meet a condition live no more, and remember since when: their files go later."""
    gone = f"FROM parts WHERE {condition}"
    connection.execute(
        f"INSERT INTO unlisted BY NAME SELECT part, kind, $now AS unlisted_at {gone}",
        {**parameters, "now": now()},
    )
    connection.execute(f"DELETE {gone}", dict(parameters))


def replace_owned(connection: Connection, kind: str, owner: str, parts: Iterable[Part]) -> None:
    """Put parts in the place of all live ones of this kind and owner."""
    unlist_parts(connection, "kind = $kind AND owner = $owner", {"kind": kind, "owner": owner})
    add_parts(connection, parts, owner)


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


def _parts_tables(sql: str) -> list[str]:
    """Return the parts-backed tables whose names occur in a query."""
    words = set(re.findall(r"\w+", sql))
    return [table.name for table in tables().values() if table.parts and table.name in words]


def _filter(table: Table, only: Mapping[str, str]) -> str:
    """Return a WHERE clause for the columns of ``only`` that the table has; quoted, as a view takes no parameters."""
    columns = {name for name, _, _ in table.columns}
    conditions = [f"\"{column}\" = '{quoted(value)}'" for column, value in only.items() if column in columns]
    return " WHERE " + " AND ".join(conditions) if conditions else ""
