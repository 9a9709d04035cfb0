"""Texts are read part by part: every document once, in tables of bounded size, in the same order every time."""

from __future__ import annotations

import pyarrow as pa
import pytest

from winnow.identity import doc_ids
from winnow.store import judgements
from winnow.store.judgements import all_texts, pending, texts_of, unjudged
from winnow.store.store import add_parts, insert, insert_row

TEXTS = [f"text {number}" for number in range(23)]
pytestmark = pytest.mark.parametrize("backend", ["file"], indirect=True)


@pytest.fixture
def filled(store):
    """Three shards in parts of their own; each also holds a copy of the first shard's texts."""
    for number in range(3):
        own = TEXTS[number::3]
        texts = [*own, *TEXTS[::3]] if number else own
        rows = {
            "doc_id": doc_ids(texts),
            "shard": [f"s{number}"] * len(texts),
            "row": pa.array(range(len(texts)), pa.int64()),
        }
        parts = store.write_parts("texts", [pa.table({**rows, "text": texts})])
        with store.write() as connection:
            add_parts(connection, parts)
            insert_row(connection, "shards", shard=f"s{number}", parts=[part.digest for part in parts])
            insert(connection, "documents", pa.table(rows).slice(0, len(own)))
    return store


def documents(*texts: str) -> pa.Table:
    return pa.table({"doc_id": doc_ids(texts)})


def pairs(tables) -> list[tuple]:
    return [pair for table in tables for pair in zip(*table.to_pydict().values(), strict=True)]


@pytest.mark.parametrize("rows", [1, 4, 20_000])
def test_every_document_comes_once_with_its_text(filled, rows):
    tables = list(texts_of(filled, documents(*TEXTS), rows))
    assert all(0 < len(table) <= rows for table in tables)
    assert all(table.column_names == ["doc_id", "text"] and table["text"].type == pa.large_string() for table in tables)
    assert sorted(pairs(tables)) == sorted(zip(doc_ids(TEXTS).to_pylist(), TEXTS, strict=True))


def test_the_order_is_that_of_the_parts_whatever_was_asked_first(filled):
    assert pairs(texts_of(filled, documents(*TEXTS))) == pairs(texts_of(filled, documents(*reversed(TEXTS)), 3))


def test_only_the_parts_of_the_shards_that_are_asked_for_are_read(filled):
    for path in filled.home.parts.glob("texts/*.parquet"):
        if path.stem not in filled.query("SELECT parts FROM shards WHERE shard = 's1'")[0][0]:
            path.unlink()
    assert sorted(text for _, text in pairs(texts_of(filled, documents(TEXTS[1], TEXTS[4])))) == [TEXTS[1], TEXTS[4]]


def test_large_texts_make_smaller_tables(filled, monkeypatch):
    monkeypatch.setattr(judgements, "TABLE_BYTES", 1)
    monkeypatch.setattr(judgements, "BATCH_ROWS", 2)
    tables = list(texts_of(filled, documents(*TEXTS)))
    assert max(map(len, tables)) == 2 and sum(map(len, tables)) == len(TEXTS)


def test_a_missing_text_is_told_before_the_last_table(filled):
    with filled.write() as connection:
        insert(connection, "documents", pa.table({"doc_id": doc_ids(["gone"]), "shard": ["s0"], "row": [99]}))
    seen = []
    with pytest.raises(LookupError, match="1 of 24 documents have no text"):
        seen.extend(texts_of(filled, documents(*TEXTS, "gone"), 5))
    assert sum(map(len, seen)) < len(TEXTS)
    with pytest.raises(LookupError, match="1 of 1 documents have no text"):
        list(texts_of(filled, documents("never delivered")))
    assert list(texts_of(filled, documents())) == []


def test_all_texts_is_in_the_order_of_the_ids(filled):
    found = all_texts(filled, documents(*TEXTS))
    assert pairs([found]) == sorted(zip(doc_ids(TEXTS).to_pylist(), TEXTS, strict=True))
    assert len(all_texts(filled, documents())) == 0


def test_what_is_pending_is_asked_of_tables_and_of_parts(filled):
    half = doc_ids(TEXTS[:10])
    version = pa.array(["v"] * 10, pa.string())
    parts = filled.write_parts("embeddings", [pa.table({"doc_id": half, "model": version})])
    with filled.write() as connection:
        add_parts(connection, parts)
        insert(connection, "signals", pa.table({"doc_id": half, "version": version}))
        insert(connection, "judged", pa.table({"doc_id": half, "stage": version, "version": version}))
    expected = sorted(doc_ids(TEXTS[10:]).to_pylist())
    for found in (pending(filled, "signals", "version", "v"), pending(filled, "embeddings", "model", "v"),
                  unjudged(filled, "v", "v")):  # fmt: skip
        assert found["doc_id"].to_pylist() == expected
    assert len(pending(filled, "embeddings", "model", "another")) == len(TEXTS)
    assert pending(filled, "signals", "version", "v").column_names == ["doc_id", "source", "characters"]
