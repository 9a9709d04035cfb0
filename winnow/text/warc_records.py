"""The framing of WARC records in a stream of bytes (ISO 28500), in bounded memory and with every break in its place.

The usual readers take a record that the file's end cuts for a whole one, and hold a line of any length. This one trusts
a record only when its end mark, another record or the end of the file follows its block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from winnow.text.decoders import BrokenStreamError

HEADER_BYTES = 2**20
"""A record's header is shorter; so is a URL in it."""
HEAD_BYTES = 2**16
"""What is kept of a block that is too long to be held: enough for the header of an HTTP response."""
MOST_DAMAGES = 1000
"""After so many, no further record is searched for: each search may read a whole block anew."""

_VERSION = re.compile(rb"WARC/\d+\.\d+[ \t]*\r?\n")
_HEADER_END = re.compile(rb"\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_MAGIC = b"WARC/"
_RECORD_END = b"\r\n\r\n"


class WarcRecord(NamedTuple):
    """A record: offset of its first byte in the stream, named fields (names in lower case), its block.

    Not ``whole`` means that the block has more than the largest size, and that ``block`` is its beginning only.
    ``size`` is the block's in bytes. The block of a record that is not wanted is empty.
    """

    offset: int
    fields: dict[str, str]
    block: bytes
    whole: bool
    size: int


class Damage(NamedTuple):
    """Bytes ``[offset, end)`` that are no record: why, and whether the readable stream ends with them."""

    offset: int
    end: int
    why: str
    ended: bool
    head: bytes


class WarcRecords:
    """Frame blocks of bytes into records and damages, in the file's order, holding at most one block of ``max_bytes``.

    ``wanted`` says by its fields whether a record's block is asked for. A record whose length is wrong is a damage that
    reaches to the next bytes that begin like a record, with a type, an id and a length. What the end of the stream cuts
    is a damage that has ``ended``: nothing in it is taken for a record.
    """

    def __init__(
        self, blocks: Iterable[bytes], max_bytes: int, wanted: Callable[[dict[str, str]], bool] = lambda _: True
    ) -> None:
        self._window = _Window(blocks)
        self._max_bytes = max_bytes
        self._wanted = wanted
        self._damages = 0

    def __iter__(self) -> Iterator[WarcRecord | Damage]:
        window = self._window
        while True:
            window.skip_line_ends()
            if not window.peek(1):
                if window.fault:
                    yield Damage(window.offset, window.offset, window.fault, True, b"")
                return
            start = window.offset
            item = self._record(start)
            if isinstance(item, WarcRecord):
                yield item
                continue
            ended = item.ended or not self._find_record()
            if ended:
                window.skip_all()
            why = window.fault if ended and window.fault else item.why
            yield Damage(start, window.offset, why, ended, item.head)
            if ended:
                return

    def _record(self, start: int) -> WarcRecord | Damage:
        """Read one record; after a damage the window stands where the search for the next record begins."""
        window = self._window
        header = window.until(_HEADER_END, HEADER_BYTES)
        if header is None:
            head = window.peek(HEAD_BYTES)
            why = "what follows is no WARC record" if not _begins(head) else "its header is cut or too long"
            return Damage(start, start, why, _begins(head) and window.at_end(HEADER_BYTES), head[:HEAD_BYTES])
        fields = header_fields(header)
        size = content_length(fields)
        if size is None or not _VERSION.match(header):
            why = "it has no valid Content-Length" if _VERSION.match(header) else "what follows is no WARC record"
            return Damage(start, start, why, False, header[:HEAD_BYTES])
        window.take(len(header))
        whole = size <= self._max_bytes
        wanted = self._wanted(fields)
        block = window.take(size if whole else min(size, HEAD_BYTES)) if wanted or whole else b""
        left = size - len(block) - window.skip(size - len(block))
        if left:
            why = f"it has {size - left:,} of the {size:,} bytes that its Content-Length says: the file was cut short"
            return Damage(start, start, why, True, header + block[: HEAD_BYTES - len(header)])
        ended = window.peek(len(_RECORD_END)) == _RECORD_END
        between = window.skip_line_ends()
        if not ended and not _MAGIC.startswith(window.peek(len(_MAGIC))):
            why = f"its Content-Length, {size:,}, is wrong: neither its end mark nor a record comes then"
            if len(block) == size:
                window.give_back(header + block + between)
            return Damage(start, start, why, False, header[:HEAD_BYTES])
        return WarcRecord(start, fields, block if wanted else b"", whole or not wanted, size)

    def _find_record(self) -> bool:
        """Go to the next thing that is a record by its header; False at the end of the stream."""
        window = self._window
        self._damages += 1
        if self._damages > MOST_DAMAGES:
            return False
        window.take(1)
        while window.skip_to(_VERSION):
            header = window.until(_HEADER_END, HEADER_BYTES)
            if header is None:
                window.skip(HEADER_BYTES // 2)
                continue
            # Only the last line of that kind can begin a header: so each byte is looked at a few times at most.
            *_, last = _VERSION.finditer(header)
            window.skip(last.start())
            fields = header_fields(header[last.start() :])
            if "warc-type" in fields and "warc-record-id" in fields and content_length(fields) is not None:
                return True
            window.skip(last.end() - last.start())
        return False


def header_fields(header: bytes) -> dict[str, str]:
    """Return the named fields of a header, of WARC or HTTP: names in lower case, repeated ones joined by commas.

    The first line, which names no field, is left out; a line that begins with white space continues the one before.
    Values are UTF-8, or else Latin-1.
    """
    try:
        text = header.decode()
    except UnicodeDecodeError:
        text = header.decode("latin-1")
    fields: dict[str, list[str]] = {}
    name = ""
    for line in text.split("\n")[1:]:
        folded = line[:1] in (" ", "\t")
        if not folded:
            name, colon, line = line.partition(":")
            name = name.strip().lower() if colon else ""
        if name and (value := line.strip()):
            values = fields.setdefault(name, [])
            values += (" " if folded else ", ", value) if values else (value,)
        elif name:
            fields.setdefault(name, [])
    return {name: "".join(values) for name, values in fields.items()}


def content_length(fields: dict[str, str]) -> int | None:
    """Return the block's length in bytes, None if there is no valid one."""
    text = fields.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _begins(head: bytes) -> bool:
    return head.startswith(_MAGIC[: len(head)])


class _Window:
    """Bytes of a stream, seen as far as needed; ``offset`` is that of the first, ``fault`` how the stream broke."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._data = b""
        self._at = 0
        self._ended = False
        self.offset = 0
        self.fault: str | None = None

    def _more(self) -> bool:
        if self._ended:
            return False
        try:
            block = next(self._blocks, None)
        except BrokenStreamError as error:
            self.fault, block = str(error), None
        self._ended = block is None
        self._data, self._at = self._data[self._at :] + (block or b""), 0
        return not self._ended

    def _ahead(self) -> int:
        return len(self._data) - self._at

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes without taking them, fewer at the end of the stream."""
        while self._ahead() < size and self._more():
            pass
        return self._data[self._at : self._at + size]

    def at_end(self, within: int) -> bool:
        """Say whether the stream ends within so many bytes."""
        self.peek(within + 1)
        return self._ended and self._ahead() <= within

    def until(self, pattern: re.Pattern[bytes], limit: int) -> bytes | None:
        """Return the next bytes up to and with the pattern, without taking them; None if it is not within the limit."""
        seen = 0
        while True:
            match = pattern.search(self._data, self._at + max(0, seen - 4), self._at + limit)
            if match:
                return self._data[self._at : match.end()]
            seen = self._ahead()
            if seen >= limit or not self._more():
                return None

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end of the stream."""
        parts = []
        left = size
        while left:
            part = self._data[self._at : self._at + left]
            parts.append(part)
            self._at += len(part)
            left -= len(part)
            if left and not self._more():
                break
        self.offset += size - left
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, size: int) -> int:
        """Leave out the next ``size`` bytes, fewer at the end of the stream, and return how many."""
        left = size
        while left:
            step = min(left, self._ahead())
            self._at += step
            left -= step
            if left and not self._more():
                break
        self.offset += size - left
        return size - left

    def skip_all(self) -> None:
        while self.skip(max(1, self._ahead())):
            pass

    def skip_line_ends(self) -> bytes:
        """Leave out the line ends that come next, and return them."""
        parts = []
        while self.peek(1) and (match := _LINE_ENDS.match(self._data, self._at)) and match[0]:
            parts.append(self.take(len(match[0])))
        return b"".join(parts)

    def skip_to(self, pattern: re.Pattern[bytes]) -> bool:
        """Leave out what comes before the pattern; all of the stream, and False, if it does not come."""
        overlap = 64
        while True:
            match = pattern.search(self._data, self._at)
            if match:
                self.skip(match.start() - self._at)
                return True
            self.skip(max(0, self._ahead() - overlap))
            if not self._more():
                self.skip(self._ahead())
                return False

    def give_back(self, data: bytes) -> None:
        """Put back bytes just taken."""
        self._data, self._at = data + self._data[self._at :], 0
        self.offset -= len(data)
