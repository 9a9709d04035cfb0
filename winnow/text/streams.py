"""Bounded, hashed reading of plain and compressed files.

Standard decoders lose what they had decoded when a stream breaks, or do not notice that it ended early. These keep
the bytes before the break and say where it is. No piece handed on is larger than ``BLOCK``, however much a few input
bytes expand to.
"""

from __future__ import annotations

import builtins
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

from winnow.text import decoders
from winnow.text.decoders import BrokenStreamError, WrongCompressionError
from winnow.text.limits import Limits
from winnow.text.quarantine import FileFailedError, Quarantined

__all__ = [
    "BLOCK",
    "HEAD",
    "BrokenStreamError",
    "HashedFile",
    "Stretch",
    "WrongCompressionError",
    "raw_blocks",
    "read_blocks",
]

BLOCK = 2**20
HEAD = 2**16
"""Bytes at the beginning of a stream by which a file that is no corpus file of its name is known."""

BOMBS_FROM = 16 * 2**20
"""Bytes up to which any expansion is allowed: small files of equal records shrink a thousandfold honestly."""


class Source(Protocol):
    """Bytes read front to back: how many of them so far, and of how many if that is known."""

    @property
    def bytes(self) -> int: ...

    @property
    def size(self) -> int | None: ...

    def read(self, size: int) -> builtins.bytes: ...


class HashedFile:
    """A binary file read front to back, hashed and counted on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end of the file. Raises ``OSError``."""
        data = self._file.read(size)
        self._hash.update(data)
        self.bytes += len(data)
        return data

    @property
    def size(self) -> int | None:
        """The bytes of the whole file, None where it cannot seek."""
        if not self._file.seekable():
            return None
        here = self._file.tell()
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(here)
        return size

    def digest(self) -> str:
        """Read what is left and return the SHA-256 hex digest of the whole file."""
        while self.read(BLOCK):
            pass
        return self._hash.hexdigest()


class Stretch:
    """The bytes ``[start, end)`` of a file that can seek, read front to back."""

    def __init__(self, file: BinaryIO, start: int, end: int | None) -> None:
        file.seek(start)
        self._file = file
        self.size = None if end is None else end - start
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end of the stretch. Raises ``OSError``."""
        data = self._file.read(size if self.size is None else min(size, self.size - self.bytes))
        self.bytes += len(data)
        return data


def read_blocks(source: Source, compression: str | None, limits: Limits | None = None) -> Iterator[bytes]:
    """Yield the decompressed bytes in pieces of at most ``BLOCK``; ``compression`` is gz, zst, bz2, xz or None.

    Raises ``BrokenStreamError`` after the last whole piece, ``WrongCompressionError`` before the first, and
    ``FileFailedError`` where the file expands beyond ``limits``.
    """
    if compression is None:
        return _plain_blocks(source)
    blocks = decoders.DECODERS[compression](source, BLOCK)
    return _watch_expansion(blocks, source, limits or Limits())


def raw_blocks(source: Source) -> Iterator[bytes]:
    """Yield the bytes as they are."""
    while block := source.read(BLOCK):
        yield block


def _plain_blocks(source: Source) -> Iterator[bytes]:
    start = source.read(BLOCK)
    while start and len(start) < decoders.LONGEST_MAGIC and (more := source.read(decoders.LONGEST_MAGIC)):
        start += more
    if mend := decoders.compressed_by_its_look(start):
        raise WrongCompressionError(mend)
    if start:
        yield start
    yield from raw_blocks(source)


def _watch_expansion(blocks: Iterable[bytes], source: Source, limits: Limits) -> Iterator[bytes]:
    size = source.size
    total = 0
    for block in blocks:
        total += len(block)
        if total > limits.max_decompressed_bytes:
            raise _bomb(
                f"it decompresses to more than {limits.max_decompressed_bytes:,} bytes "
                f"(the first {source.bytes:,} bytes already do): raise max_decompressed_bytes"
            )
        packed = size or source.bytes
        if total > BOMBS_FROM and total > limits.max_expansion * packed:
            raise _bomb(
                f"its {packed:,} bytes decompress to more than {total:,}, over {limits.max_expansion:g} times "
                "their size: raise max_expansion"
            )
        yield block


def _bomb(why: str) -> FileFailedError:
    detail = f"the file looks like a decompression bomb: {why} if it is honest, or take it out"
    return FileFailedError(Quarantined(None, 0, "decompression_bomb", detail, ""))


def after_look(blocks: Iterable[bytes], look: Callable[[bytes], None]) -> Iterator[bytes]:
    """Pass blocks on after a look at their first ``HEAD`` bytes, however these are cut; ``look`` raises to refuse."""
    head = b""
    rest = iter(blocks)
    fault: BrokenStreamError | None = None
    try:
        while len(head) < HEAD and (block := next(rest, b"")):
            head += block
    except BrokenStreamError as error:
        fault = error
    look(head[:HEAD])
    if head:
        yield head
    if fault:
        raise fault
    yield from rest


def wide_characters(head: bytes) -> str | None:
    """Return the mend if a file of this beginning is UTF-16 or UTF-32 by its look, that is by its NULs."""
    zeros = [byte == 0 for byte in head[:4]]
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) or zeros in _WIDE["UTF-32"]:
        wide = "UTF-32"
    elif zeros in _WIDE["UTF-16"] or (head.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" in head[2:]):
        wide = "UTF-16"
    else:
        return None
    return f"the file is {wide} by its look; convert it: iconv -f {wide} -t UTF-8"


_WIDE = {
    "UTF-16": ([False, True] * 2, [True, False] * 2),
    "UTF-32": ([False] + [True] * 3, [True] * 3 + [False]),
}
"""Which of the first four bytes are zero when the first characters are ASCII."""
