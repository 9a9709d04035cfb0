"""Files that cannot be taken now keep the rows they had; they hold up nobody else."""

from __future__ import annotations

import io

import pytest
from small_corpus import SmallCorpus

from winnow.text import readers


@pytest.fixture(params=[64 * 2**20, 50])
def corpus(tmp_path, request) -> SmallCorpus:
    """A corpus whose files go together into one task, or each into pieces of its own."""
    return SmallCorpus(tmp_path, corpus={"workers": 1, "shard_bytes": request.param})


def texts(corpus: SmallCorpus) -> list[str]:
    with corpus.store.scratch("texts") as connection:
        return [text for (text,) in connection.execute("SELECT text FROM texts ORDER BY text").fetchall()]


def test_a_field_that_changes_its_type_is_refused_with_both_schemas_and_the_mend(corpus):
    corpus.write("a/1.jsonl", [{"text": "one", "score": 1, "tag": "x"}])
    corpus.deliver()
    corpus.write("a/2.jsonl", [{"text": "two", "score": "high", "tag": "y"}])
    corpus.write("b/1.jsonl", [{"text": "three", "score": "high"}])
    report = corpus.deliver()
    [why] = report.refused
    assert "a/2.jsonl: field 'score' has another type than in a/1.jsonl" in why
    assert "This file: score: string, tag: string, text: string." in why
    assert "a/1.jsonl: score: integer, tag: string, text: string." in why
    assert "schema_drift" in why
    assert texts(corpus) == ["one", "three"]
    assert report.occurrences == 1


def test_nulls_and_integers_widen_between_shards(corpus):
    corpus.write("a/1.jsonl", [{"text": "one", "score": None, "n": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "score": 2.5, "n": 1.5}])
    corpus.write("a/3.jsonl", [{"text": "three", "other": True}])
    report = corpus.deliver()
    assert report.refused == []
    assert texts(corpus) == ["one", "three", "two"]


def test_of_two_new_files_that_contradict_each_other_the_first_is_taken_and_the_part_holds_no_other(corpus):
    corpus.write("a/1.jsonl", [{"text": "one", "score": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "score": "x"}])
    corpus.write("a/3.jsonl", [{"text": "three", "score": 3}])
    report = corpus.deliver()
    assert len(report.refused) == 1 and "a/2.jsonl" in report.refused[0]
    held = set()
    for (part,) in corpus.store.query("SELECT part FROM parts WHERE kind = 'texts'"):
        with corpus.store.storage.open("texts", part) as file:
            held |= set(file.read(columns=["shard"])["shard"].to_pylist())
    assert held == {"a/1.jsonl", "a/3.jsonl"}
    listed = corpus.store.query("SELECT DISTINCT unnest(parts) AS part FROM shards ORDER BY part")
    assert listed == corpus.store.query("SELECT part FROM parts WHERE kind = 'texts' ORDER BY part")


def test_a_mended_file_is_taken_and_ends_in_the_tables_of_one_delivery(corpus, tmp_path):
    corpus.write("a/1.jsonl", [{"text": "one", "score": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "score": "x"}])
    assert corpus.deliver().refused
    corpus.write("a/2.jsonl", [{"text": "two", "score": 2}])
    assert corpus.deliver().refused == []
    fresh = SmallCorpus(tmp_path / "fresh")
    fresh.write("a/1.jsonl", [{"text": "one", "score": 1}])
    fresh.write("a/2.jsonl", [{"text": "two", "score": 2}])
    fresh.deliver()
    assert corpus.tables() == fresh.tables()


def test_a_source_may_allow_drift(tmp_path):
    corpus = SmallCorpus(tmp_path, corpus={"sources": {"a": {"schema_drift": "allow"}}})
    corpus.write("a/1.jsonl", [{"text": "one", "score": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "score": "x"}])
    assert corpus.deliver().refused == []
    assert corpus.store.query("SELECT metadata FROM occurrences ORDER BY shard") == [
        ('{"score":1}',),
        ('{"score":"x"}',),
    ]


def test_mapped_fields_may_change_their_type_as_they_become_text(corpus):
    corpus.write("a/1.jsonl", [{"text": "one", "id": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "id": "two"}])
    assert corpus.deliver().refused == []


class Failing(io.BytesIO):
    """A file whose bytes stop coming after a while."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 0:
            raise OSError(5, "Input/output error")
        return super().read(10)


def break_reading(monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    opened = readers.open_binary
    monkeypatch.setattr(
        readers, "open_binary", lambda path: Failing(b"{" * 100) if str(path).endswith(of) else opened(path)
    )


def test_a_file_whose_bytes_stop_coming_keeps_its_rows_and_is_read_by_the_next_delivery(corpus, monkeypatch):
    corpus.write("a/1.jsonl", [{"text": "old"}])
    corpus.deliver()
    corpus.write("a/1.jsonl", [{"text": "new"}])
    corpus.write("a/2.jsonl", [{"text": "other"}])
    with monkeypatch.context() as patch:
        break_reading(patch, "1.jsonl")
        report = corpus.deliver()
    assert len(report.refused) == 1 and "1.jsonl" in report.refused[0] and "Input/output error" in report.refused[0]
    assert texts(corpus) == ["old", "other"]
    assert corpus.deliver().refused == []
    assert texts(corpus) == ["new", "other"]


def test_a_file_that_changes_while_it_is_read_is_left_for_later(corpus, monkeypatch):
    path = corpus.write("a/1.jsonl", [{"text": f"line {number}"} for number in range(10)])
    seen, size_before = readers.Watched.read, path.stat().st_size

    def grow(self, size=-1):
        data = seen(self, size)
        if path.stat().st_size == size_before:
            with path.open("ab") as file:
                file.write(b'{"text": "late"}\n')
        return data

    delivery = corpus.waiting()
    with monkeypatch.context() as patch:
        patch.setattr(readers.Watched, "read", grow)
        report = corpus.deliver(delivery)
    assert len(report.refused) == 1 and "changed while it was read" in report.refused[0]
    assert corpus.store.query("SELECT count(*) FROM shards") == [(0,)]
    assert corpus.deliver().refused == []
    assert len(texts(corpus)) > 9
