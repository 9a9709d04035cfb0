"""Words, shingles and hashes against their definitions in plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup import _kernels
from winnow.dedup.shingles import over_ranges, shingle_hashes, shingles, word_table
from winnow.errors import UserError

# Letters, digits and marks of many scripts, a good part of them cased, among separators.
TEXTS = st.text(
    st.one_of(st.sampled_from("aA_1 .-'ΣσςİıßẞȺǅ\u0307\u0301\u200d中"), st.characters(exclude_categories=["Cs"]))
)


@given(text=TEXTS, size=st.integers(1, 6))
@settings(max_examples=400, deadline=None)
def test_shingles_are_the_regex_words_of_the_lowered_text(oracle, text, size):
    assert shingles(text, size) == oracle(text, size)


def test_shingles_of_multilingual_texts_equal_the_definition(oracle, multilingual):
    for text in multilingual:
        assert shingles(text) == oracle(text)


def test_every_code_point_is_lowered_and_split_as_python_does(oracle):
    points = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(points), 8192):
        text = " ".join(f"{point}a b{point}" for point in points[start : start + 8192])
        assert shingles(text, 1) == oracle(text, 1), f"code points from {start:#x}"


@given(data=st.binary(max_size=200), skip=st.integers(0, 9), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_kernel_hashes_equal_xxhash(data, skip, seed):
    raw = np.frombuffer(data, np.uint8)
    start = min(skip, len(data))
    assert _kernels.xxh32(raw, start, len(data)) == xxhash.xxh32_intdigest(data[start:])
    assert _kernels.xxh64(raw, start, len(data), np.uint64(seed)) == xxhash.xxh64_intdigest(data[start:], seed)


def test_shingle_hashes_are_the_sorted_distinct_hashes_of_the_shingles(oracle, multilingual, library):
    texts = multilingual + library[:300]
    offsets, hashes = shingle_hashes(pa.array(texts))
    assert offsets[0] == 0 and offsets[-1] == len(hashes)
    for i, text in enumerate(texts):
        expected = sorted({xxhash.xxh64_intdigest(shingle) for shingle in oracle(text)})
        assert hashes[offsets[i] : offsets[i + 1]].tolist() == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_chunks_slices_and_nulls_change_no_text(kind):
    texts = ["alpha beta gamma", None, "Σίσυφος delta", "", "epsilon zeta eta theta iota kappa"]
    whole = pa.array(texts, kind)
    chunked = pa.chunked_array([pa.array(["x", *texts[:2]], kind)[1:], pa.array([], kind), pa.array(texts[2:], kind)])
    plain = shingle_hashes(pa.array([text or "" for text in texts], kind))
    for form in (whole, chunked, pa.concat_arrays([pa.array(["before"], kind), whole])[1:]):
        for got, expected in zip(shingle_hashes(form), plain, strict=True):
            assert np.array_equal(got, expected)


def test_no_texts_give_no_hashes():
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.large_string())):
        offsets, hashes = shingle_hashes(empty)
        assert offsets.tolist() == [0] and hashes.dtype == np.uint64 and len(hashes) == 0


def test_truncated_character_at_the_end_of_the_buffer_is_ignored():
    data = np.frombuffer("naïve 中".encode()[:-1], np.uint8)
    out, starts = _kernels.scratch(np.array([0, len(data)]), 0, 1)
    words, size = _kernels.normalise(data, 0, len(data), word_table(), out, starts)
    assert (words, out[:size].tobytes().decode()) == (1, "naïve")


def test_wrong_types_and_sizes_are_refused():
    with pytest.raises(UserError, match="binary"):
        shingle_hashes(pa.array([b"x"]))
    with pytest.raises(UserError, match="at least 1 word"):
        shingle_hashes(pa.array(["x"]), shingle_words=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_cover_every_row_once_and_keep_the_order(threads):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[5], 5 + np.cumsum(rng.integers(0, 3 << 20, 40))])
    ranges = over_ranges(lambda first, last: (first, last), offsets, threads)
    assert ranges[0][0] == 0 and ranges[-1][1] == 40 and len(ranges) > 3
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
