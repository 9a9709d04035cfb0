"""The rows of a task on their way to disk: spools of occurrences and quarantine rows, and text parts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from winnow.store.parts import Part, PartWriter, arrow_schema, conform
from winnow.text.quarantine import Quarantined

OCCURRENCES = list(arrow_schema("occurrences").names)
TEXTS = list(arrow_schema("texts").names)


def quarantine_table(shard: str, rows: list[Quarantined]) -> pa.Table:
    """Return quarantine rows of one shard as rows of the table."""
    columns: dict[str, list[object]] = {
        name: [getattr(row, name) for row in rows]
        for name in ("row", "offset", "reason", "detail", "excerpt", "records")
    }
    columns["byte_offset"] = columns.pop("offset")
    return conform("quarantine", pa.table({**columns, "shard": [shard] * len(rows)}))


class TaskRows:
    """The rows of a task's pieces on their way into spools and into text parts.

    ``held``: a piece may still fail, so its rows wait (in memory, over a bound on disk) until it has ended well. Those
    of a task with one piece are written at once; if it fails, what was written is listed nowhere. Rows of small files
    are gathered into tables of some size, whichever piece they belong to: a Parquet row group has its price.
    ``holders`` gives, for each piece, the numbers of the parts that hold its texts.
    """

    HELD_BYTES = 32 * 2**20
    GATHERED_BYTES = 8 * 2**20

    def __init__(self, texts: PartWriter, stem: Path, held: bool) -> None:
        self.spool, self.refused = stem.with_suffix(".parquet"), stem.with_suffix(".quarantine.parquet")
        self.holders: list[list[int]] = []
        self._texts, self._held = texts, held
        self._occurrences = pq.ParquetWriter(self.spool, arrow_schema("occurrences"), compression="zstd")
        self._quarantine: pq.ParquetWriter | None = None
        self._held_path = stem.with_suffix(".arrow")
        self._tables: list[pa.Table] = []
        self._size = 0
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None
        self._gathered: list[pa.Table] = []
        self._gathered_bytes = 0
        self._gathered_pieces: list[int] = []

    def begin(self) -> None:
        """The rows that follow are those of the next piece."""
        self.holders.append([])

    def refuse(self, shard: str, quarantined: list[Quarantined]) -> None:
        """Spool quarantine rows: they stand whether the piece ends well or not."""
        if quarantined:
            if self._quarantine is None:
                self._quarantine = pq.ParquetWriter(self.refused, arrow_schema("quarantine"), compression="zstd")
            self._quarantine.write_table(quarantine_table(shard, quarantined))

    def add(self, rows: pa.Table) -> None:
        if not self._held:
            self._gather(rows)
            return
        self._tables.append(rows)
        self._size += rows.nbytes
        if self._size > self.HELD_BYTES:
            if self._stream is None:
                self._stream = pa.ipc.new_stream(self._held_path, rows.schema)
            for table in self._tables:
                self._stream.write_table(table)
            self._tables, self._size = [], 0

    def finish(self, kept: bool) -> None:
        """The piece has ended: if it ended well its rows are kept."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            with pa.ipc.open_stream(self._held_path) as batches:
                for batch in batches if kept else ():
                    self._gather(pa.Table.from_batches([batch]))
            self._held_path.unlink()
        for table in self._tables if kept else ():
            self._gather(table)
        self._tables, self._size = [], 0
        if not kept:
            self.holders[-1] = []
            if not self._held:
                self._gathered.clear()

    def _gather(self, rows: pa.Table) -> None:
        if len(rows):
            self._gathered.append(rows)
            self._gathered_bytes += rows.nbytes
            if (piece := len(self.holders) - 1) not in self._gathered_pieces[-1:]:
                self._gathered_pieces.append(piece)
            if self._gathered_bytes >= self.GATHERED_BYTES:
                self._write()

    def _write(self) -> None:
        if self._gathered:
            rows = pa.concat_tables(self._gathered).combine_chunks()
            self._occurrences.write_table(conform("occurrences", rows.select(OCCURRENCES)))
            part = self._texts.add(rows.select(TEXTS))
            for piece in self._gathered_pieces:
                if part not in self.holders[piece]:
                    self.holders[piece].append(part)
        self._gathered, self._gathered_bytes, self._gathered_pieces = [], 0, []

    def end(self) -> list[Part]:
        """Close the spools and return the parts."""
        self._write()
        self._texts.cut()
        self._occurrences.close()
        if self._quarantine is not None:
            self._quarantine.close()
        return self._texts.parts

    def abandon(self) -> None:
        """Let go of what is still open."""
        self._texts.abandon()
        with suppress(OSError):
            self._occurrences.close()
            if self._quarantine is not None:
                self._quarantine.close()
            if self._stream is not None:
                self._stream.close()
