"""All four compressions: concatenated, padded, cut, corrupt, mistaken for each other, and made to explode."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text import Limits, ShardReader, streams
from winnow.text.quarantine import FileFailedError
from winnow.text.streams import BrokenStreamError, HashedFile, WrongCompressionError, read_blocks

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": partial(gzip.compress, mtime=0),
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
KINDS = sorted(PACK)
TEXT = b"".join(b"line %d of a text that is not all the same: %d\n" % (n, n * n * 7919 % 10007) for n in range(8_000))


def drain(data: bytes, compression: str | None, limits: Limits | None = None) -> tuple[bytes, Exception | None]:
    got = b""
    try:
        for block in read_blocks(HashedFile(io.BytesIO(data)), compression, limits):
            assert 0 < len(block) <= 2**20
            got += block
    except (BrokenStreamError, WrongCompressionError) as error:
        return got, error
    return got, None


@pytest.mark.parametrize("kind", KINDS)
def test_concatenated_streams_are_read_as_one(kind: str) -> None:
    pack = PACK[kind]
    assert drain(pack(TEXT), kind) == (TEXT, None)
    parts = [TEXT[:1], b"", TEXT[1:1000], TEXT[1000:]]
    assert drain(b"".join(map(pack, parts)), kind) == (TEXT, None)
    assert drain(pack(b"") + pack(b""), kind) == (b"", None)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("zeros", [1, 4, 64, 70_000])
def test_zeros_between_and_after_streams_are_padding(kind: str, zeros: int) -> None:
    data = PACK[kind](TEXT[:999]) + bytes(zeros) + PACK[kind](TEXT[999:9999]) + bytes(zeros)
    assert drain(data, kind) == (TEXT[:9999], None)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_after_a_stream_is_a_break_after_all_of_it(kind: str) -> None:
    got, error = drain(PACK[kind](TEXT) + b"garbage", kind)
    assert got == TEXT and isinstance(error, BrokenStreamError)


@pytest.mark.parametrize("kind", ["bz2", "xz"])
@settings(max_examples=15, deadline=None)
@given(cut=st.floats(0.0001, 0.9999))
def test_a_cut_stream_keeps_all_that_its_decoder_gives(kind: str, cut: float) -> None:
    whole = bz2.compress(TEXT, 1) if kind == "bz2" else lzma.compress(TEXT[:100_000])
    part = whole[: max(1, int(cut * len(whole)))]
    known = (bz2.BZ2Decompressor() if kind == "bz2" else lzma.LZMADecompressor()).decompress(part)
    got, error = drain(part, kind)
    assert got == known and isinstance(error, BrokenStreamError) and "cut short" in str(error)


@pytest.mark.parametrize("kind", ["bz2", "xz"])
def test_noise_in_the_middle_keeps_what_came_before_it(kind: str) -> None:
    whole = bz2.compress(TEXT, 1) if kind == "bz2" else lzma.compress(TEXT)
    middle = len(whole) // 2
    got, error = drain(whole[:middle] + b"\xff" * 500 + whole[middle + 500 :], kind)
    assert isinstance(error, BrokenStreamError) and "corrupt" in str(error)
    assert TEXT.startswith(got[:90_000]) and len(got) > 90_000


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    at=st.floats(0, 1),
    noise=st.binary(max_size=6),
    block=st.sampled_from([1, 13, 4096]),
)
def test_whatever_a_stream_suffers_its_bytes_do_not_depend_on_the_size_of_blocks(
    kind: str, at: float, noise: bytes, block: int
) -> None:
    whole = PACK[kind](TEXT[:3000])
    place = int(at * len(whole))
    data = whole[:place] + noise + whole[place + len(noise) :] + whole
    expected = drain(data, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        got, error = drain(data, kind)
    assert (got, str(error)) == (expected[0], str(expected[1]))


def test_an_empty_file_is_no_compressed_file() -> None:
    for kind in KINDS:
        got, error = drain(b"", kind)
        assert got == b"" and isinstance(error, BrokenStreamError) and "empty" in str(error)


def test_a_compression_other_than_the_name_says_is_told_with_the_mend() -> None:
    short = TEXT[:1000]
    for kind, other in itertools.permutations(KINDS, 2):
        assert f"name it .{kind} instead of .{other}" in str(drain(PACK[kind](short), other)[1])
    for kind in KINDS:
        for data in (PACK[kind](short), PACK[kind](b"")):
            assert f"add .{kind} to its name" in str(drain(data, None)[1])
        assert f"take .{kind} off its name" in str(drain(short, kind)[1])
    raw = lzma.compress(short, lzma.FORMAT_ALONE)
    for name in (None, *KINDS):
        assert "repack it as .xz" in str(drain(raw, name)[1])
    assert drain(b"BZh9 is how a text may begin", None)[1] is None


@pytest.mark.parametrize("window_log", [27, 28, 31, 32])
def test_a_zstandard_window_beyond_128_mebibytes_is_refused_with_the_mend(window_log: int) -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, (window_log - 10) << 3]) + b"\x01\x00\x00"
    got, error = drain(frame, "zst")
    assert got == b""
    if window_log == 27:
        assert error is None
    else:
        assert "compress it anew with a window of at most 128 MiB (--long=27)" in str(error)


@pytest.mark.parametrize(("code", "allowed"), [(30, True), (31, False), (40, False)])
def test_an_xz_window_beyond_128_mebibytes_is_refused_with_the_mend(code: int, allowed: bool) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**16}]
    data = bytearray(lzma.compress(TEXT, filters=filters))
    header = data[12:20]  # of the only block: size, flags, filter, size of its properties, window, padding
    assert header[2:4] == b"\x21\x01"
    header[4] = code  # 30: 2^27 bytes, 31: 1.5 times that
    data[12:24] = header + zlib.crc32(header).to_bytes(4, "little")
    got, error = drain(bytes(data), "xz")
    if allowed:
        assert (got, error) == (TEXT, None)
    else:
        assert got == b"" and "compress it anew with a window of at most 128 MiB" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_fails_the_file_in_bounded_memory_and_says_which_setting_it_broke(kind: str, tmp_path: Path) -> None:
    size = 20_000_000 if kind == "xz" else 40_000_000
    bomb = PACK[kind](bytes(size))
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(bomb)
    reader = ShardReader(path, limits=Limits(max_expansion=500))
    tracemalloc.start()
    rows = [row for batch in reader for row in batch.quarantined]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.reason for row in rows] == ["decompression_bomb"] and reader.failed
    assert "raise max_expansion" in rows[0].detail and f"{len(bomb):,} bytes" in rows[0].detail
    assert peak < 40_000_000
    with pytest.raises(FileFailedError, match=r"more than 1,000,000 bytes.*raise max_decompressed_bytes"):
        drain(bomb, kind, Limits(max_decompressed_bytes=1_000_000))


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_file_may_expand_as_it_likes(kind: str) -> None:
    data = bytes(15 * 2**20)
    assert drain(PACK[kind](data), kind, Limits(max_expansion=1.0)) == (data, None)


def test_a_large_file_is_judged_by_the_whole_of_it() -> None:
    import random

    front = zstandard.compress(bytes(30 * 2**20))
    back = zstandard.compress(random.Random(0).randbytes(100_000))
    assert drain(front + back, "zst", Limits(max_expansion=400))[1] is None
    with pytest.raises(FileFailedError):
        drain(front, "zst", Limits(max_expansion=400))
