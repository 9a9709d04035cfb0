"""Candidate pairs against their definition, whatever was delivered and withdrawn before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup import positions
from winnow.dedup.buckets import BandColumns, KeyFilter
from winnow.dedup.candidates import CENTERS, MAX_BUCKET, CandidateReport, Centers, find_candidates, still_candidates
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import IdTable, Positions, pack
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


@pytest.mark.parametrize("touched", [False, True])
@given(steps=st.lists(st.tuples(st.booleans(), SUBSETS), min_size=1, max_size=6), final=SUBSETS)
@settings(max_examples=40, deadline=None)
def test_any_history_of_deliveries_and_withdrawals_ends_in_the_pairs_of_the_final_state(
    new_store, touched, steps, final
):
    store = new_store(max_bucket=4, centers=2, touched=touched)
    live: set[int] = set()
    for delivers, places in [*steps, (True, final)]:
        if delivers:
            insert(store, places - live)
            live |= places
        else:
            store.withdraw([IDS[i] for i in sorted(places & live)])
            live -= places
        found = store.find()
        assert found == sorted(set(found)) and all(a < b for a, b in found)
        current = defined_pairs(live, 4, 2)
        assert set(found) <= current
        assert set(store.pairs) == current


@given(order=st.permutations(range(24)), cuts=st.sets(st.integers(1, 23), max_size=4))
@settings(max_examples=25, deadline=None)
def test_growth_never_compares_a_pair_twice(new_store, order, cuts):
    store, compared = new_store(max_bucket=4, centers=2, touched=True), []
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
    store.insert_bands(ids_to_numpy(doc_ids(str(i) for i in range(300))), np.zeros((300, 1), np.uint64))
    assert len(store.find()) == CENTERS * (300 - CENTERS) + CENTERS * (CENTERS - 1) // 2
    assert store.report == CandidateReport(1, 300, 300)
    assert f"1 buckets have more than {MAX_BUCKET} members (largest 300)" in caplog.text


def test_bucket_at_the_limit_is_compared_in_full(new_store):
    store = new_store()
    ids = ids_to_numpy(doc_ids(str(i) for i in range(MAX_BUCKET)))
    store.insert_bands(ids, np.zeros((MAX_BUCKET, 1), np.uint64))
    assert len(store.find()) == MAX_BUCKET * (MAX_BUCKET - 1) // 2
    assert store.report == CandidateReport(0, 0, 0)


def test_a_boilerplate_bucket_of_a_hundred_thousand_costs_a_few_pairs_a_member():
    count, bands = 100_000, 6
    rng = np.random.default_rng(0)
    keys = rng.integers(1, 2**64, (count, bands), dtype=np.uint64)
    keys[:, :3] = [1, 2, 3]  # three bands are the boilerplate's
    with BandColumns.of(keys, np.arange(count)) as columns, PairSpool() as pairs:
        found = find_candidates(columns, np.ones(count, np.bool_), Centers.none(), pairs)
        compared = sum(map(len, pairs.chunks()))
    assert found.report == CandidateReport(3, count, 3 * count) and found.crowded.all()
    assert compared == CENTERS * (count - CENTERS) + CENTERS * (CENTERS - 1) // 2
    assert len(found.centers.key) == 3 * CENTERS


def test_no_documents_have_no_candidates(new_store):
    store = new_store()
    assert store.find() == [] and store.pairs == {}


def test_positions_are_those_of_the_bytes(new_store):
    store = new_store()
    raw = np.array([[0x7F] + [0] * 15, [0x80] + [0] * 15], np.uint8)
    store.insert_bands(raw[::-1], np.zeros((2, 1), np.uint64))
    assert store.find() == [(raw[0].tobytes(), raw[1].tobytes())]


@given(numbers=st.lists(st.integers(0, 2**128 - 1) | st.integers(2**64 - 3, 2**64 + 3), unique=True, max_size=30))
@settings(max_examples=100, deadline=None)
def test_positions_follow_the_order_of_ids_however_they_are_spread(numbers):
    ids = np.array([list(number.to_bytes(16, "big")) for number in numbers], np.uint8).reshape(-1, 16)
    half = len(ids) // 2
    positions = Positions(ids[:half])
    ranks = {number: rank for rank, number in enumerate(sorted(numbers[:half]))}
    assert positions.of(ids).tolist() == [ranks.get(number, -1) for number in numbers]
    assert np.array_equal(positions.ids, ids[:half][positions.order])
    table = IdTable(ids[:half])
    assert table.among(ids).tolist() == [number in ranks for number in numbers]
    marks = table.marks()
    table.mark(marks, ids[half // 2 :])
    assert np.array_equal(table.rest(marks), Positions(ids[: half // 2]).ids)
    assert [int.from_bytes(row.tobytes(), "big") for row in positions.ids] == sorted(numbers[:half])


@given(
    batches=st.lists(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 50), max_size=40), max_size=8),
    held=st.integers(2, 64),
)
@settings(max_examples=60, deadline=None)
def test_a_spool_gives_back_the_distinct_pairs_in_order_whatever_it_holds(batches, held, tmp_path_factory):
    with PairSpool(tmp_path_factory.getbasetemp(), held) as spool:
        for batch in batches:
            spool.add(np.array(batch, np.uint64))
        expected = sorted({code for batch in batches for code in batch})
        for _ in range(2):
            assert [int(code) for chunk in spool.chunks() for code in chunk] == expected


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
def test_columns_are_the_same_in_memory_and_in_a_file(tmp_path, held_bytes):
    keys = np.random.default_rng(1).integers(0, 2**64, (50, 3), dtype=np.uint64)
    with BandColumns(3, 60, tmp_path, held_bytes) as columns:
        for start in range(0, 50, 20):
            columns.add(keys[start : start + 20], np.arange(start, min(start + 20, 50)))
        assert all(np.array_equal(columns.column(band), keys[:, band]) for band in range(3))
        assert columns.places.tolist() == list(range(50))
    assert not list(tmp_path.iterdir())


@given(keys=st.lists(st.integers(0, 30) | st.integers(0, 2**64 - 1), max_size=40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_filter_of_keys_is_exact(keys, data):
    asked = data.draw(st.lists(st.tuples(*[st.integers(0, 30) | st.integers(0, 2**64 - 1)] * 2), max_size=20))
    found = KeyFilter(np.array(keys, np.uint64)).hits(np.array(asked, np.uint64).reshape(-1, 2))
    assert found.tolist() == [bool(set(row) & set(keys)) for row in asked]


def test_a_center_that_is_gone_is_no_other_documents_center():
    keys = np.repeat(np.array([[5]], np.uint64), 10, axis=0)
    gone = Centers.of(np.zeros(2, np.int32), np.array([5, 7], np.uint64), np.array([-1, -1], np.int32))
    with BandColumns.of(keys, np.arange(10)) as columns:
        pair = pack(np.array([3]), np.array([9]))
        assert still_candidates(columns, gone, pair, 10).tolist() == [False]
        led = Centers.of(np.zeros(2, np.int32), np.array([5, 5], np.uint64), np.array([-1, 3], np.int32))
        assert still_candidates(columns, led, pair, 10).tolist() == [True]


def test_more_documents_than_positions_are_refused(monkeypatch):
    monkeypatch.setattr(positions, "MAX_DOCUMENTS", 2)
    ids = ids_to_numpy(doc_ids(["a", "b", "c"]))
    for make in (Positions, IdTable):
        assert len(make(ids[:2])) == 2
        with pytest.raises(UserError, match="3 documents"):
            make(ids)


def test_limits_that_make_no_sense_are_refused(new_store):
    for limits in ({"max_bucket": 1}, {"centers": 0}):
        with pytest.raises(UserError, match="max_bucket"):
            new_store(**limits).find()
