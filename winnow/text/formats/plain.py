"""Plain text and Markdown: a file a document, or the documents between separators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, ClassVar

from winnow.text.drift import FieldTypes
from winnow.text.formats.base import Format, Item, Reading, Span
from winnow.text.lines import BYTE_ORDER_MARK, EXCERPTED, Line, Lines
from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined, excerpt, too_large_detail
from winnow.text.records import Document, decode_utf8, encode_text
from winnow.text.streams import BrokenStreamError, WrongCompressionError, after_look, read_blocks, wide_characters


class Plain(Format):
    """Text files, plain or compressed; line ends stay as they are, and a document has no metadata."""

    suffixes: ClassVar[dict[str, str]] = {".txt": "text", ".md": "markdown", ".markdown": "markdown"}
    compressible = True

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the file as one document, or each piece between separators that is not blank as one.

        A separator is matched byte for byte in UTF-8, and belongs to no document. Rows number the pieces that are not
        blank; ``offset`` is a piece's first byte in the decompressed stream. Raises ``FileFailedError`` where the
        compression is not the one that the name says.
        """
        blocks = read_blocks(file, compression, how.limits)  # type: ignore[arg-type]
        try:
            if how.separator:
                yield from _pieces(after_look(blocks, _refuse), how)
            else:
                yield _whole(blocks, how.limits.max_record_bytes)
        except WrongCompressionError as error:
            raise FileFailedError(Quarantined(None, 0, "unreadable_file", str(error), "")) from error


def _whole(blocks: Iterator[bytes], max_bytes: int) -> Document | Quarantined:
    held: list[bytes] = []
    size = 0
    try:
        for block in blocks:
            held.append(block)
            size += len(block)
            if size > max_bytes:
                held = [b"".join(held)[:max_bytes]]
                raise BadRecordError("record_too_large", too_large_detail(max_bytes))
        data = b"".join(held)
        return _document(data.removeprefix(BYTE_ORDER_MARK), 0, "the file")
    except BrokenStreamError as error:
        head = b"".join(held)[:EXCERPTED]
        return Quarantined(0, 0, "truncated_stream", f"the text is not whole: {error}; deliver it anew", excerpt(head))
    except BadRecordError as bad:
        return Quarantined(0, 0, bad.reason, bad.detail, excerpt(b"".join(held), bad.position))


def _pieces(blocks: Iterator[bytes], how: Reading) -> Iterator[Document | Quarantined]:
    pieces = Lines(blocks, how.limits.max_record_bytes, how.separator.encode())
    row = 0
    try:
        for piece in pieces:
            if piece.whole and (not piece.data or piece.data.isspace()):
                continue
            yield _judge(piece, row, how.limits.max_record_bytes)
            row += 1
    except BrokenStreamError as error:
        detail = f"piece {pieces.number} and what follows cannot be read: {error}; deliver the file anew"
        yield Quarantined(row, pieces.offset, "truncated_stream", detail, excerpt(pieces.head))


def _judge(piece: Line, row: int, max_bytes: int) -> Document | Quarantined:
    try:
        if not piece.whole:
            raise BadRecordError("record_too_large", too_large_detail(max_bytes))
        return _document(piece.data, row, "the piece")
    except BadRecordError as bad:
        shown = excerpt(piece.data, bad.position)
        return Quarantined(row, piece.offset, bad.reason, f"piece {piece.number}: {bad.detail}", shown)


def _document(data: bytes, row: int, place: str) -> Document:
    text = decode_utf8(data)
    return Document(row, encode_text(text, place), len(text), None, None, None, "{}")


def _refuse(head: bytes) -> None:
    if wide := wide_characters(head):
        raise FileFailedError(Quarantined(None, 0, "invalid_utf8", wide, excerpt(head)))
