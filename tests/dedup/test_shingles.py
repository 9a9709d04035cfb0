"""Shingles: their units, their hashes and their sets, against their definition in plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup import _hash_kernels, _shingle_kernels, _unit_kernels
from winnow.dedup.normalizations import NORMALIZATIONS, UNITS, rules
from winnow.dedup.one_text import hash_text, joined_shingles, shingle_list, unit_hash
from winnow.dedup.shingles import DEFAULT_SHINGLING, Shingling, over_ranges, shingle_hashes
from winnow.errors import UserError

# Letters, digits and marks of many scripts, a good part of them cased, among separators.
TEXTS = st.text(
    st.one_of(
        st.sampled_from("aA_1 .-'ΣσςİıßẞȺǅ\u0307\u0301\u0323\u0344\u200d中각½٣,\x1c\x00"),
        st.characters(exclude_categories=["Cs"]),
    )
)
SHINGLINGS = [Shingling(normalization, unit, 3) for normalization in NORMALIZATIONS for unit in UNITS]


def hash_sets(
    texts: list[str | None], shingling: Shingling = DEFAULT_SHINGLING, threads: int | None = 1
) -> list[list[int]]:
    offsets, hashes = shingle_hashes(pa.array(texts, pa.large_string()), shingling, threads)
    assert offsets[0] == 0 and offsets[-1] == len(hashes) and hashes.dtype == np.uint64
    return [hashes[a:b].tolist() for a, b in pairwise(offsets.tolist())]


@pytest.mark.parametrize("shingling", SHINGLINGS, ids=lambda s: s.name)
def test_hashes_of_real_texts_equal_the_definition(shingling, multilingual, library):
    texts = multilingual + library[:80]
    for text, found in zip(texts, hash_sets(texts, shingling), strict=True):
        assert found == hash_text(text, shingling).tolist(), text[:80]


@given(texts=st.lists(TEXTS, max_size=6), shingling=st.sampled_from(SHINGLINGS), size=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_hashes_of_any_text_equal_the_definition(texts, shingling, size):
    shingling = Shingling(shingling.normalization, shingling.unit, size)
    assert hash_sets(texts, shingling) == [hash_text(text, shingling).tolist() for text in texts]


@given(text=TEXTS, size=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_default_shingles_are_the_regex_words_of_the_lowered_text(oracle, text, size):
    assert joined_shingles(text, Shingling(size=size)) == oracle(text, size)


@pytest.mark.parametrize("shingling", SHINGLINGS, ids=lambda s: s.name)
def test_jaccard_of_hashes_is_jaccard_of_shingles(shingling, library):
    texts = [text for text in library if len(text) > 200][:40]
    texts += [text[: len(text) // 2] + text[len(text) // 3 :] for text in texts]
    sets, hashes = [set(shingle_list(text, shingling)) for text in texts], map(set, hash_sets(texts, shingling))
    hashes = list(hashes)
    for i, j in [(i, (7 * i + 40) % len(texts)) for i in range(len(texts))] + [(i, i + 40) for i in range(40)]:
        assert len(sets[i] & sets[j]) == len(hashes[i] & hashes[j])
        assert len(sets[i] | sets[j]) == len(hashes[i] | hashes[j])


def test_distinct_shingles_have_distinct_hashes(library):
    swapped = [
        "alpha beta",
        "beta alpha",
        "alpha alpha",
        "beta beta",
        "alphab eta",
        "alpha",
        "beta",
        "alpha beta alpha",
    ]
    for size in (1, 2, 5):
        shingling = Shingling(size=size)
        distinct = {shingle for text in library + swapped for shingle in shingle_list(text, shingling)}
        found = {value for hashes in hash_sets(library + swapped, shingling) for value in hashes}
        assert len(found) == len(distinct) > 3000


def test_every_bit_of_a_hash_depends_on_every_byte_of_a_shingle():
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (400, 29)).astype(np.uint8)
    letters[:, [5, 11, 28 - 6, 28 - 3]] = 32
    changed = letters.copy()
    for column in (0, 7, 14, 27, 28):
        changed[:, column] = np.where(letters[:, column] == 122, 97, letters[:, column] + 1)
        both = [bytes(row).decode() for row in np.concatenate([letters, changed])]
        values = np.array([hashes[0] for hashes in hash_sets(both)], np.uint64)
        bits = np.unpackbits((values[:400] ^ values[400:]).view(np.uint8)).reshape(400, 64)
        assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.13  # five standard deviations
        changed[:, column] = letters[:, column]


@given(data=st.binary(max_size=200), skip=st.integers(0, 9), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_kernel_hashes_equal_their_definitions(data, skip, seed):
    raw = np.frombuffer(data + bytes(range(255, 223, -1)), np.uint8)
    start, end = min(skip, len(data)), len(data)
    assert _hash_kernels.xxh32(raw, start, end) == xxhash.xxh32_intdigest(data[start:])
    assert _hash_kernels.xxh32_padded(raw, start, end) == xxhash.xxh32_intdigest(data[start:])
    assert _hash_kernels.xxh64(raw, start, end, np.uint64(seed)) == xxhash.xxh64_intdigest(data[start:], seed)
    if start < end:
        assert _shingle_kernels.unit_hash(raw, start, end) == unit_hash(data[start:])


@given(
    values=st.lists(st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1])), max_size=300),
    bits=st.integers(0, 63),
)
@settings(max_examples=150, deadline=None)
def test_sorting_drops_repeats_whatever_the_values(values, bits):
    array = np.array(values, np.uint64) >> np.uint64(bits)
    expected = np.unique(array)
    count = _shingle_kernels.sort_distinct(array, np.empty_like(array), np.empty(4 * len(array) + 8, np.int32))
    assert array[:count].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_chunks_slices_and_nulls_change_no_text(kind):
    texts = ["alpha beta gamma", None, "Σίσυφος delta", "", "epsilon zeta eta theta iota kappa"]
    whole = pa.array(texts, kind)
    chunked = pa.chunked_array([pa.array(["x", *texts[:2]], kind)[1:], pa.array([], kind), pa.array(texts[2:], kind)])
    plain = shingle_hashes(pa.array([text or "" for text in texts], kind))
    for form in (whole, chunked, pa.concat_arrays([pa.array(["before"], kind), whole])[1:]):
        for got, expected in zip(shingle_hashes(form), plain, strict=True):
            assert np.array_equal(got, expected)


def test_hashes_depend_neither_on_batches_nor_on_threads(library):
    texts = pa.array(library * 10, pa.large_string())
    offsets, hashes = shingle_hashes(texts, threads=1)
    assert texts.nbytes > 8 << 20  # several ranges
    for form, threads in ((texts, 3), (pa.chunked_array([texts[:11], texts[11:]]), 2)):
        got_offsets, got = shingle_hashes(form, threads=threads)
        assert np.array_equal(got_offsets, offsets) and np.array_equal(got, hashes)


def test_no_texts_give_no_hashes():
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.large_string())):
        offsets, hashes = shingle_hashes(empty)
        assert offsets.tolist() == [0] and hashes.dtype == np.uint64 and len(hashes) == 0


@pytest.mark.parametrize("normalization", ["datasketch-words", "rpv2"])
def test_truncated_character_at_the_end_of_the_buffer_is_ignored(normalization):
    data = np.frombuffer("naïve 中".encode()[:-1], np.uint8)
    scratch = _unit_kernels.make_scratch(np.array([0, len(data)]), 0, 1, 0)
    tables = rules(normalization, "words").compiled
    text, starts, words, gap = _unit_kernels.cut(data, 0, len(data), False, tables, scratch)
    expected = {"datasketch-words": "naïve", "rpv2": "nai\u0308ve"}[normalization]
    assert (words, text[: starts[1] - gap].tobytes().decode()) == (1, expected)


def test_words_and_texts_of_every_length_are_cut_right():
    texts = ["a" * length + " " + "B" * (97 - length) + end for length in range(98) for end in ("", " ", "é", " é x")]
    assert hash_sets(texts, Shingling(size=2)) == [hash_text(text, Shingling(size=2)).tolist() for text in texts]


def test_name_says_what_two_sets_must_share():
    names = {Shingling(*values).name for values in [(), ("rpv2",), ("rpv2", "tokens"), ("rpv2", "words", 13)]}
    assert Shingling().name == "datasketch-words/words5/1" and len(names) == 4


def test_wrong_types_names_and_sizes_are_refused():
    with pytest.raises(UserError, match="binary"):
        shingle_hashes(pa.array([b"x"]))
    for wrong, message in (
        ({"size": 0}, "at least 1 unit"),
        ({"normalization": "other"}, "datatrove"),
        ({"unit": "bytes"}, "characters"),
    ):
        with pytest.raises(UserError, match=message):
            Shingling(**wrong)


@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_cover_every_row_once_and_keep_the_order(threads):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[5], 5 + np.cumsum(rng.integers(0, 3 << 20, 40))])
    ranges = over_ranges(lambda first, last: (first, last), offsets, threads)
    assert ranges[0][0] == 0 and ranges[-1][1] == 40 and len(ranges) > 3
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
