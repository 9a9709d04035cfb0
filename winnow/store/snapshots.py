"""The store as it was when a manifest was made: kept as parts, opened again by ``winnow sql --at``.

A snapshot is a list of parts. Tables that live in parts give their live ones. Every other public table is written, in
the order of its key, to parts of the kind ``snapshot_<table>``: the same rows give the same bytes, so the same digests.
Beside them stands what an order-free hash makes of the rows; a table with the same is not written again, so that an
unchanged one costs no space and no more time than to hash it. ``manifests`` and ``snapshots`` only grow, so they are
cut at the version instead; ``meta`` is about the store, not its data. ``costs`` and ``stage_keys`` are as they were
before the manifest's own rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest
from winnow.store.connections import READING, configure
from winnow.store.frozen import frozen
from winnow.store.lineage import LINEAGE
from winnow.store.parts import SNAPSHOT, Part
from winnow.store.published import open_published
from winnow.store.schema import Table, tables
from winnow.store.storage import PartStorage
from winnow.store.store import (
    Connection,
    Store,
    add_parts,
    get_meta,
    insert,
    live_parts,
    load,
    open_store,
)
from winnow.store.views import files_view, uniform_tables
from winnow.store.wide import current_columns, grouped_wide_query

log = logging.getLogger(__name__)

CUT_AT_VERSION = ("manifests", "snapshots")
ROWS = 100_000
"""Rows of a row group; with the order of the rows it decides the bytes of a part."""
ATTEMPTS = 3


@dataclass(frozen=True)
class Snapshot:
    """The parts of one state: (table, kind of the part, digest), sorted; ``generation`` is the store's number of it.

    ``contents``: table -> what tells its rows apart from others, for the tables that are written.
    """

    generation: str | None
    parts: tuple[tuple[str, str, str], ...]
    contents: Mapping[str, str]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(sorted({part for _, _, part in self.parts}))


@contextmanager
def committing_snapshot(
    store: Store, version: str, rows: list[Part], made_at: datetime
) -> Iterator[tuple[Connection, Snapshot]]:
    """Open the transaction that adds a manifest: its ``rows`` are live in it, its snapshot is taken and listed.

    The snapshot is taken before, while others may write; if one of them did, it is taken again, and the last time
    inside the transaction, while nobody can. Raises :class:`UserError` when another run made this version meanwhile.
    """
    for _ in range(ATTEMPTS):
        with frozen(store) as state:
            snapshot = take_snapshot(store, state, rows, version, made_at)
        with store.read() as connection:
            if get_meta(connection, "generation") == snapshot.generation:
                break
        log.info("the store changed while %s took its snapshot: once more", version)
    with store.write() as connection:
        if connection.execute("SELECT 1 FROM manifests WHERE version = $version", {"version": version}).fetchone():
            raise UserError(f"another run made manifest {version} meanwhile: run `manifests` again")
        if get_meta(connection, "generation") != snapshot.generation:
            snapshot = take_snapshot(store, connection, rows, version, made_at)
        add_parts(connection, rows, version, made_at)
        names, kinds, parts = (pa.array(column, pa.string()) for column in zip(*snapshot.parts, strict=True))
        versions = pa.array([version] * len(names), pa.string())
        contents = pa.array([snapshot.contents.get(name) for name in names.to_pylist()], pa.string())
        rows_of = {"version": versions, "name": names, "kind": kinds, "part": parts, "content": contents}
        insert(connection, "snapshots", pa.table(rows_of))
        yield connection, snapshot


def take_snapshot(store: Store, connection: Connection, rows: list[Part], version: str, made_at: datetime) -> Snapshot:
    """Write the public tables that ``connection`` has open as parts, unless they lie there, and list the live ones too.

    ``rows`` are the parts of ``manifest_rows`` that the manifest is about to add: they belong to the state too.
    """
    parts = [(table, table, part) for table, live in live_parts(connection).items() for part in live]
    parts += [("manifest_rows", "manifest_rows", part.digest) for part in rows]
    added = pa.table(
        {
            "part": pa.array([part.digest for part in rows], pa.string()),
            "kind": pa.array([part.kind for part in rows], pa.string()),
            "rows": pa.array([part.rows for part in rows], pa.int64()),
            "bytes": pa.array([part.bytes for part in rows], pa.int64()),
            "owner": pa.array([version] * len(rows), pa.string()),
            "added_at": pa.array([made_at] * len(rows), pa.timestamp("us")),
        }
    )
    contents: dict[str, str] = {}
    for table in tables().values():
        if table.parts or table.internal or table.name in (*CUT_AT_VERSION, "meta"):
            continue
        kind = SNAPSHOT + table.name
        if table.name == "parts":  # the manifest's own rows are new in it
            found = [part.digest for part in store.write_parts(kind, _in_order(connection, table, added))]
        else:
            contents[table.name] = content = _content(connection, table)
            found = _kept(store, connection, kind, content)
            if not found:
                found = [part.digest for part in store.write_parts(kind, _in_order(connection, table, None))]
        parts += [(table.name, kind, part) for part in found]
    return Snapshot(get_meta(connection, "generation"), tuple(sorted(set(parts))), contents)


def _content(connection: Connection, table: Table) -> str:
    """Return a digest of a table's columns and rows, in whatever order: their number and two sums of hashes."""
    columns = ", ".join(f'"{name}"' for name, _, _ in table.columns)
    sums = connection.execute(
        f"SELECT count(*), sum(hash({columns}))::VARCHAR, sum(hash('again', {columns}))::VARCHAR FROM {table.name}"  # noqa: S608
    ).fetchone()
    return digest({"columns": [list(column[:2]) for column in table.columns], "rows": ROWS, "sums": list(sums or ())})


def _kept(store: Store, connection: Connection, kind: str, content: str) -> list[str]:
    """Return the parts of the newest snapshot of a table with this content; none when there is none or one is lost."""
    rows = connection.execute(
        """
        SELECT part FROM snapshots WHERE kind = $kind AND content = $content
        QUALIFY rank() OVER (ORDER BY len(version) DESC, version DESC) = 1
        """,
        {"kind": kind, "content": content},
    ).fetchall()
    parts = [part for (part,) in rows]
    return parts if all(store.storage.exists(kind, part) for part in parts) else []


def _in_order(connection: Connection, table: Table, added: pa.Table | None) -> Iterator[pa.Table]:
    """Yield a table's rows in the order of its key in pieces of exactly ``ROWS`` rows, the last one shorter."""
    columns = ", ".join(f'"{name}"' for name, _, _ in table.columns)
    source = f"SELECT {columns} FROM {table.name}"  # noqa: S608
    if added is not None:
        connection.register("added_rows", added)
        source += " UNION ALL BY NAME SELECT * FROM added_rows"
    key = ", ".join(f'"{name}"' for name in table.key)
    # Where a key has several rows (a null in it, two costs of one run), a hash of the row tells them apart.
    reader = connection.execute(f"SELECT {columns} FROM ({source}) ORDER BY {key}, hash({columns})").to_arrow_reader(  # noqa: S608
        ROWS
    )
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        while sum(map(len, waiting)) >= ROWS:
            together = pa.Table.from_batches(waiting)
            yield together.slice(0, ROWS).combine_chunks()
            waiting = together.slice(ROWS).to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()
    if added is not None:
        connection.unregister("added_rows")


def open_at(home: Home, version: str) -> Connection:
    """Open the store as it was when a manifest was made: an in-memory database with a view a table.

    Raises :class:`UserError` for a manifest that is unknown or has no snapshot, and when a part is missing.
    """
    with closing(open_published(home)) as published:
        known = [
            name
            for (name,) in published.execute("SELECT version FROM manifests ORDER BY len(version), version").fetchall()
        ]
        if version not in known:
            raise UserError(f"no manifest {version}; the store has {', '.join(known) or 'none yet'}")
        listed = published.execute(
            "SELECT name, kind, part FROM snapshots WHERE version = $version ORDER BY ALL", {"version": version}
        ).fetchall()
        if not listed:
            raise UserError(
                f"manifest {version} was made by a Winnow that kept no snapshots, so the store cannot be opened as it "
                "was then; what it selected is in manifest_rows and in its folder"
            )
        grown = {
            name: published.execute(
                f"SELECT * FROM {name} WHERE (len(version), version) <= (len($version), $version)",  # noqa: S608
                {"version": version},
            ).to_arrow_table()
            for name in CUT_AT_VERSION
        }
        facts = "SELECT * FROM meta WHERE key IN ('schema_version', 'home', 'data')"
        uniform = uniform_tables(published) | {table.name for table in tables().values() if not table.parts}
        grown["meta"] = published.execute(facts).to_arrow_table()
        data = get_meta(published, "data") or ""
    settings = open_store(home).settings.model_copy(update={"data": data})
    store = Store(home, settings)
    uris: dict[str, list[str]] = {}
    for name, kind, part in listed:
        uris.setdefault(name, []).append(store.storage.uri(kind, part))
    connection = duckdb.connect(":memory:", config=dict(READING))
    try:
        configure(connection, settings, home.scratch)
        for name, rows in grown.items():
            load(connection, name, rows)
        for table in tables().values():
            if not table.internal and table.name not in grown:
                rows = files_view(table, uris.get(table.name, []), table.name in uniform)
                connection.execute(f"CREATE VIEW {table.name} AS {rows}")
        scores = [part for name, _, part in listed if name == "scores"]
        columns = current_columns(connection, store.storage, scores)
        connection.execute(f"CREATE VIEW scores_wide AS {grouped_wide_query(columns, store.storage)}")
        connection.execute(f"CREATE VIEW lineage AS {LINEAGE}")
    except BaseException as error:
        connection.close()
        missing = _missing(store.storage, listed) if isinstance(error, duckdb.Error) else None
        if missing is None:
            raise
        raise UserError(
            f"the part {missing}, which manifest {version} needs, is missing: restore it from a backup "
            "(`winnow restore`); `winnow doctor` tells what else is"
        ) from error
    return connection


def _missing(storage: PartStorage, listed: list[tuple[str, str, str]]) -> str | None:
    """Return the first part that is not there."""
    return next((storage.uri(kind, part) for _, kind, part in listed if not storage.exists(kind, part)), None)
