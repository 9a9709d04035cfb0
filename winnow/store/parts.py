"""Immutable Parquet parts, named by the digest of their content.

A part is written to a temporary name, hashed, and renamed to ``parts/<kind>/<digest>.parquet``; it counts only once a
transaction has listed it in ``parts``. A killed run can leave a file that no list names, never half a part.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.identity import digest_file
from winnow.store.schema import tables

TARGET_BYTES = 64 * 2**20
ARROW_TYPES = {
    "UUID": pa.uuid(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DOUBLE": pa.float64(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "SMALLINT": pa.int16(),
    "UBIGINT": pa.uint64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
    "FLOAT[]": pa.list_(pa.float32()),
    "VARCHAR[]": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class Part:
    """One written part: ``digest`` names the file, ``kind`` the table whose rows it holds."""

    digest: str
    kind: str
    rows: int
    bytes: int


def arrow_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of a table of the store."""
    return pa.schema([(column, ARROW_TYPES[kind]) for column, kind, _ in tables()[name].columns])


def conform(name: str, rows: pa.Table) -> pa.Table:
    """Select and cast ``rows`` to the columns of table ``name``; a missing column is null, an unknown one an error."""
    schema = arrow_schema(name)
    unknown = set(rows.column_names) - set(schema.names)
    if unknown:
        raise KeyError(f"table {name} has no column {sorted(unknown)}")
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), field.type))
            continue
        column = rows[field.name]
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


class PartWriter:
    """Collects rows of one kind and cuts them into parts of about ``TARGET_BYTES``, holding one part at a time."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.schema = folder / kind, kind, arrow_schema(kind)
        self.parts: list[Part] = []
        self._writer: pq.ParquetWriter | None = None
        self._temporary = Path()
        self._rows = self._bytes = 0

    def add(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        rows = conform(self.kind, rows)
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
            self._writer = pq.ParquetWriter(self._temporary, self.schema, compression="zstd")
        self._writer.write_table(rows)
        self._rows += len(rows)
        self._bytes += rows.nbytes
        if self._bytes >= TARGET_BYTES:
            self.cut()

    def cut(self) -> None:
        """End the part being written, if there is one."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        digest = digest_file(self._temporary)[:32]
        with self._temporary.open("rb") as file:  # the file must outlive a crash that the list of parts outlives
            os.fsync(file.fileno())
        size = self._temporary.stat().st_size
        self._temporary.replace(self.folder / f"{digest}.parquet")
        self.parts.append(Part(digest, self.kind, self._rows, size))
        self._rows = self._bytes = 0

    def abandon(self) -> None:
        """Drop the part being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._temporary.unlink(missing_ok=True)


@contextmanager
def part_writer(folder: Path, kind: str) -> Iterator[PartWriter]:
    """Write parts of ``kind`` below ``folder``; on an error the unfinished part is removed."""
    writer = PartWriter(folder, kind)
    try:
        yield writer
        writer.cut()
    finally:
        writer.abandon()


def write_parts(folder: Path, kind: str, rows: Iterable[pa.Table]) -> list[Part]:
    """Write all ``rows`` and return the parts; nothing is live until a transaction lists them."""
    with part_writer(folder, kind) as writer:
        for table in rows:
            writer.add(table)
    return writer.parts
