"""Columnar files by their groups of rows (row groups, record batches): cut into spans, and read past what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.arrow_json import string_offsets
from winnow.text.columns import ColumnReader
from winnow.text.formats.base import WHOLE, Cut, Item, Span
from winnow.text.quarantine import FileFailedError, Quarantined
from winnow.text.streams import HashedFile
from winnow.text.watched import Watched

T = TypeVar("T")

PIECE_BYTES = 4 * 2**20
READ_ERRORS = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError, IndexError)
"""What Arrow raises for files that are not as they should be (a name or text that is no UTF-8 is a ``ValueError``)."""


def unreadable(detail: str) -> FileFailedError:
    """Return the error for a file of which nothing can be read."""
    return FileFailedError(Quarantined(None, None, "unreadable_file", detail, ""))


def check(file: BinaryIO) -> None:
    """Raise ``UnavailableError`` if it was the file that failed, and not what is in it."""
    if isinstance(file, Watched):
        file.check()


def cut_groups(file: BinaryIO, groups: Sequence[tuple[int, int]], target_bytes: int) -> Cut:
    """Cut a file whose groups of rows are (rows, size in any unit) into spans of about ``target_bytes`` of the file.

    With more than one span, a file on this machine is hashed.
    """
    length = file.seek(0, 2)
    target = target_bytes * sum(size for _, size in groups) / max(1, length)
    spans: list[Span] = []
    start = first_row = row = held = 0
    for group, (rows, size) in enumerate(groups):
        if group > start and held + size / 2 > target:
            spans.append(Span(start, group, first_row))
            start, first_row, held = group, row, 0
        row, held = row + rows, held + size
    if not spans:
        return Cut([WHOLE])
    spans.append(Span(start, len(groups), first_row))
    try:
        file.fileno()
    except (OSError, AttributeError):
        return Cut(spans)
    file.seek(0)
    return Cut(spans, HashedFile(file).digest(), length)


def read_rows(
    file: BinaryIO, reader: ColumnReader, batches: Iterator[pa.RecordBatch], row: int, rows: int | None = None
) -> Iterator[Item]:
    """Yield the items of all batches, and where they break one quarantine row for what is left of ``rows``.

    ``row`` is the number of the first one. The break counts as one record where ``rows`` is not known.
    """
    faults: list[str] = []
    end = None if rows is None else row + rows
    for piece in pieces(_until_error(file, measured(batches), faults), PIECE_BYTES):
        judged: list[str] = []
        items = list(_until_error(file, reader.items(piece, row), judged))
        if judged:  # that an array contradicts itself may show only in what is done with it
            faults[:] = judged
            break
        yield from items
        row += piece.num_rows
    if faults and row != end:
        detail = f"rows from {row} on cannot be read ({faults[0]}); deliver the file anew"
        yield Quarantined(row, None, "truncated_stream", detail, "", 1 if end is None else end - row)


def exactly(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a group's batches. Raises ``ArrowInvalid`` where they have not as many rows as the file says."""
    left = rows
    for batch in batches:
        if batch.num_rows > left:
            raise pa.ArrowInvalid("more rows than the file says")
        left -= batch.num_rows
        yield batch
    if left:
        raise pa.ArrowInvalid("fewer rows than the file says")


def _until_error(file: BinaryIO, items: Iterator[T], faults: list[str]) -> Iterator[T]:
    try:
        yield from items
    except READ_ERRORS as error:
        check(file)
        faults.append(str(error) or type(error).__name__)


def measured(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Yield the batches that have rows, each with the decoded size of its first row, of its first two, and so on."""
    for batch in batches:
        if batch.num_rows:
            yield batch, np.cumsum(sum(_row_bytes(column) for column in batch.columns))


def pieces(sized: Iterator[tuple[pa.RecordBatch, np.ndarray]], target_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cut large record batches and join small ones to about ``target_bytes`` of decoded values, or a single row.

    ``sized`` is what :func:`measured` yields.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch, ends in sized:
        if held and size + ends[-1] > target_bytes:
            yield from _joined(held)
            held, size = [], 0
        start = 0
        while ends[-1] - (ends[start - 1] if start else 0) > target_bytes:
            reach = (ends[start - 1] if start else 0) + target_bytes
            end = max(start + 1, int(np.searchsorted(ends, reach, side="right")))
            if end >= batch.num_rows:
                break
            yield batch.slice(start, end - start)
            start = end
        held.append(batch.slice(start))
        size += int(ends[-1] - (ends[start - 1] if start else 0))
    yield from _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(batches) <= 1:
        return batches
    try:
        parts = zip(*(batch.columns for batch in batches), strict=True)
        return [pa.RecordBatch.from_arrays([pa.concat_arrays(part) for part in parts], schema=batches[0].schema)]
    except pa.ArrowException:  # types that cannot be joined
        return batches


def _row_bytes(column: pa.Array) -> np.ndarray:
    """Return the size of each value when it is decoded (float64): a dictionary may repeat a long one over and over."""
    kind = column.type
    if pa.types.is_dictionary(kind) and len(column.dictionary):
        sizes = _row_bytes(column.dictionary)
        return sizes[pc.fill_null(column.indices, 0).to_numpy(zero_copy_only=False)]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        bounds = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset)
        return np.diff(bounds).astype(np.float64)
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return np.diff(string_offsets(column)).astype(np.float64)
    return np.full(len(column), column.nbytes / max(1, len(column)))
