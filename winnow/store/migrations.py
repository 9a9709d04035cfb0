"""Bringing a store forward: its tables and columns become those of the dictionary, and data moves where a step says so.

The first write does it (a read that finds an old store makes one), in one transaction: a run that is killed meanwhile
leaves the old store whole. Tables and columns that the store lacks are added by comparing it with the dictionary, so a
new signal or a new table needs nothing here. Nothing is ever dropped but by a step; a column that is added stands last.
So a store with a table or column that the dictionary lacks was written by a newer Winnow, whatever version it has, and
is refused: an older one would leave these empty.

To change what is already written (a column that moves, splits, changes its meaning or goes):

1. raise ``SCHEMA_VERSION`` in ``schema.py`` by one, to n;
2. write a function ``(store, connection) -> None`` here that finds the dictionary's tables and columns all there,
   beside the old ones, and moves the rows; parts may be written, since none counts before the transaction lists it;
3. put it into ``STEPS`` under n, and a store with the DDL of n - 1, frozen as text, into
   ``tests/store/test_migrations.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError
from winnow.identity import digest
from winnow.store.schema import SCHEMA_VERSION, tables
from winnow.store.stage import forget_keys
from winnow.store.store import (
    Connection,
    Store,
    add_parts,
    get_meta,
    live_parts,
    replace_owned,
    set_meta,
    unlist_parts,
)
from winnow.store.views import MIXED

log = logging.getLogger(__name__)


@cache
def schema_digest() -> str:
    """Return the digest of the dictionary's tables and columns, as the store remembers it."""
    return digest({table.name: [list(column[:2]) for column in table.columns] for table in tables().values()})


def is_current(connection: Connection) -> bool:
    """Return whether the store has the dictionary's tables. Raises :class:`UserError` when a newer Winnow wrote it."""
    known = _written_by(connection)
    if known.get("schema_version") != str(SCHEMA_VERSION):
        return False
    if known.get("schema") == schema_digest():
        return True
    unknown = _unknown(connection)
    if unknown:
        raise UserError(
            f"the store has {', '.join(unknown)}, which this Winnow does not know; a newer one wrote it: "
            "upgrade winnow, or use another WINNOW_HOME"
        )
    return False


def _unknown(connection: Connection) -> list[str]:
    """Return the tables, and the columns of known tables, that the dictionary lacks, sorted."""
    found = []
    for name, columns in columns_of(connection).items():
        table = tables().get(name)
        if table is None or table.parts:
            found.append(name)
        else:
            found += [f"{name}.{column}" for column in columns - {column for column, _, _ in table.columns}]
    return sorted(found)


def bring_forward(store: Store, connection: Connection) -> None:
    """Create the tables, or bring those of an older Winnow forward, in a transaction of its own.

    Raises :class:`UserError` when a newer Winnow wrote the store.
    """
    if is_current(connection):
        return
    connection.execute("BEGIN")
    known = int(_written_by(connection).get("schema_version", 0))
    live = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM parts").fetchall()} if known else set()
    _add_what_is_missing(connection)
    for version in range((known or SCHEMA_VERSION) + 1, SCHEMA_VERSION + 1):
        log.info("bringing the store forward to schema version %d", version)
        STEPS[version](store, connection)
    set_meta(connection, "schema_version", str(SCHEMA_VERSION))
    set_meta(connection, "schema", schema_digest())
    _remember_part_columns(connection, live & set(live_parts(connection)))
    if known:  # so that the published file follows
        set_meta(connection, "generation", str(int(get_meta(connection, "generation") or 0) + 1))
    connection.execute("COMMIT")


def _written_by(connection: Connection) -> dict[str, str]:
    """Return schema version and digest, nothing before there are tables. Raises :class:`UserError` for a newer one."""
    try:
        rows = connection.execute("SELECT key, value FROM meta WHERE key IN ('schema_version', 'schema')").fetchall()
    except duckdb.CatalogException:
        return {}
    known = dict(rows)
    if int(known.get("schema_version", 0)) > SCHEMA_VERSION:
        raise UserError(
            f"the store has schema version {known['schema_version']}, this Winnow knows {SCHEMA_VERSION}: "
            "upgrade winnow, or use another WINNOW_HOME"
        )
    return known


def columns_of(connection: Connection) -> dict[str, set[str]]:
    """Return the columns of every table in the store."""
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns()"
        " WHERE database_name = current_database() AND schema_name = current_schema() AND NOT internal"
    ).fetchall():
        found.setdefault(table, set()).add(column)
    return found


def _add_what_is_missing(connection: Connection) -> None:
    there = columns_of(connection)
    for table in tables().values():
        if table.parts:
            continue
        if table.name not in there:
            connection.execute(table.create())
            continue
        for column, kind, _ in table.columns:
            if column not in there[table.name]:
                log.info("the store gets the column %s.%s", table.name, column)
                connection.execute(f'ALTER TABLE {table.name} ADD COLUMN "{column}" {kind}')


def _remember_part_columns(connection: Connection, live: set[str]) -> None:
    """Note which columns the parts of each table have; those ``live`` before may lack one that has come since."""
    before: dict[str, str] = json.loads(get_meta(connection, "part_columns") or "{}")
    known = {}
    for table in tables().values():
        if table.parts:
            columns = digest([list(column[:2]) for column in table.columns])
            known[table.name] = columns if table.name not in live or before.get(table.name) == columns else MIXED
    set_meta(connection, "part_columns", json.dumps(known))


def _decisions_become_parts(store: Store, connection: Connection) -> None:
    """2: the rows of the table ``decisions`` become parts, those of a selection together, and the table goes."""
    if "decisions" not in columns_of(connection):
        return
    selections = connection.execute("SELECT DISTINCT selection FROM decisions ORDER BY selection").fetchall()
    for (selection,) in selections:
        rows = connection.execute(
            "SELECT * FROM decisions WHERE selection = $selection ORDER BY doc_id", {"selection": selection}
        ).to_arrow_reader(50_000)
        parts = store.write_parts("decisions", (pa.Table.from_batches([batch]) for batch in rows))
        replace_owned(connection, "decisions", selection, parts)
    connection.execute("DROP TABLE decisions")


def _bands_become_rows_of_documents(store: Store, connection: Connection) -> None:
    """3: a row of ``bands`` is a document with all its keys, and schemes name other things: all is sketched anew."""
    unlist_parts(connection, "kind IN ('sketches', 'bands')", {})
    connection.execute("DELETE FROM bucket_centers")
    connection.execute("DELETE FROM duplicate_pairs WHERE kind = 'near'")
    connection.execute("DELETE FROM judged WHERE stage = 'duplicate_pairs'")
    forget_keys(connection, "duplicate_pairs", "duplicates")


def _estimates_tell_how_they_were_made(store: Store, connection: Connection) -> None:
    """4: estimator, scope and damping leave the method's name for columns, in the parts of ``scores`` too.

    All influence models were ridge regressions. ``all`` was the linear layers of blocks and head then. A regular
    expression met linear layers alone, which no scope's name says; the methods of now have other names than those rows.
    """
    for table in ("probes", "influence_models"):
        methods = connection.execute(f"SELECT DISTINCT method FROM {table} WHERE method IS NOT NULL").fetchall()  # noqa: S608
        for (method,) in methods:
            connection.execute(
                f"UPDATE {table} SET estimator = $estimator, scope = $scope, projection = 0, damping = $damping"  # noqa: S608
                " WHERE method = $method",
                {"method": method, **_estimate_of(method)},
            )
    connection.execute("UPDATE influence_models SET surrogate = 'ridge', loss = 'squared', held_out = probes")
    models = connection.execute(
        "SELECT model, estimator, scope, projection, damping FROM influence_models ORDER BY model"
    ).to_arrow_table()
    listed = connection.execute(
        "SELECT part, owner, added_at FROM parts WHERE kind = 'scores' ORDER BY part"
    ).fetchall()
    for part, owner, added_at in listed:
        try:
            with store.storage.open("scores", part) as file:
                pieces = (pa.Table.from_batches([batch]) for batch in file.iter_batches(100_000))
                written = store.write_parts("scores", (_with_estimate(rows, models) for rows in pieces))
        except (OSError, UserError, pa.ArrowException) as error:  # `winnow doctor` tells it
            log.warning("%s stays as it is: it cannot be read (%s)", store.storage.uri("scores", part), error)
            continue
        if [one.digest for one in written] != [part]:
            unlist_parts(connection, "part = $part", {"part": part})
            add_parts(connection, written, owner, added_at)


def _estimate_of(method: str) -> dict[str, str | float | None]:
    """Take apart ``estimator/scope/damping/digest``, where the scope may hold slashes, or ``oracle/digest``."""
    estimator, *rest = method.split("/")
    if len(rest) < 3:  # the oracle's step moves every parameter
        return {"estimator": estimator, "scope": "all", "damping": None}
    scope = "/".join(rest[:-2])
    return {"estimator": estimator, "scope": "blocks+head" if scope == "all" else scope, "damping": float(rest[-2])}


def _with_estimate(rows: pa.Table, models: pa.Table) -> pa.Table:
    """Return rows of ``scores`` with the estimate that their influence model predicts; others have none."""
    place = pc.index_in(rows["version"], value_set=models["model"].combine_chunks())
    place = pc.if_else(pc.equal(rows["scorer"], "influence"), place, pa.scalar(None, pa.int32()))
    for name in ("estimator", "scope", "projection", "damping"):
        rows = rows.append_column(name, models[name].take(place))
    return rows


STEPS: dict[int, Callable[[Store, Connection], None]] = {
    2: _decisions_become_parts,
    3: _bands_become_rows_of_documents,
    4: _estimates_tell_how_they_were_made,
}
