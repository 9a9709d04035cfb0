"""A user's query as a column of numbers: what it may give, and what it may not do."""

from pathlib import Path

import numpy as np
import pytest
from small_corpus import SmallCorpus

from winnow.errors import UserError
from winnow.identity import doc_id, doc_ids, ids_to_numpy
from winnow.stages.sql_columns import sql_column

TEXTS = ["first text", "a second, longer text", "third"]
IDS = ids_to_numpy(doc_ids([TEXTS[2], TEXTS[0], "nowhere", TEXTS[1]]))


@pytest.fixture
def published(tmp_path: Path) -> SmallCorpus:
    corpus = SmallCorpus(tmp_path / "home")
    corpus.write("web/a.jsonl", [{"text": text} for text in TEXTS])
    corpus.deliver()
    corpus.store.publish()
    return corpus


def test_numbers_come_in_the_order_asked_for_and_are_missing_where_there_is_none(published: SmallCorpus) -> None:
    found = sql_column(published.home, "SELECT doc_id, length(text) FROM texts ORDER BY random()", IDS)
    assert found[[0, 1, 3]].tolist() == [5, 10, 21] and np.isnan(found[2])
    decimal = sql_column(published.home, "FROM texts SELECT doc_id, (length(text) / 10)::DECIMAL(9, 2) AS tens", IDS)
    assert decimal[[0, 1, 3]].tolist() == [0.5, 1.0, 2.1]
    null = sql_column(published.home, "SELECT doc_id, nullif(length(text), 5) FROM texts", IDS)
    assert np.isnan(null[0]) and null[1] == 10


def test_a_query_that_is_no_such_column_is_refused(published: SmallCorpus) -> None:
    for sql, told in (
        ("SELECT doc_id FROM texts", "expected two columns"),
        ("SELECT length(text), doc_id FROM texts", "expected two columns"),
        ("SELECT doc_id::VARCHAR AS doc_id, 1 FROM texts", "expected two columns"),
        ("SELECT doc_id, text FROM texts", "expected a number"),
        ("SELECT doc_id, length(text) > 9 FROM texts", "expected a number"),
        ("SELECT doc_id, 1 FROM texts, range(2)", "more than once"),
        (f"SELECT doc_id, 1 FROM texts WHERE doc_id <> '{doc_id(TEXTS[0])}' AND length(text) > 99", "none of the 4"),
        ("DELETE FROM texts", "read-only"),
        ("SELECT doc_id, 1 FROM texts; SELECT 1", "one query"),
        ("SELECT doc_id, size FROM read_blob('/etc/passwd')", "failed"),
    ):
        with pytest.raises(UserError, match=told):
            sql_column(published.home, sql, IDS)
