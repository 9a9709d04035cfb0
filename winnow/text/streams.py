"""Bounded, hashed reading of plain, gzip and Zstandard files, and the framing of lines in them.

Standard decoders lose what they had decoded when a stream breaks, or do not notice that it ended early. These keep
every byte before the break and say where it is. No piece handed on is larger than ``BLOCK``, however much a few input
bytes expand to.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import zstandard

BLOCK = 2**20
HEAD = 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
GZIP_INPUT = 2**14
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_LARGEST_WINDOW = 2**31


class BrokenStreamError(Exception):
    """A compressed stream ended or turned to nonsense before its end; the message says how."""


class WrongCompressionError(Exception):
    """A file's first bytes contradict its suffix; the message names the mend."""


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

    def digest(self) -> str:
        """Read what is left and return the SHA-256 hex digest of the whole file."""
        while self.read(BLOCK):
            pass
        return self._hash.hexdigest()


def read_blocks(source: HashedFile, compression: str | None) -> Iterator[bytes]:
    """Yield the decompressed bytes in pieces of at most ``BLOCK``; ``compression`` is ``gz``, ``zst`` or None.

    Raises ``BrokenStreamError`` after the last whole piece, ``WrongCompressionError`` before the first.
    """
    if compression == "gz":
        return _gzip_blocks(source)
    if compression == "zst":
        return _zstd_blocks(source)
    return _plain_blocks(source)


def _plain_blocks(source: HashedFile) -> Iterator[bytes]:
    block = source.read(BLOCK)
    for magic, suffix in ((GZIP_MAGIC, ".gz"), (ZSTD_MAGIC, ".zst")):
        if block.startswith(magic):
            raise WrongCompressionError(
                f"the file is compressed but its name does not say so; add {suffix} to its name"
            )
    while block:
        yield block
        block = source.read(BLOCK)


def _gzip_blocks(source: HashedFile) -> Iterator[bytes]:
    """Yield the bytes of all members (RFC 1952); zero padding between and after them is allowed."""
    pending = source.read(GZIP_INPUT)
    if not pending:
        raise BrokenStreamError("the file is empty, not even a gzip header is there")
    if not pending.startswith(GZIP_MAGIC[: len(pending)]):
        raise WrongCompressionError("the file does not begin like gzip; take .gz off its name if it is not compressed")
    decoder = zlib.decompressobj(wbits=31)
    while pending or (pending := source.read(GZIP_INPUT)):
        if decoder.eof:
            pending = pending.lstrip(b"\0")
            if not pending:
                continue
            decoder = zlib.decompressobj(wbits=31)
        # After an error a decoder yields nothing more, not even what it had decoded: hence the spare one.
        spare = decoder.copy()
        try:
            block = decoder.decompress(pending, BLOCK)
        except zlib.error as error:
            yield from _until_error(spare, pending)
            raise BrokenStreamError(f"the gzip stream is corrupt ({error})") from error
        if block:
            yield block
        pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    while not decoder.eof and (block := decoder.decompress(b"", BLOCK)):
        yield block
    if not decoder.eof:
        raise BrokenStreamError("the gzip stream ends before its end mark: the file was cut short")


def _until_error(decoder: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    try:
        for byte in data:
            if block := decoder.decompress(bytes((byte,))):
                yield block
    except zlib.error:
        return


def _zstd_blocks(source: HashedFile) -> Iterator[bytes]:
    """Yield the bytes of all frames (RFC 8878), a compression block (at most 128 KiB decompressed) at a time.

    Feeding the decoder by blocks bounds what one call can return and shows where a cut file ends.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_LARGEST_WINDOW)
    magic = source.read(4)
    if not magic:
        raise BrokenStreamError("the file is empty, not even a Zstandard header is there")
    if not _begins_frame(magic):
        raise WrongCompressionError(
            "the file does not begin like Zstandard; take .zst off its name if it is not compressed"
        )
    while magic:
        if not _begins_frame(magic):
            raise BrokenStreamError("the Zstandard stream is corrupt (what follows a frame is no frame)")
        if len(magic) < 4:
            raise BrokenStreamError(_CUT_ZSTD)
        if magic == ZSTD_MAGIC:
            try:
                yield from _zstd_frame(source, decompressor)
            except zstandard.ZstdError as error:
                raise BrokenStreamError(f"the Zstandard stream is corrupt ({error})") from error
        else:
            left = int.from_bytes(_take(source, 4), "little")
            while left:
                left -= len(_take(source, min(left, BLOCK)))
        magic = source.read(4)


_CUT_ZSTD = "the Zstandard stream ends inside a frame: the file was cut short"


def _begins_frame(magic: bytes) -> bool:
    skippable = len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5
    return skippable or magic == ZSTD_MAGIC[: len(magic)]


def _zstd_frame(source: HashedFile, decompressor: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    descriptor = _take(source, 1)
    flags = descriptor[0]
    single_segment = bool(flags & 0x20)
    header = (0 if single_segment else 1) + (0, 1, 2, 4)[flags & 3] + (int(single_segment), 2, 4, 8)[flags >> 6]
    decoder = decompressor.decompressobj()
    pending = ZSTD_MAGIC + descriptor + (_take(source, header) if header else b"")
    last = False
    while not last:
        block_header = _take(source, 3)
        fields = int.from_bytes(block_header, "little")
        last = bool(fields & 1)
        run_length = (fields >> 1) & 3 == 1
        size = 1 if run_length else fields >> 3
        pending += block_header + (_take(source, size) if size else b"")
        if block := decoder.decompress(pending):
            yield block
        pending = b""
    if flags & 4:
        decoder.decompress(_take(source, 4))


def _take(source: HashedFile, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise BrokenStreamError(_CUT_ZSTD)
    return data


class Line(NamedTuple):
    """A line without its ``\\n``: 1-based number, byte offset in the stream, bytes.

    Not ``whole`` means that the line was longer than the limit, and that ``data`` is its beginning only.
    """

    number: int
    offset: int
    data: bytes
    whole: bool


class Lines:
    """Frame a stream of byte blocks into lines on ``\\n`` alone, holding at most one line of ``max_bytes``.

    A byte order mark at the start of the stream is dropped (offsets still count it). While a line is being put
    together, and when the blocks raise, ``number``, ``offset`` and ``head`` describe that unfinished line.
    """

    def __init__(self, blocks: Iterable[bytes], max_bytes: int) -> None:
        self._blocks = blocks
        self._max_bytes = max_bytes
        self._held: list[bytes] = []
        self._size = 0
        self.number = 1
        self.offset = 0

    @property
    def head(self) -> bytes:
        """The beginning of the unfinished line."""
        head = b""
        for part in self._held:
            head += part[: HEAD - len(head)]
            if len(head) == HEAD:
                break
        return head

    def __iter__(self) -> Iterator[Line]:
        for block in self._blocks:
            parts = block.split(b"\n")
            rest = parts.pop()
            for part in parts:
                yield self._finish(part)
            if rest:
                self._hold(rest)
        if self._size:
            yield self._finish(b"")

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        self._held.append(part)
        if self._size > self._max_bytes:
            self._held = [self.head]

    def _finish(self, part: bytes) -> Line:
        if self._size or len(part) > self._max_bytes:
            self._hold(part)
            data, size, whole = b"".join(self._held), self._size, self._size <= self._max_bytes
            self._held, self._size = [], 0
        else:
            data, size, whole = part, len(part), True
        number, offset = self.number, self.offset
        self.number += 1
        self.offset += size + 1
        if number == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        return Line(number, offset, data, whole)
