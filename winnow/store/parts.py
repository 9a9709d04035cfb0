"""Immutable Parquet parts, named by the digest of their content.

A part is written to a temporary name, hashed, and put in its storage as ``<kind>/<digest>.parquet``; it counts only
once a transaction has listed it in ``parts``. A killed run can leave a file that no list names, never half a part.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.identity import digest_file
from winnow.store.faults import full_disk
from winnow.store.schema import tables
from winnow.store.storage import PartStorage

SNAPSHOT = "snapshot_"
"""What the kind of a part begins with that holds rows of a table as it was when a manifest was made."""
TARGET_BYTES = 128 * 2**20
"""Bytes in Arrow at which a part is cut; zstd leaves about a third of them of text."""
WAITING_TABLES = 2
"""Tables that wait for the compressing thread: with the one in its hands, all that a writer holds in memory."""
UNREPEATED = ("text", "original", "reason")
"""Columns of text in which values hardly repeat: a dictionary would be built and thrown away."""
REPEATING_TYPES = ("VARCHAR", "BIGINT", "INTEGER", "SMALLINT")
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
    "UBIGINT[]": pa.list_(pa.uint64()),
    "VARCHAR[]": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class Part:
    """One written part: ``digest`` names the file, ``kind`` the table of its rows, ``storage`` where it lies."""

    digest: str
    kind: str
    rows: int
    bytes: int
    storage: PartStorage | None = dataclass_field(default=None, compare=False, repr=False)


def arrow_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of a table of the store; a part of kind ``snapshot_X`` holds rows of table X."""
    columns = tables()[name.removeprefix(SNAPSHOT)].columns
    return pa.schema([(column, ARROW_TYPES[kind]) for column, kind, _ in columns])


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


class _Unfinished:
    """A part that is being written; the same tables in the same order give the same bytes."""

    def __init__(self, storage: PartStorage, kind: str) -> None:
        self.storage, self.kind = storage, kind
        self.rows = self.bytes = 0  # as handed over, not as written
        self.path = storage.temporary(kind)
        self.sink = pa.OSFile(str(self.path), "wb")
        columns = tables()[kind.removeprefix(SNAPSHOT)].columns
        self.writer = pq.ParquetWriter(
            self.sink,
            arrow_schema(kind),
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name, type_, _ in columns if type_ in REPEATING_TYPES and name not in UNREPEATED],
        )

    def finish(self) -> Part:
        self.writer.close()
        self.sink.close()
        digest, size = digest_file(self.path)[:32], self.path.stat().st_size
        self.storage.put(self.path, self.kind, digest)
        return Part(digest, self.kind, self.rows, size, self.storage)

    def discard(self) -> None:
        for ending in (self.writer.close, self.sink.close):
            with suppress(Exception):  # the disk may be full; the file goes anyway
                ending()
        self.writer.is_open = False
        self.path.unlink(missing_ok=True)


class PartWriter:
    """Collects rows of one kind and cuts them into parts of about ``TARGET_BYTES``.

    A thread of its own compresses, hashes and puts the parts in place, so that the caller can go on reading; it holds
    at most ``WAITING_TABLES`` + 1 tables. An error of that thread is raised by the next :meth:`add` or :meth:`cut`.
    """

    def __init__(self, storage: PartStorage, kind: str) -> None:
        self.storage, self.kind = storage, kind
        self.parts: list[Part] = []
        self._current: _Unfinished | None = None
        self._unfinished: list[_Unfinished] = []
        self._ended = 0
        self._queue: queue.Queue[tuple[_Unfinished, pa.Table | None] | None] = queue.Queue(WAITING_TABLES)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._abandoned = False

    def add(self, rows: pa.Table) -> int:
        """Take rows and return the number of their part in ``parts``, once it is cut; they are written later.

        Raises what went wrong with earlier ones.
        """
        number = self._ended
        if not len(rows):
            return number
        self._raise()
        rows = conform(self.kind, rows)
        part = self._current
        if part is None:
            part = self._current = _Unfinished(self.storage, self.kind)
            self._unfinished.append(part)
        part.rows += len(rows)
        part.bytes += rows.nbytes
        self._hand(part, rows)
        if part.bytes >= TARGET_BYTES:
            self._end()
        return number

    def cut(self) -> None:
        """End the part being written, if there is one; on return ``parts`` holds all, and all are in place."""
        self._end()
        self._join()
        self._raise()

    def abandon(self) -> None:
        """Drop what is unfinished, its temporary files included; parts that are in place stay."""
        self._abandoned = True
        self._join()
        while self._unfinished:
            self._unfinished.pop().discard()
        self._current = self._error = None
        self._abandoned = False

    def _end(self) -> None:
        if self._current is not None:
            self._hand(self._current, None)
            self._current = None
            self._ended += 1

    def _hand(self, part: _Unfinished, rows: pa.Table | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"parts of {self.kind}", daemon=True)
            self._thread.start()
        self._queue.put((part, rows))

    def _join(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        """Write what is handed over; after an error only take it, so that the caller does not wait for ever."""
        while (handed := self._queue.get()) is not None:
            part, rows = handed
            if self._error is not None or self._abandoned:
                continue
            try:
                if rows is not None:
                    part.writer.write_table(rows)
                else:
                    self.parts.append(part.finish())
                    self._unfinished.remove(part)
            except Exception as error:
                told = full_disk(error, part.path.parent, f"writing a part of {self.kind}")
                if told is not None:
                    told.__cause__ = error
                self._error = told or error


@contextmanager
def part_writer(storage: PartStorage, kind: str) -> Iterator[PartWriter]:
    """Write parts of ``kind`` into ``storage``; on an error the unfinished part is removed."""
    writer = PartWriter(storage, kind)
    try:
        yield writer
        writer.cut()
    finally:
        writer.abandon()


def write_parts(storage: PartStorage, kind: str, rows: Iterable[pa.Table]) -> list[Part]:
    """Write all ``rows`` and return the parts; nothing is live until a transaction lists them."""
    with part_writer(storage, kind) as writer:
        for table in rows:
            writer.add(table)
    return writer.parts
