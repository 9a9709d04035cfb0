"""The decoders of compressed streams: gzip, Zstandard, bzip2 and xz, whole or broken, by their bytes alone."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import zstandard

INPUT = 2**14
GZIP_OUTPUT = 2**20
STEP = 64
STEP_OUTPUT = 2**16
LARGEST_WINDOW = 2**27
XZ_MEMORY = LARGEST_WINDOW + 2**20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BrokenStreamError(Exception):
    """A compressed stream ended or turned to nonsense before its end; the message says how."""


class WrongCompressionError(Exception):
    """A file's first bytes contradict its suffix; the message names the mend."""


class Readable(Protocol):
    def read(self, size: int) -> bytes: ...


_BZ2_STARTS = tuple(b"BZh%d" % level + mark for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90"))
_STARTS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    (".gz", (b"\x1f\x8b",)),
    (".zst", (ZSTD_MAGIC,)),
    (".bz2", _BZ2_STARTS),
    (".xz", (b"\xfd7zXZ\0",)),
)
_RAW_LZMA = b"\x5d\0\0"
_REPACK = "the file is raw LZMA, which is not read; repack it as .xz (unlzma, then xz)"
LONGEST_MAGIC = 10


def compressed_by_its_look(start: bytes) -> str | None:
    """Return the mend if a file of these first bytes is compressed although its name does not say so."""
    for suffix, magics in _STARTS:
        if start.startswith(magics):
            return f"the file is compressed but its name does not say so; add {suffix} to its name"
    return _REPACK if start.startswith(_RAW_LZMA) else None


def _wrong(suffix: str, kind: str, start: bytes) -> WrongCompressionError:
    for other, magics in _STARTS:
        if other != suffix and start.startswith(magics):
            return WrongCompressionError(f"the file does not begin like {kind}; name it {other} instead of {suffix}")
    if start.startswith(_RAW_LZMA):
        return WrongCompressionError(_REPACK)
    mend = f"take {suffix} off its name if it is not compressed"
    return WrongCompressionError(f"the file does not begin like {kind}; {mend}")


def _empty(kind: str) -> BrokenStreamError:
    return BrokenStreamError(f"the file is empty, not even a {kind} header is there")


def _cut(kind: str) -> BrokenStreamError:
    return BrokenStreamError(f"the {kind} stream ends before its end mark: the file was cut short")


def _corrupt(kind: str, why: object) -> BrokenStreamError:
    return BrokenStreamError(f"the {kind} stream is corrupt ({why}): a part of the file was lost or overwritten")


def _wide(kind: str, option: str) -> BrokenStreamError:
    return BrokenStreamError(
        f"the {kind} stream wants a window of more than 128 MiB of memory; compress it anew with a window of at most "
        f"128 MiB ({option})"
    )


def _pieces(block: bytes, largest: int) -> Iterator[bytes]:
    """Cut what was decoded; decoding itself takes the same steps always, so that it breaks at the same byte always."""
    if 0 < len(block) <= largest:
        yield block
    else:
        for start in range(0, len(block), largest):
            yield block[start : start + largest]


def gzip_blocks(source: Readable, largest: int) -> Iterator[bytes]:
    """Yield the bytes of all members (RFC 1952); zero padding between and after them is allowed."""
    pending = source.read(INPUT)
    if not pending:
        raise _empty("gzip")
    if not pending.startswith(b"\x1f\x8b"[: len(pending)]):
        raise _wrong(".gz", "gzip", pending)
    decoder = zlib.decompressobj(wbits=31)
    block = b""
    while True:
        if not pending and (decoder.eof or not block):
            pending = source.read(INPUT)
            if not pending:
                break
        if decoder.eof:
            pending = pending.lstrip(b"\0")
            if not pending:
                continue
            decoder = zlib.decompressobj(wbits=31)
        # After an error a decoder yields nothing more, not even what it had decoded: hence the spare one.
        spare = decoder.copy()
        try:
            block = decoder.decompress(pending, GZIP_OUTPUT)
        except zlib.error as error:
            yield from _until_error(spare, pending)
            raise _corrupt("gzip", error) from error
        yield from _pieces(block, largest)
        pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if not decoder.eof:
        raise _cut("gzip")


def _until_error(decoder: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """Yield every byte that is decoded before the error: by single bytes of input, and of output where that fails."""
    for place in range(len(data)):
        byte = data[place : place + 1]
        spare = decoder.copy()
        try:
            if block := decoder.decompress(byte):
                yield block
        except zlib.error:
            decoder = spare
            break
    with suppress(zlib.error):
        while block := decoder.decompress(byte, 1):
            yield block
            byte = decoder.unconsumed_tail


def zstd_blocks(source: Readable, largest: int) -> Iterator[bytes]:
    """Yield the bytes of all frames (RFC 8878), a compression block (at most 128 KiB decompressed) at a time.

    Feeding the decoder by blocks bounds what one call can return and shows where a cut file ends.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    magic = source.read(4)
    if not magic:
        raise _empty("Zstandard")
    if not _begins_frame(magic):
        raise _wrong(".zst", "Zstandard", magic + source.read(LONGEST_MAGIC))
    while magic:
        if not _begins_frame(magic):
            raise _corrupt("Zstandard", "what follows a frame is no frame")
        if len(magic) < 4:
            raise _cut("Zstandard")
        if magic == ZSTD_MAGIC:
            try:
                yield from _zstd_frame(source, decompressor)
            except zstandard.ZstdError as error:
                if "memory" in str(error):
                    raise _wide("Zstandard", "--long=27") from error
                raise _corrupt("Zstandard", error) from error
        else:
            left = int.from_bytes(_take(source, 4), "little")
            while left:
                left -= len(_take(source, min(left, INPUT)))
        magic = source.read(4)


def _begins_frame(magic: bytes) -> bool:
    skippable = len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5
    return skippable or magic == ZSTD_MAGIC[: len(magic)]


def _zstd_frame(source: Readable, decompressor: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    descriptor = _take(source, 1)
    flags = descriptor[0]
    single_segment = bool(flags & 0x20)
    header = (0 if single_segment else 1) + (0, 1, 2, 4)[flags & 3] + (int(single_segment), 2, 4, 8)[flags >> 6]
    decoder = decompressor.decompressobj()
    pending = ZSTD_MAGIC + descriptor + (_take(source, header) if header else b"")
    block_header = _take(source, 3)
    last = False
    while not last:
        fields = int.from_bytes(block_header, "little")
        last = bool(fields & 1)
        run_length = (fields >> 1) & 3 == 1
        size = 1 if run_length else fields >> 3
        pending += block_header
        data = source.read(size if last else size + 3)  # with the next block's header
        if len(data) < size:
            raise _cut("Zstandard")
        if block := decoder.decompress(pending + data[:size]):
            yield block
        pending, block_header = b"", data[size:]
        if not last and len(block_header) < 3:
            raise _cut("Zstandard")
    if flags & 4:
        decoder.decompress(_take(source, 4))


def _take(source: Readable, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise _cut("Zstandard")
    return data


def bzip2_blocks(source: Readable, largest: int) -> Iterator[bytes]:
    """Yield the bytes of all streams of a bzip2 file."""
    return _stepwise(source, largest, ".bz2", "bzip2", b"BZh", bz2.BZ2Decompressor, OSError)


def xz_blocks(source: Readable, largest: int) -> Iterator[bytes]:
    """Yield the bytes of all streams of an xz file."""

    def decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    return _stepwise(source, largest, ".xz", "xz", b"\xfd7zXZ\0", decoder, lzma.LZMAError)


def _stepwise(
    source: Readable,
    largest: int,
    suffix: str,
    kind: str,
    magic: bytes,
    new: Callable[[], Any],
    fault: type[Exception],
) -> Iterator[bytes]:
    """Yield the bytes of concatenated streams; zero padding between and after them is allowed.

    These decoders cannot be copied, so that what one decodes in the call that fails is lost: hence the small steps,
    at places that depend on nothing but the file.
    """
    pending = source.read(INPUT)
    if not pending:
        raise _empty(kind)
    if not pending.startswith(magic[: len(pending)]):
        raise _wrong(suffix, kind, pending)
    decoder = new()
    while pending:
        for start in range(0, len(pending), STEP):
            step = pending[start : start + STEP]
            while step or not (decoder.needs_input or decoder.eof):
                if decoder.eof:
                    step = step.lstrip(b"\0")
                    if not step:
                        break
                    decoder = new()
                try:
                    block = decoder.decompress(step, STEP_OUTPUT)
                except fault as error:
                    if "Memory usage limit" in str(error):
                        raise _wide(kind, "--lzma2=dict=128MiB") from error
                    raise _corrupt(kind, error) from error
                step = decoder.unused_data if decoder.eof else b""
                yield from _pieces(block, largest)
        pending = source.read(INPUT)
    if not decoder.eof:
        raise _cut(kind)


DECODERS: dict[str, Callable[[Readable, int], Iterator[bytes]]] = {
    "gz": gzip_blocks,
    "zst": zstd_blocks,
    "bz2": bzip2_blocks,
    "xz": xz_blocks,
}
