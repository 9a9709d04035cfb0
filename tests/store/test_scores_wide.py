"""``scores_wide``: a row a live document, a column a scorer, and which of a scorer's scores are current."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from winnow.identity import doc_ids
from winnow.store import Store, wide
from winnow.store.published import open_published
from winnow.store.store import add_parts, insert, insert_row, live_parts

TEXTS = [f"document {number}" for number in range(40)]
pytestmark = pytest.mark.parametrize("backend", ["file"], indirect=True)


@pytest.fixture
def documents(store: Store) -> pa.Array:
    """Twenty live documents, sorted; the other twenty texts are gone."""
    ids = doc_ids(TEXTS[:20])
    with store.write() as connection:
        insert(connection, "documents", pa.table({"doc_id": ids, "source": ["s"] * 20}))
    return ids


def score(store, scorer, scores, version="1", checkpoint=None, reference=None, day=1) -> None:
    """Add a part of scores by text."""
    columns = {"scorer": scorer, "version": version, "checkpoint": checkpoint, "reference": reference}
    rows = {name: pa.array([value] * len(scores), pa.string()) for name, value in columns.items()}
    values = pa.array(list(scores.values()), pa.float64())
    parts = store.write_parts("scores", [pa.table({"doc_id": doc_ids(list(scores)), "score": values, **rows})])
    with store.write() as connection:
        add_parts(connection, parts, added_at=datetime(2026, 1, day))


def columns_of(store) -> list[wide.Column]:
    with store.read() as connection:
        return wide.current_columns(connection, store.storage, live_parts(connection).get("scores", []))


def column(store, name: str) -> dict[str, float | None]:
    """Return a published column by text."""
    store.publish()
    by_id = dict(zip(doc_ids(TEXTS).to_pylist(), TEXTS, strict=True))
    with open_published(store.home) as connection:
        rows = connection.execute(f'SELECT doc_id, "{name}" FROM scores_wide').fetchall()
    assert len(rows) == 20
    return {by_id[doc]: score for doc, score in rows}


def test_every_scorer_has_a_column_with_a_comment_and_what_is_not_scored_is_null(store, documents):
    score(store, "edu", {text: float(index) for index, text in enumerate(TEXTS[:15])})
    score(store, "edu", {TEXTS[16]: 16.0, TEXTS[30]: 30.0})  # a later delivery, and a document that is gone
    score(store, "toxic_2", {TEXTS[3]: float("nan"), TEXTS[4]: None})
    expected = {text: float(index) if index < 15 or index == 16 else None for index, text in enumerate(TEXTS[:20])}
    assert column(store, "edu") == expected
    toxic = column(store, "toxic_2")
    assert np.isnan(toxic.pop(TEXTS[3])) and set(toxic.values()) == {None}
    with open_published(store.home) as connection:
        comments = dict(
            connection.execute(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'scores_wide'"
            ).fetchall()
        )
    assert list(comments)[-2:] == ["edu", "toxic_2"] and "score by edu, version 1" in comments["edu"]


def test_the_version_whose_part_was_added_last_is_current_and_names_break_ties(store, documents):
    for version, day in (("a", 2), ("b", 3), ("c", 1)):
        score(store, "edu", {TEXTS[0]: float(day)}, version, day=day)
    assert column(store, "edu")[TEXTS[0]] == 3.0
    score(store, "edu", {TEXTS[1]: 5.0}, "z", day=3)
    assert column(store, "edu")[TEXTS[:2][1]] == 5.0 and column(store, "edu")[TEXTS[0]] is None
    score(
        store, "edu", {TEXTS[2]: 7.0}, "b", day=4
    )  # new documents under an older version: it is the current one again
    assert (column(store, "edu")[TEXTS[0]], column(store, "edu")[TEXTS[2]]) == (3.0, 7.0)


def test_scores_at_the_newest_manifests_checkpoint_come_before_later_ones_elsewhere(store, documents):
    score(store, "edu", {TEXTS[0]: 1.0}, checkpoint="new", reference="r", day=1)
    score(store, "edu", {TEXTS[0]: 2.0}, checkpoint="old", reference="r", day=2)
    assert column(store, "edu")[TEXTS[0]] == 2.0
    with store.write() as connection:
        insert_row(connection, "manifests", version="v0009", checkpoint="old")
        insert_row(connection, "manifests", version="v0010", checkpoint="new")
    assert column(store, "edu")[TEXTS[0]] == 1.0


def test_influence_is_the_newest_manifests_and_null_before_there_is_one(store, documents):
    score(store, "influence", {TEXTS[0]: 1.0}, "m1", "first")
    score(store, "influence", {TEXTS[0]: 2.0}, "m2", "second", day=2)
    assert column(store, "influence")[TEXTS[0]] is None
    with store.write() as connection:
        insert_row(connection, "manifests", version="v0001", checkpoint="first", influence_model="m1")
    assert column(store, "influence")[TEXTS[0]] == 1.0
    where = column(store, "influence_checkpoint")
    assert (where.pop(TEXTS[0]), set(where.values())) == ("first", {None})


def test_a_scorer_that_is_no_plain_word_or_takes_another_columns_name_has_no_column(store, documents, caplog):
    for name in ("cluster", "doc_id", 'a"; DROP TABLE documents; --', "Edu", "1st"):
        score(store, name, {TEXTS[0]: 1.0})
    score(store, "select", {TEXTS[0]: 1.0})  # a word of SQL is a plain one
    assert [one.scorer for one in columns_of(store)] == ["select"]
    assert column(store, "select")[TEXTS[0]] == 1.0
    assert len(caplog.records) >= 5


def test_a_part_of_several_scorers_and_a_document_scored_twice_are_taken_apart(store, documents):
    ids = doc_ids([TEXTS[0], TEXTS[1], TEXTS[1], TEXTS[2]])
    rows = {"scorer": ["one", "one", "one", "two"], "version": ["1", None, None, "1"], "score": [1.0, 2.0, -3.0, 4.0]}
    parts = store.write_parts("scores", [pa.table({"doc_id": ids, **rows})])
    with store.write() as connection:
        add_parts(connection, parts)
    assert [(one.scorer, one.version) for one in columns_of(store)] == [("one", "1"), ("two", "1")]
    score(store, "one", {TEXTS[0]: 9.0, TEXTS[5]: 5.0})
    found = column(store, "one")
    assert {text: value for text, value in found.items() if value is not None} == {TEXTS[0]: 9.0, TEXTS[5]: 5.0}
    assert column(store, "two")[TEXTS[2]] == 4.0


def test_searching_and_grouping_give_the_same_table(store, documents, monkeypatch):
    draw = np.random.default_rng(5)
    for number in range(5):
        for day in (1, 2):
            chosen = [TEXTS[at] for at in draw.permutation(40)[: draw.integers(1, 40)]]
            score(
                store,
                f"s{number}",
                dict(zip(chosen, draw.normal(size=40).tolist(), strict=False)),
                str(day % 2),
                day=day,
            )
    tables = []
    for fits in (True, False):
        monkeypatch.setattr(wide, "_fits", lambda connection, columns, fits=fits: fits)
        with store.write() as connection:
            insert_row(connection, "costs", stage=str(fits))
        store.publish()
        with open_published(store.home) as connection:
            tables.append(connection.execute("SELECT * FROM scores_wide ORDER BY doc_id").fetchall())
    assert tables[0] == tables[1] and len(tables[0]) == 20


def test_ids_that_begin_alike_are_told_apart(backend):
    ids = np.zeros((5, 16), np.uint8)
    ids[:, 15] = [1, 2, 3, 4, 5]
    ids[4, 0] = 1
    places = wide._Places(ids)
    assert places.of(ids[[3, 0, 4, 2]]).tolist() == [3, 0, 4, 2]
    absent = ids.copy()
    absent[:, 14] = 1
    assert places.of(absent).tolist() == [-1] * 5
    assert places.of(ids[:0]).tolist() == [] and wide._Places(ids[:0]).of(ids).tolist() == [-1] * 5
