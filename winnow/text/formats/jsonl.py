"""JSON Lines: a JSON object a line; read by blocks of lines, cut at line ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, ClassVar

from winnow.text.cutting import cut_lines
from winnow.text.decoders import compressed_by_its_look
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import WHOLE, Cut, Format, Item, Reading, Span
from winnow.text.json_records import BlockBuilder, RecordReader
from winnow.text.lines import BYTE_ORDER_MARK, Frame, Frames, Line
from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined, Reason, excerpt, too_large_detail
from winnow.text.records import Document, document_from, parse_object
from winnow.text.streams import (
    HEAD,
    BrokenStreamError,
    Source,
    Stretch,
    WrongCompressionError,
    after_look,
    raw_blocks,
    read_blocks,
    wide_characters,
)

BLOCKS_IN_A_BATCH = 64
"""A block is this part of a batch, so that batches stay near their size."""

_ARRAY = re.compile(rb"\s*\[\s*\{")
_SPREAD = re.compile(rb"[ \t\r]*\{[ \t\r]*\n[ \t\r]*\"")
_RETURNS = re.compile(rb"[^\n]*\}[ \t]*\r[ \t\r]*\{")


class JsonLines(Format):
    """JSON Lines, plain or compressed; plain files are cut into ranges of bytes."""

    suffixes: ClassVar[dict[str, str]] = {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".jsonlines": "jsonl",
        ".json": "jsonl",
    }
    compressible = True

    def cut(self, file: BinaryIO, target_bytes: int, how: Reading) -> Cut:
        """Cut at line ends, in one pass that also digests the file; one span where the whole file is unusable."""
        head = file.read(HEAD)
        file.seek(0)
        if compressed_by_its_look(head) or _fault(head):
            return Cut([WHOLE])
        return cut_lines(file, target_bytes, how.limits.max_record_bytes)

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield blocks of lines, and each bad line as a quarantine row; the rest of a broken stream is one row.

        Lines end with ``\\n`` or ``\\r\\n``. Rows number the lines that are not blank; ``offset`` is the line's first
        byte in the decompressed stream; details give the 1-based number of the line. Raises ``FileFailedError`` where
        the compression is not the one that the name says, or the file is no JSON Lines by its beginning.
        """
        if span == WHOLE:
            source: Source = file  # type: ignore[assignment]
            blocks = after_look(read_blocks(source, compression, how.limits), _refuse)
        else:
            source = Stretch(file, span.start, span.end)
            blocks = after_look(read_blocks(source, None), _refuse) if span.start == 0 else raw_blocks(source)
        frames = Frames(blocks, how.limits.max_record_bytes, span.first_line, span.start)
        rows = _Rows(span.first_row, how, seen)
        try:
            for frame in frames:
                yield from rows.read(frame)
        except WrongCompressionError as error:
            raise FileFailedError(Quarantined(None, 0, "unreadable_file", str(error), "")) from error
        except BrokenStreamError as error:
            yield from rows.rest()
            detail = f"line {frames.number} and what follows cannot be read: {error}; deliver the file anew"
            yield Quarantined(rows.row, frames.offset, "truncated_stream", detail, excerpt(frames.head))
        else:
            yield from rows.rest()


class _Rows:
    """The rows of one span, from its frames of lines."""

    def __init__(self, row: int, how: Reading, seen: FieldTypes) -> None:
        self.row = row
        self._how = how
        self._seen = seen
        self._fast = RecordReader(how.fields, seen)
        self._block = BlockBuilder()
        self._block_bytes = how.limits.batch_bytes // BLOCKS_IN_A_BATCH

    def read(self, frame: Frame | Line) -> Iterator[Item]:
        if isinstance(frame, Line):
            yield judge(frame, self.row, self._how, self._seen)
            self.row += 1
            return
        number, offset, lines = frame
        largest = self._how.limits.max_record_bytes
        block, block_bytes, fast, row = self._block, self._block_bytes, self._fast, self.row
        for line in lines:
            size = len(line)
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            columns = fast(line) if size <= largest else None
            if columns:
                block.add(row, columns)
                row += 1
            elif size > largest or (line and not line.isspace()):
                item = judge(Line(number, offset, line, size <= largest), row, self._how, self._seen)
                if isinstance(item, Quarantined):
                    yield item
                else:
                    block.add_document(item)
                row += 1
            number += 1
            offset += size + 1
            if block.size > block_bytes:
                yield block.take()
        self.row = row

    def rest(self) -> Iterator[Item]:
        if self._block.size:
            yield self._block.take()


def judge(line: Line, row: int, how: Reading, seen: FieldTypes) -> Document | Quarantined:
    """Turn one line that is not blank into a document or a quarantine row: slowly, strictly, with every detail."""
    try:
        if not line.whole:
            raise BadRecordError("record_too_large", too_large_detail(how.limits.max_record_bytes))
        record = parse_object(line.data)
        seen.add(record)
        return document_from(record, row, how.fields)
    except BadRecordError as bad:
        shown = excerpt(line.data, bad.position)
        return Quarantined(row, line.offset, bad.reason, f"line {line.number}: {bad.detail}", shown)


def _refuse(head: bytes) -> None:
    if fault := _fault(head):
        raise FileFailedError(Quarantined(None, 0, *fault, excerpt(head)))


def _fault(head: bytes) -> tuple[Reason, str] | None:
    """Return reason and mend if a file of this beginning is no JSON Lines, so that a line of it would say nothing."""
    if wide := wide_characters(head):
        return "invalid_utf8", wide
    head = head.removeprefix(BYTE_ORDER_MARK)
    if _ARRAY.match(head):
        return "invalid_json", "the file is one JSON array; write one object a line (jq -c '.[]' does)"
    if _SPREAD.match(head):
        return "invalid_json", "the file has JSON objects spread over lines; write one object a line (jq -c . does)"
    if _RETURNS.match(head):
        detail = "the file's lines end with carriage returns alone; write line feeds (tr '\\r' '\\n' does)"
        return "invalid_json", detail
    return None
