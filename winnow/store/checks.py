"""Checks of the store itself: its tables and keys, its parts, its snapshots and its published file."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from winnow.errors import UserError
from winnow.store.doctor import Patient, check
from winnow.store.garbage import SNAPSHOTS
from winnow.store.part_files import PART_DIGITS, part_sha256
from winnow.store.published import open_published
from winnow.store.schema import SCHEMA_VERSION, tables
from winnow.store.store import get_meta

NEEDED = f"SELECT part FROM parts UNION {SNAPSHOTS}"  # noqa: S608
"""The digests of all parts that somebody needs."""
RESTORE = "restore it from a backup: winnow restore DIR --home NEW"
AGAIN = "deliver the files of its shards again (touch them), or restore a backup: winnow restore DIR --home NEW"
LOGS = ("costs",)
"""Tables that record what happened, where the same may happen twice."""


@check(f"run any write with the Winnow that made the store, or {RESTORE}")
def schema(patient: Patient) -> Iterator[str]:
    """Tables and columns are those of this Winnow."""
    version = get_meta(patient.connection, "schema_version")
    if version != str(SCHEMA_VERSION):
        yield f"schema version is {version}, expected {SCHEMA_VERSION}"
    there: dict[str, dict[str, str]] = {}
    for table, column, kind in patient.rows("SELECT table_name, column_name, data_type FROM duckdb_columns()"):
        there.setdefault(table, {})[column] = kind
    for table in tables().values():
        for column, kind, _ in () if table.parts else table.columns:
            found = there.get(table.name, {}).get(column)
            if found != kind:
                yield f"{table.name}.{column} is {found or 'missing'}, expected {kind}"


@check(f"a writer was wrong; {RESTORE}, and report it")
def keys(patient: Patient) -> Iterator[str]:
    """No two rows of a table have the same key."""
    for table in tables().values():
        if table.name in LOGS:
            continue
        columns = ", ".join(f'"{column}"' for column in table.key)
        placed = " AND (row IS NOT NULL OR byte_offset IS NOT NULL)" if table.name == "quarantine" else ""
        repeated = f"SELECT {columns}, count(*) FROM {table.name} GROUP BY {columns} HAVING count(*) > 1{placed}"  # noqa: S608
        try:
            if table.parts:
                patient.see(table.name)
            for *key, count in patient.rows(repeated):
                named = ", ".join(f"{column} {value}" for column, value in zip(table.key, key, strict=True))
                yield f"{table.name}: {count} rows for {named}"
        except duckdb.Error as error:
            yield f"{table.name} cannot be read ({' '.join(str(error).split())})"


@check(AGAIN)
def parts_present(patient: Patient) -> Iterator[str]:
    """Every live part lies in the storage, whole."""
    for kind, part, size in patient.rows("SELECT kind, part, bytes FROM parts ORDER BY kind, part"):
        found = patient.stored.get((kind, part))
        if found is None:
            yield f"{patient.store.storage.uri(kind, part)} is missing"
        elif found.bytes != size:
            yield f"{patient.store.storage.uri(kind, part)} has {found.bytes:,} bytes, expected {size:,}"


@check(AGAIN)
def part_rows(patient: Patient) -> Iterator[str]:
    """The Parquet footers of live parts count the rows that the store counts."""
    for kind, part, rows in patient.rows("SELECT kind, part, rows FROM parts ORDER BY kind, part"):
        if (kind, part) not in patient.stored:
            continue
        place = patient.store.storage.uri(kind, part)
        try:
            with patient.store.storage.open(kind, part) as file:
                found = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            yield f"{place} cannot be read ({' '.join(str(error).split())})"
            continue
        if found != rows:
            yield f"{place} has {found:,} rows, expected {rows:,}"


@check("`winnow gc` removes them when they are older than store.keep_days", note=True)
def orphan_parts(patient: Patient) -> Iterator[str]:
    """No part lies in the storage that neither the store nor a manifest needs."""
    needed = {part for (part,) in patient.rows(NEEDED)}
    for (kind, part), found in sorted(patient.stored.items()):
        if part not in needed:
            yield f"{patient.store.storage.uri(kind, part)} ({found.bytes:,} bytes)"


@check(AGAIN)
def shard_parts(patient: Patient) -> Iterator[str]:
    """The parts that shards name are live."""
    rows = patient.rows(
        "SELECT shard, part FROM (SELECT shard, unnest(parts) AS part FROM shards)"
        " WHERE part NOT IN (SELECT part FROM parts WHERE kind = 'texts') ORDER BY ALL"
    )
    for shard, part in rows:
        yield f"shard {shard} names the part {part}, which is not live"


@check(f"the manifest itself stays good, `winnow sql --at` does not; {RESTORE}")
def snapshot_parts(patient: Patient) -> Iterator[str]:
    """The parts that manifests need for `winnow sql --at` lie in the storage."""
    for version, name, kind, part in patient.rows("SELECT version, name, kind, part FROM snapshots ORDER BY ALL"):
        if (kind, part) not in patient.stored:
            yield f"manifest {version}, table {name}: {patient.store.storage.uri(kind, part)} is missing"
    digests = {part for _, part in patient.stored}
    for version, part in patient.rows("SELECT version, unnest(snapshot) AS part FROM manifests ORDER BY ALL"):
        if part not in digests:
            yield f"manifest {version}: part {part} is missing"


@check("it is published at the end of the next run", note=True)
def published(patient: Patient) -> Iterator[str]:
    """The published file shows the newest state."""
    ours = int(get_meta(patient.connection, "generation") or 0)
    try:
        with open_published(patient.store.home) as connection:
            theirs = int(get_meta(connection, "generation") or 0)
    except UserError as error:
        yield str(error)
        return
    if theirs < ours:
        yield f"{patient.store.home.published} is of generation {theirs}, the store of {ours}"


@check("move it away: the next run publishes it anew")
def published_whole(patient: Patient) -> Iterator[str]:
    """The published file, if there is one, can be read and is of this store."""
    home = patient.store.home
    if not home.published.exists():
        return
    ours = int(get_meta(patient.connection, "generation") or 0)
    try:
        with open_published(home) as connection:
            theirs = int(get_meta(connection, "generation") or 0)
    except (UserError, duckdb.Error) as error:
        yield f"{home.published} cannot be read ({' '.join(str(error).split())})"
        return
    if theirs > ours:
        yield f"{home.published} is of generation {theirs}, newer than the store's {ours}: of another store?"


@check(AGAIN, deep=True)
def part_digests(patient: Patient) -> Iterator[str]:
    """The bytes of every part, those of snapshots too, have the digest that names it."""
    needed = {part for (part,) in patient.rows(NEEDED)}
    for kind, part in sorted(patient.stored):
        if part not in needed:
            continue
        found = part_sha256(patient.store.storage, kind, part)[:PART_DIGITS]
        if found != part:
            yield f"{patient.store.storage.uri(kind, part)} was changed: its bytes have the digest {found}"
