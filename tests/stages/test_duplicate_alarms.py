"""Runaway removal is named with its source, its groups and the mend, and nothing is selected meanwhile."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from small_corpus import SmallCorpus

from winnow.config import Duplicates
from winnow.dedup.sketch import make_plan
from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages.duplicate_alarms import (
    SMALL_SOURCE,
    SourceLoss,
    find_alarms,
    removed_by_source,
    require_reason,
    stored_alarms,
    told,
)
from winnow.stages.duplicate_groups import grouping_key
from winnow.stages.pool import admissible, candidate_pool
from winnow.store.stage import Stage
from winnow.store.store import insert


def web(number: int) -> str:
    return f"the  form letter\nnumber {number}"


def group(corpus: SmallCorpus, keeper: str, texts: list[str]) -> None:
    """Write that these texts are near duplicates of the keeper, as grouping would."""
    members = [keeper, *texts]
    with corpus.store.write() as connection:
        insert(
            connection,
            "duplicates",
            pa.table(
                {
                    "doc_id": pa.array([doc_id(text) for text in members], pa.uuid()),
                    "kind": ["near"] * len(members),
                    "component": pa.array([doc_id(keeper)] * len(members), pa.uuid()),
                    "keeper_id": pa.array([doc_id(keeper)] * len(members), pa.uuid()),
                    "similarity": [1.0] + [0.9] * len(texts),
                    "group_size": [len(members)] * len(members),
                }
            ),
        )


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    """200 documents in ``web``, 20 in ``tiny``: 60 of the former and all of the latter are like number 0."""
    corpus = SmallCorpus(tmp_path / "home")
    corpus.write("web/a.jsonl", [{"text": web(number), "id": f"w{number}"} for number in range(200)])
    corpus.write("tiny/a.jsonl", [{"text": f"tiny {number}"} for number in range(20)])
    corpus.deliver()
    group(corpus, web(0), [*(web(number) for number in range(1, 61)), *(f"tiny {number}" for number in range(20))])
    return corpus


def test_the_loss_of_a_source_counts_its_distinct_documents_that_are_not_kept(corpus: SmallCorpus) -> None:
    with corpus.store.read() as connection:
        assert removed_by_source(connection) == [SourceLoss("tiny", 20, 20), SourceLoss("web", 200, 60)]
    assert SourceLoss("tiny", 20, 20).share == 1 and SourceLoss("none", 0, 0).share == 0


def test_reasonable_duplicates_raise_no_alarm(corpus: SmallCorpus) -> None:
    assert stored_alarms(corpus.store, Duplicates()) == []
    assert stored_alarms(corpus.store, Duplicates(alarm_group=81, max_removed_share=0.3)) == []  # the limits themselves
    require_reason(corpus.store, Duplicates())


def test_a_large_group_is_an_alarm_with_how_its_keeper_begins(corpus: SmallCorpus) -> None:
    (alarm,) = stored_alarms(corpus.store, Duplicates(alarm_group=80))
    assert (alarm.setting, alarm.place) == ("alarm_group", str(doc_id(web(0))))
    (found,) = alarm.groups
    assert (found.documents, found.source, found.original_id) == (81, "web", "w0")
    assert found.excerpt == "the form letter number 0"
    assert "81 documents" in alarm.text and "more than 80" in alarm.text


def test_a_source_that_loses_too_much_is_an_alarm_and_a_small_one_is_not(corpus: SmallCorpus) -> None:
    assert SMALL_SOURCE > 20
    (alarm,) = stored_alarms(corpus.store, Duplicates(max_removed_share=0.299))
    assert (alarm.setting, alarm.place) == ("max_removed_share", "web")
    assert "'web' loses 60 of its 200 documents (30.0%)" in alarm.text
    assert [(one.keeper_id, one.documents) for one in alarm.groups] == [(str(doc_id(web(0))), 60)]


def test_the_largest_groups_come_first_and_are_few(corpus: SmallCorpus) -> None:
    for first in range(100, 180, 10):
        group(corpus, web(first), [web(number) for number in range(first + 1, first + 3 + first % 100 // 10)])
    alarms = stored_alarms(corpus.store, Duplicates(alarm_group=1))
    sizes = [alarm.groups[0].documents for alarm in alarms]
    assert sizes == [81, 10, 9, 8, 7]
    (alarm,) = stored_alarms(corpus.store, Duplicates(max_removed_share=0.4))
    assert [one.documents for one in alarm.groups] == [60, 9, 8, 7, 6]


def test_what_is_told_names_numbers_groups_a_query_and_the_mend(corpus: SmallCorpus) -> None:
    alarms = stored_alarms(corpus.store, Duplicates(alarm_group=80, max_removed_share=0.2))
    text = told(alarms)
    for part in (
        "81 documents are near duplicates", "'web' loses 60 of its 200", "“the form letter number 0”",
        "raise duplicates.threshold", "raise duplicates.alarm_group and duplicates.max_removed_share",
    ):  # fmt: skip
        assert part in text
    query = text.partition('winnow sql "')[2].partition('"')[0]
    with corpus.store.read("texts") as connection:
        assert len(connection.execute(query).fetchall()) == 20


def _say_that_they_are_grouped(corpus: SmallCorpus) -> None:
    stage = Stage(
        corpus.store, "duplicates", "run", grouping_key(corpus.store, make_plan(corpus.config.duplicates), {})
    )
    with corpus.store.write() as connection:
        stage.finish(connection, 0)


def test_the_pool_is_not_built_while_an_alarm_stands(corpus: SmallCorpus) -> None:
    _say_that_they_are_grouped(corpus)
    alarming = corpus.config.model_copy(update={"duplicates": Duplicates(alarm_group=80)})
    for build in (
        lambda config: admissible(corpus.store, config),
        lambda config: candidate_pool(corpus.store, config, "clustering", "tokenizer"),
    ):
        with pytest.raises(UserError, match="near duplicates: 81 documents"):
            build(alarming)
    corpus.judge_signals()
    assert len(admissible(corpus.store, corpus.config)) <= 140  # the limit as it was: nothing stands in the way


def test_alarms_are_free_of_the_order_in_which_rows_were_written(corpus: SmallCorpus) -> None:
    settings = Duplicates(alarm_group=80, max_removed_share=0.2)
    before = stored_alarms(corpus.store, settings)
    with corpus.store.write() as connection:
        for table in ("duplicates", "documents"):
            connection.execute(f"CREATE TEMP TABLE held AS SELECT * FROM {table} ORDER BY hash(doc_id)")
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} SELECT * FROM held")
            connection.execute("DROP TABLE held")
    assert stored_alarms(corpus.store, settings) == before
    with corpus.store.read("texts") as connection:
        assert find_alarms(connection, settings) == before
