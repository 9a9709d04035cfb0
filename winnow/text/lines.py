"""The framing of lines, and of other pieces between separators, in a stream of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

EXCERPTED = 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line without its end: 1-based number, byte offset in the stream, bytes.

    Not ``whole`` means that the line was longer than the limit, and that ``data`` is its beginning only.
    """

    number: int
    offset: int
    data: bytes
    whole: bool


class Held:
    """What is held of an unfinished line: all of it up to ``max_bytes``, else its beginning."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def whole(self) -> bool:
        return self.size <= self._max_bytes

    @property
    def head(self) -> bytes:
        head = b""
        for part in self._parts:
            head += part[: EXCERPTED - len(head)]
            if len(head) == EXCERPTED:
                break
        return head

    def add(self, part: bytes) -> None:
        if part:
            self.size += len(part)
            self._parts.append(part)
            if not self.whole:
                self._parts = [self.head]

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts, self.size = [], 0
        return data


class Lines:
    """Frame a stream of byte blocks into lines that end with ``end``, holding at most one line of ``max_bytes``.

    A byte order mark at the start of the stream is dropped (offsets still count it). While a line is being put
    together, and when the blocks raise, ``number``, ``offset`` and ``head`` describe that unfinished line.
    """

    def __init__(self, blocks: Iterable[bytes], max_bytes: int, end: bytes = b"\n") -> None:
        self._blocks = blocks
        self._end = end
        self._held = Held(max_bytes)
        self._tail = b""
        self.number = 1
        self.offset = 0

    @property
    def head(self) -> bytes:
        """The beginning of the unfinished line."""
        return (self._held.head + self._tail)[:EXCERPTED]

    def __iter__(self) -> Iterator[Line]:
        overlap = len(self._end) - 1
        for block in self._blocks:
            parts = (self._tail + block).split(self._end)
            rest = parts.pop()
            for part in parts:
                self._held.add(part)
                yield self._finish()
            # The last bytes may be the beginning of an end.
            kept = max(0, len(rest) - overlap)
            self._tail = rest[kept:]
            self._held.add(rest[:kept])
        self._held.add(self._tail)
        self._tail = b""
        if self._held.size:
            yield self._finish()

    def _finish(self) -> Line:
        size, whole = self._held.size, self._held.whole
        number, offset, data = self.number, self.offset, self._held.take()
        self.number += 1
        self.offset += size + len(self._end)
        return Line(number, offset, data.removeprefix(BYTE_ORDER_MARK) if number == 1 else data, whole)


class Frame(NamedTuple):
    """Consecutive whole lines, without their ends; number and offset are those of the first."""

    number: int
    offset: int
    lines: list[bytes]


class Frames:
    """Frame a stream of byte blocks into lines that end with ``\n``, a block's lines at a time.

    A line longer than ``max_bytes`` is either among the others or, not held, comes as a ``Line`` that is not whole.
    While the blocks are read, and when they raise, ``number``, ``offset`` and ``head`` describe the unfinished line.
    A byte order mark stays. ``Lines`` frames the same a line at a time.
    """

    def __init__(self, blocks: Iterable[bytes], max_bytes: int, number: int = 1, offset: int = 0) -> None:
        self._blocks = blocks
        self._held = Held(max_bytes)
        self.number = number
        self.offset = offset

    @property
    def head(self) -> bytes:
        """The beginning of the unfinished line."""
        return self._held.head

    def __iter__(self) -> Iterator[Frame | Line]:
        for block in self._blocks:
            lines = block.split(b"\n")
            rest = lines.pop()
            if lines:
                if self._held.size:
                    self._held.add(lines[0])
                    if self._held.whole:
                        lines[0] = self._held.take()
                    else:
                        yield self._long_line()
                        lines.pop(0)
                if lines:
                    yield self._frame(lines)
            self._held.add(rest)
        if not self._held.whole:
            yield self._long_line()
        elif self._held.size:
            yield self._frame([self._held.take()])

    def _frame(self, lines: list[bytes]) -> Frame:
        frame = Frame(self.number, self.offset, lines)
        self.number += len(lines)
        self.offset += sum(map(len, lines)) + len(lines)
        return frame

    def _long_line(self) -> Line:
        line = Line(self.number, self.offset, b"", False)
        self.number += 1
        self.offset += self._held.size + 1
        return line._replace(data=self._held.take())
