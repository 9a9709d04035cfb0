"""Arrow IPC: files (Feather among them) by their record batches, streams (``save_to_disk``) front to back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from winnow.text.arrow_footer import FILE_MAGIC, BatchPlace, BrokenFooterError, batch_places, batch_rows
from winnow.text.column_groups import READ_ERRORS, check, cut_groups, exactly, read_rows, unreadable
from winnow.text.columns import ColumnReader
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import WHOLE, Cut, Format, Item, Reading, Span
from winnow.text.quarantine import FileFailedError

_STREAM_IN_FILE = 8
"""Where the stream of messages begins that an Arrow file is besides its footer."""
_UNDECODED = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
    pa.date64(): pa.int64(),
    pa.time32("s"): pa.int32(),
    pa.time32("ms"): pa.int32(),
    pa.time64("us"): pa.int64(),
    pa.time64("ns"): pa.int64(),
}


class Arrow(Format):
    """Arrow IPC files and streams, told apart by their first bytes; a span counts record batches of a file.

    ``row`` counts rows over all record batches; those of the span from a corrupt record batch on are one quarantine
    row. A file without its footer is read as the stream that it is besides; how many rows come after the break in a
    stream is not known. Memory holds one record batch, whose size the file's writer chose.
    """

    suffixes = {".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow"}  # noqa: RUF012
    seekable = True

    def cut(self, file: BinaryIO, target_bytes: int, how: Reading) -> Cut:
        """Cut a file by record batches; a stream is one piece."""
        try:
            opened = _opened_file(file)
            if opened is None:
                return Cut([WHOLE])
            ColumnReader(opened[0].schema, how, FieldTypes())
        except FileFailedError:
            return Cut([WHOLE])
        sizes = [(_rows(file, place), place.metadata_bytes + place.body_bytes) for place in opened[1]]
        return cut_groups(file, sizes, target_bytes)

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the rows of the span's record batches."""
        opened = _opened_file(file)
        if opened:
            yield from _read_file(file, *opened, span, how, seen)
            return
        file.seek(0)
        is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
        yield from _read_stream(file, _STREAM_IN_FILE if is_file else 0, how, seen)


def _opened_file(file: BinaryIO) -> tuple[pa.RecordBatchFileReader, list[BatchPlace]] | None:
    """Return an Arrow file's reader and record batches, None for a stream or where the footer is broken.

    Raises ``FileFailedError`` for a file that is neither file nor stream.
    """
    length = file.seek(0, 2)
    file.seek(0)
    head = file.read(len(FILE_MAGIC))
    if head.startswith(b"FEA1"):
        raise unreadable("it is of Feather's first version, which is no Arrow; write it anew as .arrow or .parquet")
    if head != FILE_MAGIC:
        size = int.from_bytes(head[:4], "little")
        if len(head) < 4 or (size > length and size != 2**32 - 1):
            raise unreadable("it is no Arrow file or stream by its first bytes; deliver it anew")
        return None
    try:
        places = batch_places(file)
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(use_threads=False))
    except (*READ_ERRORS, BrokenFooterError):
        check(file)
        return None
    return (reader, places) if reader.num_record_batches == len(places) else None


def _rows(file: BinaryIO, place: BatchPlace) -> int:
    """Return how many rows a record batch has; one that does not say counts as one bad record."""
    try:
        return batch_rows(file, place)
    except BrokenFooterError:
        return 1


def _read_file(
    file: BinaryIO,
    reader: pa.RecordBatchFileReader,
    places: list[BatchPlace],
    span: Span,
    how: Reading,
    seen: FieldTypes,
) -> Iterator[Item]:
    batches = range(span.start, len(places) if span.end is None else span.end)
    counts = [_rows(file, places[batch]) for batch in batches]
    columns = ColumnReader(reader.schema, how, seen, sum(counts))
    if options := _only(columns, reader.schema):
        reader = pa.ipc.open_file(file, options=options)
    row = span.first_row
    for batch, count in zip(batches, counts, strict=True):
        yield from read_rows(file, columns, exactly(_one(reader, batch), count), row, count)
        row += count


def _one(reader: pa.RecordBatchFileReader, batch: int) -> Iterator[pa.RecordBatch]:
    yield _checked(reader.get_batch(batch))


def _read_stream(file: BinaryIO, start: int, how: Reading, seen: FieldTypes) -> Iterator[Item]:
    file.seek(start)
    try:
        reader = pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(use_threads=False))
        schema = reader.schema
    except READ_ERRORS as error:
        check(file)
        raise unreadable(f"the Arrow schema cannot be read ({error}); deliver the file anew") from error
    columns = ColumnReader(schema, how, seen)
    if options := _only(columns, schema):
        file.seek(start)
        reader = pa.ipc.open_stream(file, options=options)
    yield from read_rows(file, columns, _all(reader, has_footer=bool(start)), 0)


def _all(reader: pa.RecordBatchStreamReader, has_footer: bool) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        yield _checked(batch)
    if has_footer:
        raise pa.ArrowInvalid("the file's footer is missing or corrupt")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a record batch whose offsets and indices lie within it. Raises ``ArrowInvalid``.

    Arrow does not look at them when it reads. It minds as well what is a matter of single rows, and dealt with there:
    strings that are no UTF-8, times that are none.
    """
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            _undecoded(column).validate(full=True)
    return batch


def _undecoded(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, _undecoded(column.dictionary))
    return column.view(_undecoded_type(column.type))


def _undecoded_type(kind: pa.DataType) -> pa.DataType:
    """Return a type of the same layout whose values may be anything."""
    if kind in _UNDECODED:
        return _UNDECODED[kind]
    if pa.types.is_decimal(kind):
        return pa.binary(kind.bit_width // 8)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_undecoded_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_undecoded_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_undecoded_type(kind.value_type))
    return kind


def _only(columns: ColumnReader, schema: pa.Schema) -> pa.ipc.IpcReadOptions | None:
    """Return the options that read only the columns which are needed, None if all are."""
    if len(columns.wanted) == len(schema):
        return None
    return pa.ipc.IpcReadOptions(use_threads=False, included_fields=columns.wanted)
