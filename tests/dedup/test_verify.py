"""Jaccard similarities against Python sets, and batches within their memory limit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.shingles import shingle_hashes
from winnow.dedup.verify import jaccard, pair_batches, verify_pairs


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


@given(
    sizes=st.lists(st.integers(0, 50), min_size=2, max_size=12),
    limit=st.integers(1, 120),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_batches_cover_the_pairs_in_order_and_keep_the_limit(sizes, limit, data):
    place = st.integers(0, len(sizes) - 1)
    pair = st.tuples(place, place).filter(lambda p: p[0] != p[1])
    pairs = np.array(data.draw(st.lists(pair, max_size=25)), np.int64).reshape(-1, 2)
    batches = list(pair_batches(pairs[:, 0], pairs[:, 1], np.array(sizes), limit))
    assert [i for batch in batches for i in range(batch.start, batch.stop)] == list(range(len(pairs)))
    for batch in batches:
        load = sum(sizes[i] for i in set(pairs[batch].ravel().tolist()))
        assert load <= limit or batch.stop - batch.start == 1


@pytest.mark.parametrize("batch_bytes", [1, 2000, 1 << 30])
def test_batch_size_changes_no_similarity(library, batch_bytes):
    texts = pa.array(library[:40], pa.large_string())
    sizes = np.array([len(text.encode()) for text in library[:40]])
    left, right = np.triu_indices(40, 1)
    reads = []

    def read(rows: np.ndarray) -> pa.Array:
        assert (np.diff(rows) > 0).all()
        reads.append(len(rows))
        return texts.take(pa.array(rows))

    whole = jaccard(left, right, *shingle_hashes(texts))
    assert np.array_equal(verify_pairs(left, right, sizes, read, batch_bytes=batch_bytes), whole)
    assert max(reads) == (2 if batch_bytes == 1 else max(reads))
    assert len(reads) == {1: len(left), 1 << 30: 1}.get(batch_bytes, len(reads))


def test_no_pairs_read_no_texts():
    def read(_rows: np.ndarray) -> pa.Array:
        raise AssertionError("no text is needed")

    none = np.zeros(0, np.int64)
    assert len(verify_pairs(none, none, np.array([3, 4]), read)) == 0
