"""Jaccard similarities against Python sets, whatever the memory and the order of reading."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import pack, unpack
from winnow.dedup.shingles import Shingling, shingle_hashes
from winnow.dedup.verify import jaccard, verify_pairs


@given(sets=st.lists(st.sets(st.integers(0, 40), max_size=30), min_size=1, max_size=8), data=st.data())
@settings(max_examples=150, deadline=None)
def test_jaccard_equals_python_sets(sets, data):
    place = st.integers(0, len(sets) - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(place, place), max_size=20)), np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])])
    hashes = np.array([value for one in sets for value in sorted(one)], np.uint64)
    expected = [len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b])) for a, b in pairs]
    assert jaccard(pairs[:, 0], pairs[:, 1], offsets, hashes).tolist() == expected


def test_jaccard_of_texts_equals_the_sets_of_their_shingles(oracle, library):
    texts = library[:60]
    sets = [set(oracle(text)) for text in texts]
    left, right = np.triu_indices(60)
    offsets, hashes = shingle_hashes(pa.array(texts))
    got = jaccard(left, right, offsets, hashes)
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(left, right, strict=True)]
    assert got.tolist() == expected and max(expected) == 1.0 and min(expected) == 0.0


def spool_of(pairs) -> PairSpool:
    spool = PairSpool(held=8)
    left, right = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    spool.add(pack(left, right))
    return spool


@given(
    sets=st.lists(st.lists(st.integers(0, 60), max_size=40), min_size=2, max_size=9),
    threshold=st.sampled_from([0.1, 1 / 3, 0.5, 0.75, 0.8, 1.0]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_verified_are_exactly_the_pairs_that_reach_the_threshold(sets, threshold, data):
    """A text of one-letter words has as many shingles of one word as letters: any two sets can be had."""
    texts = [" ".join(f"w{letter}" for letter in letters) for letters in sets]
    place = st.integers(0, len(sets) - 1)
    pairs = data.draw(st.sets(st.tuples(place, place).filter(lambda pair: pair[0] < pair[1]), max_size=20))
    shingling = Shingling(size=1)
    with spool_of(pairs) as spool:
        got = verify_pairs(spool, len(sets), in_memory(texts), threshold, shingling, threads=1)
    expected = {}
    for a, b in sorted(pairs):
        one, other = set(sets[a]), set(sets[b])
        similarity = len(one & other) / len(one | other) if one | other else 0.0
        if similarity >= threshold:
            expected[a, b] = similarity
    assert list(zip(*(side.tolist() for side in unpack(got.codes)), strict=True)) == list(expected)
    assert got.similarity.tolist() == list(expected.values())
    assert got.candidates == len(pairs)


def in_memory(texts, rows=None, reads=None):
    def read(places):
        assert (np.diff(places) > 0).all()
        if reads is not None:
            reads.extend(places.tolist())
        order = np.random.default_rng(2).permutation(len(places)) if rows else np.arange(len(places))
        for start in range(0, len(places), rows or max(1, len(places))):
            some = places[order[start : start + (rows or len(places))]]
            yield some, pa.array([texts[place] for place in some], pa.large_string())

    return read


@pytest.mark.parametrize(("held_bytes", "rows"), [(1, 20), (2000, 1), (20_000, 7), (1 << 30, 7), (1 << 30, None)])
def test_memory_and_order_of_reading_change_no_similarity_and_every_text_is_read_once(
    library, tmp_path, held_bytes, rows
):
    texts = library[:40]
    left, right = np.triu_indices(40, 1)
    exact = jaccard(left, right, *shingle_hashes(pa.array(texts, pa.large_string())))
    reads: list[int] = []
    with spool_of(zip(left.tolist(), right.tolist(), strict=True)) as spool:
        got = verify_pairs(spool, 40, in_memory(texts, rows, reads), 0.02, scratch=tmp_path, held_bytes=held_bytes)
    found = exact >= 0.02
    assert 0 < found.sum() < len(found)
    assert np.array_equal(got.codes, pack(left[found], right[found]))
    assert np.array_equal(got.similarity, exact[found])
    assert reads == list(range(40))
    assert not list(tmp_path.iterdir())


def test_no_pairs_read_no_texts():
    def read(_rows: np.ndarray):
        raise AssertionError("no text is needed")

    with PairSpool() as spool:
        assert len(verify_pairs(spool, 2, read, 0.8).codes) == 0
