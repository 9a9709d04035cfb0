"""Compressed streams, whole and broken, and the framing of lines."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text import streams
from winnow.text.limits import Limits
from winnow.text.lines import Lines
from winnow.text.streams import BrokenStreamError, HashedFile, WrongCompressionError, read_blocks


def compressible(size: int, seed: int = 0) -> bytes:
    words = [f"word{number} ".encode() for number in range(500)]
    chosen = random.Random(seed).choices(words, k=size // 6)
    return b"".join(chosen)[:size]


def drain(data: bytes, compression: str | None) -> tuple[bytes, Exception | None]:
    pieces = []
    try:
        for block in read_blocks(HashedFile(io.BytesIO(data)), compression):
            assert 0 < len(block) <= streams.BLOCK
            pieces.append(block)
    except (BrokenStreamError, WrongCompressionError) as error:
        return b"".join(pieces), error
    return b"".join(pieces), None


TEXT = compressible(700_000)


@pytest.mark.parametrize(
    ("data", "compression"),
    [
        (TEXT, None),
        (gzip.compress(TEXT), "gz"),
        (gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:]), "gz"),
        (gzip.compress(TEXT[:1000]) + bytes(700) + gzip.compress(TEXT[1000:]) + bytes(40_000), "gz"),
        (zstandard.compress(TEXT), "zst"),
        (zstandard.compress(TEXT[:1000]) + zstandard.compress(b"") + zstandard.compress(TEXT[1000:]), "zst"),
        (b"\x55\x2a\x4d\x18\x05\0\0\0hello" + zstandard.compress(TEXT) + b"\x50\x2a\x4d\x18\0\0\0\0", "zst"),
        (zstandard.ZstdCompressor(write_checksum=True).compress(TEXT), "zst"),
        (zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(TEXT), "zst"),
        (zstandard.ZstdCompressor(level=-5).compress(random.Random(1).randbytes(300_000) + TEXT[:0]), "zst?"),
    ],
)
def test_whole_streams_of_every_shape_are_read_whole(data: bytes, compression: str | None) -> None:
    expected = TEXT
    if compression == "zst?":
        compression, expected = "zst", random.Random(1).randbytes(300_000)
    assert drain(data, compression) == (expected, None)


@pytest.mark.parametrize("window_log", [26, 27, 28, 31])
def test_zstandard_windows_are_read_up_to_128_mebibytes(window_log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    read, error = drain(writer.compress(TEXT) + writer.flush(), "zst")
    if window_log <= 27:
        assert (read, error) == (TEXT, None)
    else:
        assert read == b"" and "--long=27" in str(error)


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0.001, 0.999), compression=st.sampled_from(["gz", "zst"]), checksum=st.booleans())
def test_a_cut_stream_keeps_all_that_a_decoder_can_know_of_it(cut: float, compression: str, checksum: bool) -> None:
    if compression == "gz":
        whole = gzip.compress(TEXT, 1)
        part = whole[: max(1, int(cut * len(whole)))]
        known = zlib.decompressobj(wbits=31).decompress(part)
    else:
        whole = zstandard.ZstdCompressor(write_checksum=checksum).compress(TEXT)
        part = whole[: max(1, int(cut * len(whole)))]
        known = zstandard.ZstdDecompressor().decompressobj().decompress(part)
    got, error = drain(part, compression)
    assert isinstance(error, BrokenStreamError)
    assert got == known
    assert TEXT.startswith(got)


@pytest.mark.parametrize("missing", [1, 4, 7, 8])
def test_a_stream_that_lacks_only_its_last_bytes_is_broken_but_gives_its_data(missing: int) -> None:
    got, error = drain(gzip.compress(TEXT)[:-missing], "gz")
    assert got == TEXT and isinstance(error, BrokenStreamError)
    if missing <= 4:
        data = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)[:-missing]
        got, error = drain(data, "zst")
        assert got == TEXT and isinstance(error, BrokenStreamError)


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_noise_in_the_middle_keeps_what_came_before_it(compression: str) -> None:
    whole = gzip.compress(TEXT) if compression == "gz" else zstandard.compress(TEXT)
    middle = len(whole) // 2
    got, error = drain(whole[:middle] + b"\xff" * 5000 + whole[middle + 5000 :], compression)
    assert isinstance(error, BrokenStreamError)
    prefix = zlib.decompressobj(wbits=31).decompress(whole[:middle]) if compression == "gz" else TEXT[:131_072]
    assert got.startswith(prefix)


def test_garbage_after_a_whole_stream_is_a_break_after_all_data() -> None:
    for data, compression in ((gzip.compress(TEXT), "gz"), (zstandard.compress(TEXT), "zst")):
        got, error = drain(data + b"garbage", compression)
        assert got == TEXT and isinstance(error, BrokenStreamError)


def test_an_empty_compressed_file_is_broken_and_an_empty_plain_file_is_empty() -> None:
    assert drain(b"", None) == (b"", None)
    assert isinstance(drain(b"", "gz")[1], BrokenStreamError)
    assert isinstance(drain(b"", "zst")[1], BrokenStreamError)


def test_a_compression_other_than_the_name_says_is_told_with_the_mend() -> None:
    assert "add .gz to its name" in str(drain(gzip.compress(TEXT), None)[1])
    assert "add .zst to its name" in str(drain(zstandard.compress(TEXT), None)[1])
    assert "take .gz off its name" in str(drain(TEXT, "gz")[1])
    assert "take .zst off its name" in str(drain(TEXT, "zst")[1])


def test_pieces_stay_small_however_much_they_expand() -> None:
    zeros = bytes(40_000_000)
    for data, compression in ((gzip.compress(zeros), "gz"), (zstandard.compress(zeros), "zst")):
        blocks = read_blocks(HashedFile(io.BytesIO(data)), compression, Limits(max_expansion=1e6))
        assert sum(len(block) for block in blocks if len(block) <= streams.BLOCK) == len(zeros)


@st.composite
def blocks_of(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = draw(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"bcd", b"\xc2\x85", b"\xe2\x80\xa8"]))).copy()
    stream = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + b"".join(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    return stream, [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(blocks_of(), st.integers(1, 12))
def test_lines_do_not_depend_on_how_the_stream_is_cut(case: tuple[bytes, list[bytes]], max_bytes: int) -> None:
    stream, blocks = case
    expected = stream.split(b"\n")
    if not expected[-1]:
        expected.pop()
    offset = 0
    lines = list(Lines(blocks, max_bytes))
    assert len(lines) == len(expected)
    for number, (line, data) in enumerate(zip(lines, expected, strict=True), start=1):
        assert (line.number, line.offset, line.whole) == (number, offset, len(data) <= max_bytes)
        if line.whole:
            assert line.data == (data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data)
        offset += len(data) + 1
