"""Where the record batches of an Arrow IPC file lie and how many rows they have, told by its metadata alone.

Arrow's own reader tells neither without reading the batches. Both are flatbuffers (File.fbs and Message.fbs of the
Arrow columnar format): a table is where its vtable, which it points back to, says at which offset each field lies.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

FILE_MAGIC = b"ARROW1"
MOST_ROWS_PER_BYTE = 2**18
"""No row takes less than a bit, and no compression makes more than 2^15 bytes of one: counts beyond are corrupt."""

_CONTINUATION = 0xFFFFFFFF
_BLOCK_BYTES = 24
_LARGEST_METADATA = 2**26


@dataclass(frozen=True)
class BatchPlace:
    """A record batch in a file: where its message begins, and the sizes of the message's metadata and body in bytes."""

    offset: int
    metadata_bytes: int
    body_bytes: int


class BrokenFooterError(Exception):
    """A footer or a message's metadata is no such thing."""


def batch_places(file: BinaryIO) -> list[BatchPlace]:
    """Return the record batches of a file in its order. Raises ``BrokenFooterError``, or ``OSError``."""
    end = file.seek(0, 2)
    tail = _read(file, max(0, end - 10), 10)
    if not tail.endswith(FILE_MAGIC):
        raise BrokenFooterError("the file has no footer at its end")
    size = int.from_bytes(tail[:4], "little", signed=True)
    if not 0 < size <= min(end, 2**31):
        raise BrokenFooterError("the footer's size is none")
    footer = _read(file, end - 10 - size, size)
    try:
        batches = _field(footer, _follow(footer, 0), 3)
        if batches is None:
            return []
        vector = _follow(footer, batches)
        (count,) = struct.unpack_from("<I", footer, vector)
        if count * _BLOCK_BYTES > size:
            raise BrokenFooterError("the footer has more record batches than it has bytes for")
        starts = range(vector + 4, vector + 4 + count * _BLOCK_BYTES, _BLOCK_BYTES)
        places = [BatchPlace(*struct.unpack_from("<qi4xq", footer, start)) for start in starts]
    except struct.error as error:
        raise BrokenFooterError("the footer is corrupt") from error
    for place in places:
        if place.offset < 8 or place.metadata_bytes <= 8 or place.body_bytes < 0:
            raise BrokenFooterError("a record batch lies nowhere")
        if place.offset + place.metadata_bytes + place.body_bytes > end - 10 - size:
            raise BrokenFooterError("a record batch reaches into the footer")
    return places


def batch_rows(file: BinaryIO, place: BatchPlace) -> int:
    """Return how many rows a record batch has.

    Raises ``BrokenFooterError``, also for more rows than its body can hold or not as many as its first column has;
    ``OSError``.
    """
    if place.metadata_bytes > _LARGEST_METADATA:
        raise BrokenFooterError("a record batch's metadata is too large")
    data = _read(file, place.offset, place.metadata_bytes)
    try:
        prefix = 8 if struct.unpack_from("<I", data)[0] == _CONTINUATION else 4
        message = data[prefix:]
        header = _field(message, _follow(message, 0), 2)
        if header is None:
            raise BrokenFooterError("a record batch's metadata is missing")
        batch = _follow(message, header)
        length = _field(message, batch, 0)
        rows = 0 if length is None else struct.unpack_from("<q", message, length)[0]
        first = _first_length(message, batch)
        compressed = _field(message, batch, 3) is not None
    except struct.error as error:
        raise BrokenFooterError("a record batch's metadata is corrupt") from error
    if rows < 0:
        raise BrokenFooterError("a record batch has fewer than no rows")
    if first not in (None, rows):
        raise BrokenFooterError("a record batch's columns have another number of rows")
    if rows > place.body_bytes * (MOST_ROWS_PER_BYTE if compressed else 8):
        raise BrokenFooterError("a record batch has more rows than its body can hold")
    return rows


def _first_length(message: bytes, batch: int) -> int | None:
    """Return how many values the first column of a record batch has, None where there is no column."""
    columns = _field(message, batch, 1)
    if columns is None:
        return None
    vector = _follow(message, columns)
    (count,) = struct.unpack_from("<I", message, vector)
    return struct.unpack_from("<q", message, vector + 4)[0] if count else None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _follow(data: bytes, position: int) -> int:
    """Return where the offset at a position leads."""
    return position + struct.unpack_from("<I", data, position)[0]


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Return the position of a table's field, None for one that is left out because it has its default value."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, max(0, vtable))
    entry = 4 + 2 * slot
    offset = struct.unpack_from("<H", data, max(0, vtable) + entry)[0] if entry < size else 0
    return table + offset if offset else None
