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
from winnow.text.quarantine import FileFailedError

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
                groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
        except FileFailedError:
            return Cut([WHOLE])
        return cut_groups(file, [(_rows(group), max(0, group.total_byte_size)) for group in groups], target_bytes)

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the rows of the span's row groups."""
        with _opened(file) as parquet:
            groups = range(span.start, parquet.num_row_groups if span.end is None else span.end)
            counts = [_rows(parquet.metadata.row_group(group)) for group in groups]
            reader = ColumnReader(parquet.schema_arrow, how, seen, sum(counts))
            names = parquet.schema_arrow.names
            columns = list(dict.fromkeys(names[index] for index in reader.wanted))
            row = span.first_row
            # Each by itself, so that a corrupt one costs the same however the file is cut.
            for group, count in zip(groups, counts, strict=True):
                yield from read_rows(file, reader, _batches(parquet, group, columns), row, count)
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


def _rows(group: pq.RowGroupMetaData) -> int:
    """Return how many rows a row group has; one of which the footer cannot be right counts as one bad record."""
    return group.num_rows if _is_possible(group) else 1


def _is_possible(group: pq.RowGroupMetaData) -> bool:
    """Say whether a column has a value or more a row, and whether there are bytes enough for them."""
    columns = [group.column(index) for index in range(group.num_columns)]
    values = max((column.num_values for column in columns), default=0)
    size = sum(column.total_compressed_size for column in columns)
    return bool(0 <= group.num_rows <= min(values, size * MOST_ROWS_PER_BYTE))


def _batches(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata.row_group(group)
    if not _is_possible(metadata):
        raise pa.ArrowInvalid("by the footer it has more rows than values")
    rows = max(1, min(DECODED_ROWS, DECODED_BYTES * metadata.num_rows // max(1, metadata.total_byte_size)))
    batches = file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False)
    yield from exactly(batches, metadata.num_rows)
