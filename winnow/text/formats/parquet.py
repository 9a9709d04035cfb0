"""Parquet files: row groups as pieces, columns as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from winnow.text.arrow_footer import MOST_ROWS_PER_BYTE
from winnow.text.column_groups import READ_ERRORS, check, cut_groups, exactly, read_rows, unreadable
from winnow.text.columns import ColumnReader
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import WHOLE, Cut, Format, Item, Reading, Span
from winnow.text.quarantine import FileFailedError, Quarantined

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# What is decoded at once depends on the file alone, so that what is read of a corrupt row group does not vary.
DECODED_BYTES = 2**20
DECODED_ROWS = 256
COLUMN_BUFFER = 2**18


class Parquet(Format):
    """Parquet files; a span counts row groups.

    Each row is a document or a quarantine row, ``row`` counts them over all row groups; the rows of a row group after a
    corrupt page are one quarantine row, the next group is read. Memory holds the decoded rows of a few MiB and the
    pages being decoded, whose size the file's writer chose.
    """

    suffixes = {".parquet": "parquet", ".pq": "parquet"}  # noqa: RUF012
    seekable = True

    def cut(self, file: BinaryIO, target_bytes: int, how: Reading) -> Cut:
        """Cut by row groups; ``target_bytes`` are bytes of the (compressed) file."""
        try:
            with _opened(file) as parquet:
                ColumnReader(parquet.schema_arrow, how, FieldTypes())
                rows, _ = _rows(parquet, file.seek(0, 2))
                sizes = [parquet.metadata.row_group(group).total_byte_size for group in range(len(rows))]
        except FileFailedError:
            return Cut([WHOLE])
        return cut_groups(file, [(count, max(0, size)) for count, size in zip(rows, sizes, strict=True)], target_bytes)

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the rows of the span's row groups."""
        with _opened(file) as parquet:
            groups = range(span.start, parquet.num_row_groups if span.end is None else span.end)
            rows, certain = _rows(parquet, file.seek(0, 2))
            counts = [rows[group] for group in groups]
            reader = ColumnReader(parquet.schema_arrow, how, seen, sum(counts) if certain else max(1, len(groups)))
            names = parquet.schema_arrow.names
            columns = list(dict.fromkeys(names[index] for index in reader.wanted))
            if not certain and span.start == 0:
                detail = (
                    f"the footer's numbers of rows contradict each other ({parquet.metadata.num_rows} in all is not "
                    "what the row groups have): rows may be missing; deliver the file anew"
                )
                yield Quarantined(None, None, "truncated_stream", detail, "")
            row = span.first_row
            # Each by itself, so that a corrupt one costs the same however the file is cut.
            for group, count in zip(groups, counts, strict=True):
                yield from read_rows(
                    file, reader, _batches(parquet, group, columns, count), row, count if certain else None
                )
                row += count


def _opened(file: BinaryIO) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file, buffer_size=COLUMN_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except READ_ERRORS as error:
        check(file)
        raise unreadable(
            f"the Parquet footer cannot be read ({error}): the file was cut short, is encrypted or is no Parquet; "
            "deliver it anew"
        ) from error
    return opened


def _rows(parquet: pq.ParquetFile, length: int) -> tuple[list[int], bool]:
    """Return how many rows each row group has, and whether the footer of a file of this length agrees with itself.

    A group for which the file has not the bytes counts as one bad record. Where the groups are not the whole, nobody
    knows which of them is wrong: that counts as one bad record, and what is lost of a group as another. The columns'
    metadata, which would tell, is left alone: Arrow ends the process where some of it is corrupt.
    """
    rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    counts = [count if 0 <= count <= length * MOST_ROWS_PER_BYTE else 1 for count in rows]
    return counts, sum(rows) == parquet.metadata.num_rows and counts == rows


def _batches(file: pq.ParquetFile, group: int, columns: list[str], count: int) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata.row_group(group)
    if metadata.num_rows != count:
        raise pa.ArrowInvalid("by the footer it has more rows than the file can hold")
    rows = max(1, min(DECODED_ROWS, DECODED_BYTES * count // max(1, metadata.total_byte_size)))
    batches = file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False)
    yield from exactly(batches, count)
