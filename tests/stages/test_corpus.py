"""Deliveries into the store: what each file's rows become, and what a replacement leaves alone."""

from __future__ import annotations

import os
import random
import uuid

import pyarrow.parquet as pq
import pytest
from small_corpus import SmallCorpus

from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages import corpus as corpus_stage
from winnow.stages.corpus import corpus_digest
from winnow.stages.corpus_digest import recomputed_corpus_digest
from winnow.text.deliveries import Delivery, scan

BROKEN = [b"{broken"] * 11


@pytest.fixture
def corpus(tmp_path) -> SmallCorpus:
    return SmallCorpus(tmp_path)


def parts_of(corpus: SmallCorpus) -> dict[str, list[str]]:
    return dict(corpus.store.query("SELECT shard, parts FROM shards"))


def live_text_rows(corpus: SmallCorpus) -> list[tuple[str, int, str]]:
    """Return (shard, row, text) of all live text parts, hidden copies included."""
    digests = [digest for (digest,) in corpus.store.query("SELECT part FROM parts WHERE kind = 'texts'")]
    tables = [pq.read_table(corpus.store.storage.path("texts", digest)).to_pylist() for digest in digests]
    return sorted((row["shard"], row["row"], row["text"]) for rows in tables for row in rows)


def test_records_are_occurrences_and_quarantined_in_every_shard(tmp_path, backend):
    corpus = SmallCorpus(tmp_path, backend)
    corpus.write("web/a.jsonl", [{"text": "one"}, b"{broken", {"text": "two"}, {"text": ""}, {"text": "one"}])
    corpus.write("web/b.jsonl", [{"text": "good"}, *BROKEN])
    corpus.write("books/c.jsonl", [])
    report = corpus.deliver()
    assert corpus.store.query("SELECT shard, records, occurrences, quarantined, failed FROM shards ORDER BY shard") == [
        ("books/c.jsonl", 0, 0, 0, False),
        ("web/a.jsonl", 5, 3, 2, False),
        ("web/b.jsonl", 12, 0, 12, True),
    ]
    for table, counted, column in (
        ("occurrences", "count(*)", "occurrences"),
        ("quarantine", "sum(records)", "quarantined"),
    ):
        found = dict(corpus.store.query(f"SELECT shard, {counted}::BIGINT FROM {table} GROUP BY shard"))
        assert found == dict(corpus.store.query(f"SELECT shard, {column} FROM shards WHERE {column} > 0"))
    assert (report.records, report.occurrences, report.quarantined) == (17, 3, 14)
    assert report.reasons == {"invalid_json": 12, "empty_text": 1, "file_failed": 1}
    assert report.documents_added == 2


def test_a_failed_file_admits_nothing_keeps_its_quarantine_and_the_others_go_on(corpus):
    corpus.write("web/a.jsonl", [{"text": "good"}, *BROKEN])
    corpus.write("web/b.jsonl", [{"text": "fine"}])
    report = corpus.deliver()
    assert report.failed == ["web/a.jsonl"]
    assert corpus.store.query("SELECT DISTINCT shard FROM occurrences") == [("web/b.jsonl",)]
    assert corpus.store.query("SELECT reason, sum(records)::BIGINT FROM quarantine GROUP BY ALL ORDER BY ALL") == [
        ("file_failed", 1),
        ("invalid_json", 11),
    ]
    assert [text for _, _, text in live_text_rows(corpus)] == ["fine"]
    assert parts_of(corpus)["web/a.jsonl"] == []


def test_a_failed_replacement_takes_the_old_documents_away(corpus):
    corpus.write("web/a.jsonl", [{"text": "good"}])
    corpus.deliver()
    corpus.write("web/a.jsonl", [{"text": "good"}, *BROKEN])
    report = corpus.deliver()
    assert (report.documents_removed, corpus.rows("documents"), live_text_rows(corpus)) == (1, [], [])


def test_a_file_that_is_gone_when_it_is_read_is_left_out_alone(corpus):
    path = corpus.write("web/a.jsonl", [{"text": "gone"}])
    corpus.write("web/b.jsonl", [{"text": "fine"}])
    delivery = corpus.waiting()
    path.unlink()
    report = corpus.deliver(delivery)
    assert report.failed == [] and len(report.refused) == 1 and "a.jsonl" in report.refused[0]
    assert corpus.store.query("SELECT shard FROM shards") == [("web/b.jsonl",)]


def test_an_unchanged_file_does_nothing(corpus):
    corpus.write("web/a.jsonl", [{"text": "one"}])
    first = corpus.waiting()
    corpus.deliver()
    before = corpus.rows("meta")
    assert not corpus.waiting()
    report = corpus.deliver(Delivery(first.files))
    assert (report.unchanged, report.changed) == (1, False)
    assert corpus.rows("meta") == before  # not even a transaction


def test_touching_a_file_updates_its_fingerprint_alone(corpus):
    corpus.write("web/a.jsonl", [{"text": "one"}])
    corpus.deliver()
    before, parts, runs = corpus.tables(), parts_of(corpus), corpus.store.query("SELECT delivered_at FROM shards")
    corpus.touch("web/a.jsonl")
    assert corpus.waiting()
    report = corpus.deliver()
    assert (report.unchanged, report.shards, report.changed) == (1, 0, False)
    assert not corpus.waiting()
    assert (corpus.tables(), parts_of(corpus)) == (before, parts)
    assert corpus.store.query("SELECT delivered_at FROM shards") == runs


def test_a_replaced_file_replaces_only_its_rows_and_its_old_text_part_is_rewritten(tmp_path, backend):
    corpus = SmallCorpus(tmp_path, backend)
    corpus.write("web/a.jsonl", [{"text": "one"}, {"text": "shared"}])
    corpus.write("web/b.jsonl", [{"text": "two"}, {"text": "shared"}])
    corpus.deliver()
    (old,) = {part for parts in parts_of(corpus).values() for part in parts}
    delivered = dict(corpus.store.query("SELECT shard, delivered_at FROM shards"))
    corpus.write("web/a.jsonl", [{"text": "three"}])
    report = corpus.deliver()
    assert (report.documents_added, report.documents_removed) == (1, 1)
    found = corpus.store.query("SELECT shard, row, doc_id FROM occurrences ORDER BY ALL")
    assert found == [
        ("web/a.jsonl", 0, doc_id("three")),
        ("web/b.jsonl", 0, doc_id("two")),
        ("web/b.jsonl", 1, doc_id("shared")),
    ]
    now_delivered = dict(corpus.store.query("SELECT shard, delivered_at FROM shards"))
    assert now_delivered["web/b.jsonl"] == delivered["web/b.jsonl"]
    assert now_delivered["web/a.jsonl"] > delivered["web/a.jsonl"]
    assert live_text_rows(corpus) == [
        ("web/a.jsonl", 0, "three"),
        ("web/b.jsonl", 0, "two"),
        ("web/b.jsonl", 1, "shared"),
    ]
    listed = {part for parts in parts_of(corpus).values() for part in parts}
    assert listed == {part for (part,) in corpus.store.query("SELECT part FROM parts")}
    assert old not in listed
    assert corpus.store.storage.path("texts", old).exists()  # an open reader may still need it


def test_a_part_that_comes_out_as_it_was_stays_with_its_shard(corpus):
    """Reading the same text rows anew gives a part of the same digest, which is old and new at once."""
    corpus.write("web/a.jsonl", [{"text": "one"}])
    corpus.deliver()
    (part,) = parts_of(corpus)["web/a.jsonl"]
    corpus.write("web/a.jsonl", [{"text": "one"}, b"{broken"])
    corpus.deliver()
    assert parts_of(corpus) == {"web/a.jsonl": [part]}
    assert corpus.store.query("SELECT part FROM parts") == [(part,)]
    corpus.write("web/a.jsonl", [{"text": "two"}])
    corpus.deliver()
    assert [text for _, _, text in live_text_rows(corpus)] == ["two"]


def test_withdrawing_everything_leaves_empty_tables(corpus):
    corpus.write("web/a.jsonl", [{"text": "one"}, b"{broken"])
    corpus.deliver()
    corpus.judge()
    corpus.remove("web/a.jsonl")
    report = corpus.deliver()
    assert (report.withdrawn, report.documents_removed) == (1, 1)
    tables = corpus.tables()
    assert {name for name, rows in tables.items() if rows} == {"corpus_digest"}
    assert live_text_rows(corpus) == []


def test_the_canonical_occurrence_has_the_smallest_priority_source_id_file_and_row(tmp_path):
    def canonical(*records: tuple[str, dict[str, str]], **priorities: int) -> tuple[str, int]:
        corpus = SmallCorpus(
            tmp_path / uuid.uuid4().hex,
            corpus={"sources": {name: {"priority": priority} for name, priority in priorities.items()}},
        )
        shards: dict[str, list] = {}
        for shard, record in records:
            shards.setdefault(shard, []).append({"text": "the text", **record})
        for shard, lines in shards.items():
            corpus.write(shard, lines)
        corpus.deliver()
        ((shard, row, source, copies),) = corpus.store.query("SELECT shard, row, source, dup_count FROM documents")
        assert (source, copies) == (shard.partition("/")[0], len(records))
        return shard, row

    assert canonical(("b/1.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "2"})) == ("a/1.jsonl", 0)
    assert canonical(("b/1.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "2"}), b=-1) == ("b/1.jsonl", 0)
    assert canonical(("b/1.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "2"}), a=1) == ("b/1.jsonl", 0)
    assert canonical(("a/1.jsonl", {"id": "2"}), ("a/2.jsonl", {"id": "1"})) == ("a/2.jsonl", 0)
    assert canonical(("a/1.jsonl", {}), ("a/2.jsonl", {"id": "1"})) == ("a/2.jsonl", 0)
    assert canonical(("a/2.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "1"})) == ("a/1.jsonl", 0)
    assert canonical(("a/1.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "1"}), ("a/1.jsonl", {"id": "0"})) == (
        "a/1.jsonl",
        2,
    )


def test_the_corpus_digest_knows_no_cut_and_no_order_but_every_text_and_source(tmp_path):
    texts = [f"text {number}" for number in range(40)]

    def digest_of(name: str, **files: list[str]) -> str:
        corpus = SmallCorpus(tmp_path / name)
        for shard, lines in files.items():
            corpus.write(f"{shard.replace('_', '/')}.jsonl", [{"text": text} for text in lines])
        for file in reversed(scan(corpus.home, corpus.config.corpus)):
            corpus.deliver(Delivery((file,)))
        return corpus_digest(corpus.store)

    shuffled = random.Random(0).sample(texts, len(texts))
    whole = digest_of("whole", web_a=texts)
    assert digest_of("cut", web_x=shuffled[:13], web_y=shuffled[13:], web_z=shuffled[5:9]) == whole
    others = [
        digest_of("fewer", web_a=texts[:-1]),
        digest_of("elsewhere", books_a=texts),
        digest_of("parted", books_a=texts[:1], web_a=texts[1:]),
        digest_of("nothing", web_a=[]),
    ]
    assert len({whole, *others}) == 5


def test_the_corpus_digest_does_not_depend_on_how_rows_are_batched(corpus):
    corpus.write("web/a.jsonl", [{"text": f"text {number}"} for number in range(10)])
    corpus.deliver()

    class InBatches:
        """A connection whose reader cuts batches smaller than asked."""

        def __init__(self, connection):
            self.connection = connection

        def execute(self, query):
            rows = self.connection.execute(query)
            return type("Rows", (), {"to_arrow_reader": lambda _, size: rows.to_arrow_table().to_batches(3)})()

    with corpus.store.read() as connection:
        digest = recomputed_corpus_digest(InBatches(connection))  # type: ignore[arg-type]
    assert digest == corpus_digest(corpus.store)


def test_every_record_keeps_where_it_came_from(corpus):
    corpus.write(
        "web/a.jsonl",
        [
            {"text": "Grüße, zwei Wörter", "id": 7, "url": "http://x", "date": "2026-01-02"}
            | {"more": {"b": [1, None], "a": "ü"}},
            {"text": "plain"},
        ],
    )  # fmt: skip
    corpus.deliver()
    found = corpus.store.query("SELECT * EXCLUDE (doc_id) FROM occurrences ORDER BY row")
    assert found == [
        ("web/a.jsonl", 0, "web", "7", "http://x", "2026-01-02", '{"more":{"a":"ü","b":[1,null]}}', 18, 21, 3),
        ("web/a.jsonl", 1, "web", None, None, None, "{}", 5, 5, 1),
    ]
    (shard,) = corpus.store.query("SELECT batch, source, path, format, bytes, run_id FROM shards")
    path = corpus.home.inbox / "web/a.jsonl"
    assert shard[1:] == ("web", str(path), "jsonl", path.stat().st_size, "run")
    assert shard[0].startswith("batch-")


def test_a_source_says_how_its_fields_are_called(tmp_path):
    fields = {"text_field": "body", "id_field": "key", "url_field": "", "date_field": "when"}
    corpus = SmallCorpus(tmp_path, corpus={"sources": {"forum": fields}})
    corpus.write("forum/a.jsonl", [{"body": "hello", "key": "k", "url": "u", "when": "today", "id": "other"}])
    corpus.write("web/a.jsonl", [{"text": "hello there", "id": "w"}])
    corpus.deliver()
    found = corpus.store.query("SELECT source, original_id, url, date, metadata FROM occurrences ORDER BY source")
    assert found == [("forum", "k", None, "today", '{"id":"other","url":"u"}'), ("web", "w", None, None, "{}")]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "  leading and trailing \t\n",
        "line\r\nends\rof\u2028all\u0085kinds",
        "\ufeffbyte order mark",
        "combining e\u0301 and \u00e9 stay apart",
        "\U0001f600 \U0010ffff \ue000 \u200d",
        "quotes ' \" \\ and \x01 controls",
        "x" * 100_000,
    ],
)
def test_a_text_comes_back_bit_for_bit(corpus, text):
    corpus.write("web/a.jsonl", [{"text": text}])
    corpus.deliver()
    assert corpus.rows("texts") == [(doc_id(text), "web/a.jsonl", 0, text, None)]


def test_a_changed_field_map_or_priority_is_delivered_anew(tmp_path):
    corpus = SmallCorpus(tmp_path)
    for source in ("books", "web"):
        corpus.write(f"{source}/a.jsonl", [{"text": "the text", "title": f"of {source}"}])
    corpus.deliver()
    assert not corpus.waiting()

    def configure(**fields) -> list[str]:
        sources = {"sources": {"web": fields}}
        corpus.config = corpus.config.model_validate(corpus.config.model_dump() | {"corpus": sources})
        waiting = corpus.waiting()
        corpus.deliver()
        assert not corpus.waiting()
        return [file.shard for file in waiting.files]

    assert configure(id_field="title") == ["web/a.jsonl"]
    assert corpus.store.query("SELECT original_id FROM occurrences WHERE source = 'web'") == [("of web",)]
    assert corpus.store.query("SELECT source FROM documents") == [("books",)]
    assert configure(id_field="title", priority=-1) == ["web/a.jsonl"]
    assert corpus.store.query("SELECT source FROM documents") == [("web",)]
    assert [text for _, _, text in live_text_rows(corpus)] == ["the text"] * 2


def test_a_delivery_that_another_one_overtook_changes_nothing(corpus, monkeypatch):
    corpus.write("web/a.jsonl", [{"text": "one"}])
    corpus.deliver()
    corpus.write("web/a.jsonl", [{"text": "two"}])
    rewrite = corpus_stage.rewrite_parts

    def overtaken(store, affected):
        rewritten = rewrite(store, affected)
        monkeypatch.setattr(corpus_stage, "rewrite_parts", rewrite)
        corpus.deliver()
        return rewritten

    monkeypatch.setattr(corpus_stage, "rewrite_parts", overtaken)
    slow = corpus.waiting()
    with pytest.raises(UserError, match=r"another delivery.*run this one again"):
        corpus.deliver(slow)
    assert [text for _, _, text in live_text_rows(corpus)] == ["two"]
    assert corpus.deliver(slow).unchanged == 1


def test_nothing_is_left_in_the_scratch_folder(corpus):
    corpus.write("web/a.jsonl", [{"text": "one"}, *BROKEN])
    corpus.write("web/b.jsonl", [{"text": "one"}])
    corpus.deliver()
    assert list(corpus.home.scratch.iterdir()) == []


def test_a_file_without_permission_is_quarantined_until_it_may_be_read(corpus):
    path = corpus.write("web/a.jsonl", [{"text": "one"}])
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert corpus.deliver().failed == ["web/a.jsonl"]
    path.chmod(0o600)
    assert corpus.waiting()
    corpus.deliver()
    assert len(corpus.rows("documents")) == 1
