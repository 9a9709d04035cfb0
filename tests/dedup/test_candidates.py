"""Candidate pairs against their definition, whatever was delivered and withdrawn before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.candidates import CandidateReport, find_candidates, valid_pairs
from winnow.errors import UserError
from winnow.identity import doc_ids, ids_to_numpy

BANDS = 3
IDS = sorted(row.tobytes() for row in ids_to_numpy(doc_ids(str(i) for i in range(24))))
# Few keys for 24 documents, so that buckets pass the limit of 4 and shrink below it again.
KEYS = np.random.default_rng(5).integers(0, 4, (24, BANDS)).astype(np.uint64)
KEYS[:, 0] = np.arange(24) // 12


def defined_pairs(live: set[int], max_bucket: int, centers: int) -> set[tuple[bytes, bytes]]:
    """The definition: pairs in a small bucket, or in a large one with one of its smallest ids."""
    pairs = set()
    for band in range(BANDS):
        for key in set(KEYS[:, band].tolist()):
            bucket = [i for i in sorted(live) if KEYS[i, band] == key]
            for a, b in itertools.combinations(bucket, 2):
                if len(bucket) <= max_bucket or a in bucket[:centers]:
                    pairs.add((IDS[a], IDS[b]))
    return pairs


def insert(store, places) -> None:
    places = sorted(places)
    raw = np.frombuffer(b"".join(IDS[i] for i in places), np.uint8).reshape(-1, 16)
    store.insert_bands(raw, KEYS[places])


SUBSETS = st.sets(st.integers(0, 23), min_size=1, max_size=16)


@given(steps=st.lists(st.tuples(st.booleans(), SUBSETS), min_size=1, max_size=6), final=SUBSETS)
@settings(max_examples=25, deadline=None)
def test_any_history_of_deliveries_and_withdrawals_ends_in_the_pairs_of_the_final_state(new_store, steps, final):
    store = new_store(max_bucket=4, centers=2)
    live: set[int] = set()
    stored: set[tuple[bytes, bytes]] = set()
    for delivers, places in [*steps, (True, final)]:
        if delivers:
            insert(store, places - live)
            live |= places
        else:
            store.withdraw([IDS[i] for i in sorted(places & live)] or [bytes(16)])
            live -= places
        found = store.find()
        assert len(found) == len(set(found)) and all(a < b for a, b in found)
        current = defined_pairs(live, 4, 2)
        assert set(found) <= current
        store.keep_pairs(sorted(set(found) - stored))
        stored |= set(found)
        valid_pairs(store.connection)
        assert set(store.read_pairs("valid_pairs")) == current


@given(order=st.permutations(range(24)), cuts=st.sets(st.integers(1, 23), max_size=4))
@settings(max_examples=25, deadline=None)
def test_growth_never_compares_a_pair_twice(new_store, order, cuts):
    store, compared = new_store(max_bucket=4, centers=2), []
    for first, last in itertools.pairwise([0, *sorted(cuts), 24]):
        insert(store, order[first:last])
        compared += store.find()
    assert len(compared) == len(set(compared))


def test_nothing_new_means_nothing_to_compare(new_store):
    store = new_store(max_bucket=4, centers=2)
    insert(store, range(24))
    assert store.find()
    assert store.find() == []


def test_withdrawn_center_is_replaced_and_compared_with_all_members(new_store):
    store = new_store(max_bucket=4, centers=2)
    members = np.frombuffer(b"".join(IDS[:12]), np.uint8).reshape(-1, 16)
    store.insert_bands(members, np.zeros((12, 1), np.uint64))
    assert len(store.find()) == 11 + 10
    store.withdraw([IDS[0]])
    assert store.find() == [(IDS[2], IDS[i]) for i in range(3, 12)]


def test_oversize_buckets_are_reported(new_store, caplog):
    store = new_store()
    raw = ids_to_numpy(doc_ids(str(i) for i in range(300)))
    store.insert_bands(raw, np.zeros((300, 1), np.uint64))
    report = find_candidates(store.connection, max_bucket=256, centers=8)
    assert report == CandidateReport(8 * 292 + 28, 1, 300, 300)
    assert "1 buckets have more than 256 members (largest 300)" in caplog.text


def test_bucket_at_the_limit_is_compared_in_full(new_store):
    store = new_store()
    store.insert_bands(ids_to_numpy(doc_ids(str(i) for i in range(256))), np.zeros((256, 1), np.uint64))
    assert find_candidates(store.connection) == CandidateReport(256 * 255 // 2, 0, 0, 0)


def test_empty_store_has_no_candidates(new_store):
    store = new_store()
    assert find_candidates(store.connection) == CandidateReport(0, 0, 0, 0)
    assert valid_pairs(store.connection) == 0


def test_database_orders_ids_as_their_bytes(new_store):
    store = new_store()
    raw = np.array([[0x7F] + [0] * 15, [0x80] + [0] * 15], np.uint8)
    store.insert_bands(raw[::-1], np.zeros((2, 1), np.uint64))
    assert store.find() == [(raw[0].tobytes(), raw[1].tobytes())]


def test_limits_that_make_no_sense_are_refused(new_store):
    for limits in ({"max_bucket": 1}, {"centers": 0}):
        with pytest.raises(UserError, match="max_bucket"):
            find_candidates(new_store().connection, **limits)
