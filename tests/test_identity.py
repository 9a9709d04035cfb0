"""Content is identity, and every seeded choice depends on content and seed alone."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from winnow.identity import (
    canonical_json,
    digest,
    digest_file,
    digest_ids,
    doc_id,
    doc_ids,
    ids_as_keys,
    ids_from_bytes,
    ids_from_numpy,
    ids_to_numpy,
    seeded_keys,
)

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=12)


def test_an_id_is_the_xxh3_128_of_the_utf8_text():
    assert doc_id("Grüße").bytes == xxhash.xxh3_128_digest("Grüße".encode())
    assert str(doc_id("")) == "99aa06d3-0147-98d8-6001-c324468d497f"  # pinned: ids live in stores and manifests
    assert doc_id("a") != doc_id("a ")


def test_a_lone_surrogate_has_no_id():
    with pytest.raises(UnicodeEncodeError):
        doc_id("\ud800")


@given(texts)
def test_many_ids_are_the_single_ones_and_survive_the_way_through_numpy(found):
    ids = doc_ids(found)
    assert ids.type == pa.uuid()
    assert ids.to_pylist() == [doc_id(text) for text in found]
    raw = ids_to_numpy(ids)
    assert (raw.dtype, raw.shape) == (np.uint8, (len(found), 16))
    assert ids_from_numpy(raw).to_pylist() == ids.to_pylist()


@given(texts, st.integers(0, 12), st.integers(0, 12))
def test_slices_and_chunks_give_the_ids_they_show(found, start, length):
    ids = doc_ids(found)
    piece = ids.slice(min(start, len(ids)), length)
    assert [uuid.UUID(bytes=row.tobytes()) for row in ids_to_numpy(piece)] == piece.to_pylist()
    chunked = pa.chunked_array([piece, ids, piece], pa.uuid())
    assert [uuid.UUID(bytes=row.tobytes()) for row in ids_to_numpy(chunked)] == chunked.to_pylist()
    assert ids_to_numpy(piece.storage).tolist() == ids_to_numpy(piece).tolist()


def test_no_chunks_give_no_ids():
    assert ids_to_numpy(pa.chunked_array([], pa.uuid())).shape == (0, 16)


def test_a_null_and_half_an_id_are_refused():
    with pytest.raises(ValueError, match="null"):
        ids_to_numpy(pa.array([None, uuid.uuid4().bytes], pa.uuid()))
    with pytest.raises(ValueError, match="16-byte"):
        ids_from_bytes(b"x" * 17)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_keys_sort_as_the_ids_do(raw):
    ids = np.frombuffer(b"".join(raw), np.uint8).reshape(-1, 16)
    keys = ids_as_keys(ids)
    order = np.argsort(keys, order=("high", "low"), kind="stable")
    assert [ids[index].tobytes() for index in order] == sorted(raw)
    strided = np.repeat(ids, 2, axis=0)[::2]
    assert ids_as_keys(strided).tolist() == keys.tolist()


@given(texts, st.integers(0, 3), st.sampled_from(["", "probes", "control"]), st.randoms())
def test_a_seeded_key_belongs_to_its_document_whatever_stands_beside_it(found, seed, salt, order):
    ids = ids_to_numpy(doc_ids(found))
    keys = seeded_keys(ids, seed, salt)
    assert (keys.dtype, keys.shape) == (np.uint64, (len(ids),))
    shuffled = list(range(len(ids)))
    order.shuffle(shuffled)
    assert seeded_keys(ids[shuffled], seed, salt).tolist() == keys[shuffled].tolist()
    for index in range(len(ids)):
        assert seeded_keys(ids[index : index + 1], seed, salt)[0] == keys[index]


def test_seed_and_salt_draw_anew_and_a_draw_is_fair():
    ids = ids_to_numpy(doc_ids(f"text {number}" for number in range(4000)))
    draws = [seeded_keys(ids, seed, salt) for seed, salt in ((0, ""), (1, ""), (0, "1"), (1, ":"), (11, ""), (1, "1:"))]
    for index, first in enumerate(draws):
        assert abs(np.mean(first < 2**63) - 0.5) < 0.03
        for second in draws[:index]:
            assert abs(np.corrcoef(first.astype(float), second.astype(float))[0, 1]) < 0.06
    assert int(seeded_keys(ids_to_numpy(doc_ids(["a"])), 0, "probes")[0]) == int(
        xxhash.xxh3_64_intdigest(b"0:probes:" + doc_id("a").bytes)
    )


def test_canonical_json_is_one_text_for_equal_values():
    assert canonical_json({"b": 1, "a": [1.5, "ü", None, True]}) == '{"a":[1.5,"ü",null,true],"b":1}'
    assert canonical_json({"a": (1, 2)}) == canonical_json({"a": [1, 2]})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json({"a": value})


def test_digests_tell_values_apart_and_nothing_else(tmp_path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert digest([1]) != digest(["1"])
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(texts, st.randoms())
def test_the_digest_of_a_set_of_ids_knows_no_order(found, order):
    ids = ids_to_numpy(doc_ids(found))
    shuffled = list(range(len(ids)))
    order.shuffle(shuffled)
    assert digest_ids(ids[shuffled]) == digest_ids(ids)
    if len(ids):
        assert digest_ids(ids[1:]) != digest_ids(ids)
