"""CSV and TSV: a header row, then a record a row (RFC 4180); all values are strings."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar

import numpy as np

from winnow.errors import UserError
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import Format, Item, Reading, Span
from winnow.text.lines import BYTE_ORDER_MARK, Held, Line
from winnow.text.quarantine import (
    BadRecordError,
    FileFailedError,
    Quarantined,
    Reason,
    excerpt,
    missing_text_detail,
    too_large_detail,
)
from winnow.text.records import Document, decode_utf8, document_from
from winnow.text.streams import BrokenStreamError, WrongCompressionError, after_look, read_blocks, wide_characters


class Delimited(Format):
    """Tables as text, plain or compressed; quotes protect delimiters and line ends.

    Rows end with ``\n`` or ``\r\n``, or with ``\r`` if the header does.
    """

    suffixes: ClassVar[dict[str, str]] = {".csv": "csv", ".tsv": "tsv"}
    compressible = True

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield each row after the header as a document or a quarantine row; the rest of a broken stream is one row.

        Rows are numbered from 0 after the header, empty lines left aside; ``offset`` is the row's first byte in the
        decompressed stream; details give the 1-based number of the line it begins on. An empty cell is an empty string.
        Raises ``FileFailedError`` where the header is unusable or the compression is not the one that the name says,
        ``UserError`` for a delimiter that can be none.
        """
        table = _Table(_delimiter(name, how), how, seen)
        lines = Rows(how.limits.max_record_bytes, table.delimiter)
        blocks = after_look(read_blocks(file, compression, how.limits), lines.look)  # type: ignore[arg-type]
        try:
            for line in lines.of(blocks):
                yield from table.read(line)
        except WrongCompressionError as error:
            raise _failed("unreadable_file", str(error)) from error
        except BrokenStreamError as error:
            detail = f"line {lines.number} and what follows cannot be read: {error}; deliver the file anew"
            yield Quarantined(table.row, lines.offset, "truncated_stream", detail, excerpt(lines.head))


def _delimiter(name: str, how: Reading) -> str:
    delimiter = how.delimiter or ("\t" if name == "tsv" else ",")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise UserError(f"delimiter {delimiter!r}: give one ASCII character that is no quote and no line end")
    return delimiter


class _Table:
    """The rows of one file, with the header that the first of them is."""

    def __init__(self, delimiter: str, how: Reading, seen: FieldTypes) -> None:
        self.delimiter = delimiter
        self.row = 0
        self._how = how
        self._seen = seen
        self._header: list[str] | None = None
        self._waiting: list[str] = []
        self._cells = csv.reader(self._next(), delimiter=delimiter, strict=True)
        # The module's limit is one for the whole process and only ever in the way: rows are bounded already.
        csv.field_size_limit(max(csv.field_size_limit(), how.limits.max_record_bytes))

    def read(self, line: Line) -> Iterator[Document | Quarantined]:
        if line.whole and not line.data:
            return
        if self._header is None:
            self._header = self._read_header(line)
            return
        yield self._judge(line, self._header)
        self.row += 1

    def _judge(self, line: Line, header: list[str]) -> Document | Quarantined:
        try:
            cells = self._split(line)
            if len(cells) != len(header):
                raise BadRecordError("invalid_csv", _count_detail(cells, header, self.delimiter))
            return document_from(dict(zip(header, cells, strict=True)), self.row, self._how.fields)
        except BadRecordError as bad:
            shown = excerpt(line.data, bad.position)
            return Quarantined(self.row, line.offset, bad.reason, f"line {line.number}: {bad.detail}", shown)

    def _split(self, line: Line) -> list[str]:
        if not line.whole:
            raise BadRecordError("record_too_large", too_large_detail(self._how.limits.max_record_bytes))
        self._waiting.append(decode_utf8(line.data))
        try:
            return next(self._cells)
        except (csv.Error, StopIteration) as error:
            self._waiting.clear()
            self._cells = csv.reader(self._next(), delimiter=self.delimiter, strict=True)
            raise BadRecordError("invalid_csv", _quote_detail(error)) from error

    def _next(self) -> Iterator[str]:
        while self._waiting:
            yield self._waiting.pop()

    def _read_header(self, line: Line) -> list[str]:
        try:
            header = self._split(line)
        except BadRecordError as bad:
            raise _failed(bad.reason, f"line {line.number}, the header: {bad.detail}", line) from bad
        double = [name for name, count in Counter(header).items() if count > 1]
        if double:
            raise _failed("invalid_csv", f"the header names {double[0]!r} more than once; rename all but one", line)
        if self._how.fields.text not in header:
            raise _failed("missing_text", missing_text_detail(self._how.fields.text, header), line)
        for name in header:
            self._seen.note(name, "string")
        return header


def _count_detail(cells: list[str], header: list[str], delimiter: str) -> str:
    return (
        f"the row has {len(cells)} cells, the header {len(header)}; quote cells that hold {delimiter!r} or line ends, "
        "or set delimiter"
    )


def _quote_detail(error: Exception) -> str:
    if isinstance(error, StopIteration) or "unexpected end" in str(error):
        return "a quote is opened and never closed: the rest of the file is inside it; close it, and double inner ones"
    if "new-line" in str(error):
        return "a carriage return is outside quotes; put quotes around the cell"
    return f"{error}; put quotes around the whole cell only, and double those inside"


def _failed(reason: Reason, detail: str, line: Line | None = None) -> FileFailedError:
    offset, shown = (line.offset, excerpt(line.data)) if line else (0, "")
    return FileFailedError(Quarantined(None, offset, reason, detail, shown))


QUOTED = 2
"""The state of ``csv_ends`` inside quotes."""


class Rows:
    """Frame a stream of byte blocks into CSV rows, holding at most one of ``max_bytes``.

    A row comes as a ``Line`` without its line end; its number is that of the line in the file on which it begins. Empty
    rows come too. ``number``, ``offset`` and ``head`` describe the unfinished row.
    """

    def __init__(self, max_bytes: int, delimiter: str) -> None:
        self._delimiter = np.uint8(ord(delimiter))
        self._end = b"\n"
        self._held = Held(max_bytes)
        self._inner_lines = 0
        self.number = 1
        self.offset = 0

    @property
    def head(self) -> bytes:
        """The beginning of the unfinished row."""
        return self._held.head

    def look(self, head: bytes) -> None:
        """Learn from the beginning of the stream what ends its lines. Raises ``FileFailedError`` if it is UTF-16."""
        if wide := wide_characters(head):
            raise _failed("invalid_utf8", wide)
        feed, back = (self._first(head.removeprefix(BYTE_ORDER_MARK), end) for end in (b"\n", b"\r"))
        if back is not None and (feed is None or back + 1 < feed):
            self._end = b"\r"

    def _first(self, head: bytes, end: bytes) -> int | None:
        count, _, ends = self._ends(head, end, 0, np.empty(len(head), np.int64))
        return int(ends[0]) if count else None

    def _ends(self, block: bytes, end: bytes, state: int, ends: np.ndarray) -> tuple[int, int, np.ndarray]:
        from winnow.text._kernels import csv_ends

        if len(ends) < len(block):
            ends = np.empty(len(block), np.int64)
        return *csv_ends(np.frombuffer(block, np.uint8), self._delimiter, np.uint8(end[0]), state, ends), ends

    def of(self, blocks: Iterable[bytes]) -> Iterator[Line]:
        """Yield the rows; the first block has the whole byte order mark, if there is one."""
        state = 0
        ends = np.empty(0, np.int64)
        for block in blocks:
            if not (self.offset or self._held.size) and block.startswith(BYTE_ORDER_MARK):
                self.offset = len(BYTE_ORDER_MARK)  # before the first quote, it would hide it
                block = block[self.offset :]
            count, state, ends = self._ends(block, self._end, state, ends)
            start = 0
            for end in ends[:count].tolist():
                self._add(block[start:end])
                start = end + 1
                yield self._finish(self._end == b"\n")
            self._add(block[start:])
        if self._held.size:
            yield self._finish(self._end == b"\n" and state != QUOTED)

    def _add(self, part: bytes) -> None:
        self._held.add(part)
        self._inner_lines += part.count(b"\n")

    def _finish(self, may_return: bool) -> Line:
        size, whole = self._held.size, self._held.whole
        data = self._held.take()
        line = Line(self.number, self.offset, data.removesuffix(b"\r") if whole and may_return else data, whole)
        self.number += 1 + self._inner_lines
        self.offset += size + 1
        self._inner_lines = 0
        return line
