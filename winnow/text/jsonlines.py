"""JSON Lines and whole-file texts as records."""

from __future__ import annotations

from collections.abc import Iterator

from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined, excerpt, too_large_detail
from winnow.text.records import Document, FieldMap, decode_utf8, document_from, encode_text, parse_object
from winnow.text.streams import (
    BYTE_ORDER_MARK,
    BrokenStreamError,
    HashedFile,
    Line,
    Lines,
    WrongCompressionError,
    read_blocks,
)


def read_json_lines(
    source: HashedFile, compression: str | None, fields: FieldMap, max_record_bytes: int
) -> Iterator[Document | Quarantined]:
    """Yield each line that is not blank as a document or a quarantine row; the rest of a broken stream is one row.

    Lines end with ``\\n`` or ``\\r\\n``. ``row`` counts the lines that are not blank from 0; ``offset`` is the line's
    first byte in the decompressed stream; details give the 1-based number of the line. Raises ``FileFailedError``
    where the compression is not the one that the name says, ``OSError`` where the file cannot be read.
    """
    lines = Lines(read_blocks(source, compression), max_record_bytes)
    row = 0
    try:
        for line in lines:
            if line.whole and (not line.data or line.data.isspace()):
                continue
            yield _judge(line, row, fields, max_record_bytes)
            row += 1
    except WrongCompressionError as error:
        raise FileFailedError(Quarantined(None, 0, "unreadable_file", str(error), "")) from error
    except BrokenStreamError as error:
        detail = f"line {lines.number} and what follows cannot be read: {error}; deliver the file anew"
        yield Quarantined(row, lines.offset, "truncated_stream", detail, excerpt(lines.head))


def _judge(line: Line, row: int, fields: FieldMap, max_record_bytes: int) -> Document | Quarantined:
    try:
        if not line.whole:
            raise BadRecordError("record_too_large", too_large_detail(max_record_bytes))
        return document_from(parse_object(line.data), row, fields)
    except BadRecordError as bad:
        shown = excerpt(line.data, bad.position)
        return Quarantined(row, line.offset, bad.reason, f"line {line.number}: {bad.detail}", shown)


def read_whole_text(source: HashedFile, max_record_bytes: int) -> Iterator[Document | Quarantined]:
    """Yield the file as one document or one quarantine row; line ends stay as they are. Raises ``OSError``."""
    data = source.read(max_record_bytes + 1)
    try:
        if len(data) > max_record_bytes:
            raise BadRecordError("record_too_large", too_large_detail(max_record_bytes))
        text = decode_utf8(data.removeprefix(BYTE_ORDER_MARK))
        yield Document(0, encode_text(text, "the file"), len(text), None, None, None, "{}")
    except BadRecordError as bad:
        yield Quarantined(0, 0, bad.reason, bad.detail, excerpt(data, bad.position))
