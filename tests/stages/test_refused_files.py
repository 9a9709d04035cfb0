"""Files that cannot be taken now keep the rows they had; they hold up nobody else."""

from __future__ import annotations

import io
import json

import fsspec
import pytest
from small_corpus import SmallCorpus

from winnow.stages import staging
from winnow.stages.corpus import known_shards
from winnow.text import readers
from winnow.text.deliveries import plan, scan
from winnow.text.drift import FieldTypes


@pytest.fixture
def corpus(tmp_path) -> SmallCorpus:
    return SmallCorpus(tmp_path, corpus={"workers": 1})


@pytest.fixture(params=[64 * 2**20, 50])
def either(tmp_path, request) -> SmallCorpus:
    """A corpus whose files go together into one task, or each into pieces of its own."""
    return SmallCorpus(tmp_path, corpus={"workers": 1, "shard_bytes": request.param})


def texts(corpus: SmallCorpus) -> list[str]:
    with corpus.store.scratch("texts") as connection:
        return [text for (text,) in connection.execute("SELECT text FROM texts ORDER BY text").fetchall()]


def test_a_field_that_changes_its_type_is_refused_with_both_schemas_and_the_mend(either):
    either.write("a/1.jsonl", [{"text": "one", "score": 1, "tag": "x"}])
    either.deliver()
    either.write("a/2.jsonl", [{"text": "two", "score": "high", "tag": "y"}])
    either.write("b/1.jsonl", [{"text": "three", "score": "high"}])
    report = either.deliver()
    [why] = report.refused
    assert "a/2.jsonl: field 'score' has another type than in a/1.jsonl" in why
    assert "This file: score: string, tag: string, text: string." in why
    assert "a/1.jsonl: score: integer, tag: string, text: string." in why
    assert "schema_drift" in why
    assert texts(either) == ["one", "three"]
    assert report.occurrences == 1


def test_nulls_and_integers_widen_between_shards(corpus):
    corpus.write("a/1.jsonl", [{"text": "one", "score": None, "n": 1}])
    corpus.write("a/2.jsonl", [{"text": "two", "score": 2.5, "n": 1.5}])
    corpus.write("a/3.jsonl", [{"text": "three", "other": True}])
    report = corpus.deliver()
    assert report.refused == []
    assert texts(corpus) == ["one", "three", "two"]


def test_of_two_new_files_that_contradict_each_other_the_first_is_taken_and_the_part_holds_no_other(either):
    either.write("a/1.jsonl", [{"text": "one", "score": 1}])
    either.write("a/2.jsonl", [{"text": "two", "score": "x"}])
    either.write("a/3.jsonl", [{"text": "three", "score": 3}])
    report = either.deliver()
    assert len(report.refused) == 1 and "a/2.jsonl" in report.refused[0]
    held = set()
    for (part,) in either.store.query("SELECT part FROM parts WHERE kind = 'texts'"):
        with either.store.storage.open("texts", part) as file:
            held |= set(file.read(columns=["shard"])["shard"].to_pylist())
    assert held == {"a/1.jsonl", "a/3.jsonl"}
    listed = either.store.query("SELECT DISTINCT unnest(parts) AS part FROM shards ORDER BY part")
    assert listed == either.store.query("SELECT part FROM parts WHERE kind = 'texts' ORDER BY part")


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


def test_a_file_whose_bytes_stop_coming_keeps_its_rows_and_is_read_by_the_next_delivery(either, monkeypatch):
    either.write("a/1.jsonl", [{"text": "old"}])
    either.deliver()
    either.write("a/1.jsonl", [{"text": "new"}])
    either.write("a/2.jsonl", [{"text": "other"}])
    with monkeypatch.context() as patch:
        break_reading(patch, "1.jsonl")
        report = either.deliver()
    assert len(report.refused) == 1 and "1.jsonl" in report.refused[0] and "Input/output error" in report.refused[0]
    assert texts(either) == ["old", "other"]
    assert either.deliver().refused == []
    assert texts(either) == ["new", "other"]


def test_a_file_that_changes_while_it_is_read_is_left_for_later(either, monkeypatch):
    path = either.write("a/1.jsonl", [{"text": f"line {number}"} for number in range(10)])
    seen, size_before = readers.Watched.read, path.stat().st_size

    def grow(self, size=-1):
        data = seen(self, size)
        if path.stat().st_size == size_before:
            with path.open("ab") as file:
                file.write(b'{"text": "late"}\n')
        return data

    delivery = either.waiting()
    with monkeypatch.context() as patch:
        patch.setattr(readers.Watched, "read", grow)
        report = either.deliver(delivery)
    assert len(report.refused) == 1 and "changed while it was read" in report.refused[0]
    assert either.store.query("SELECT count(*) FROM shards") == [(0,)]
    assert either.deliver().refused == []
    assert len(texts(either)) > 9


def known(corpus: SmallCorpus):
    with corpus.store.read() as connection:
        return known_shards(connection, corpus.config.corpus)


def refused(corpus: SmallCorpus) -> list[str]:
    return [shard for (shard,) in corpus.store.query("SELECT shard FROM refused ORDER BY shard")]


def test_a_file_that_was_there_when_it_was_found_and_cannot_be_opened_keeps_its_rows_and_is_tried_again(corpus):
    path = corpus.write("a/1.jsonl", [{"text": "old"}])
    corpus.deliver()
    corpus.write("a/1.jsonl", [{"text": "new"}])
    delivery = corpus.waiting()
    away = path.rename(path.with_suffix(".tmp"))
    assert len(corpus.deliver(delivery).refused) == 1
    assert texts(corpus) == ["old"] and refused(corpus) == ["a/1.jsonl"]
    away.rename(path)
    corpus.deliver()
    assert texts(corpus) == ["new"] and refused(corpus) == []


def test_a_source_may_change_a_fields_type_over_several_deliveries(corpus):
    for name in ("1", "2"):
        corpus.write(f"a/{name}.jsonl", [{"text": name, "x": "text"}])
    corpus.deliver()
    for name in ("1", "2"):
        corpus.write(f"a/{name}.jsonl", [{"text": f"{name} anew", "x": {"k": 1}}])
    for expected in (["1 anew", "2"], ["1 anew", "2 anew"]):
        delivery = plan(scan(corpus.home, corpus.config.corpus), known(corpus), most_bytes=1)
        assert corpus.deliver(delivery).refused == []
        assert texts(corpus) == expected


def test_the_fields_of_a_failed_file_refuse_nobody(corpus):
    corpus.write("a/1.jsonl", [{"text": "x", "n": 1}] + [b"{broken"] * 11)
    assert corpus.deliver().failed == ["a/1.jsonl"]
    corpus.write("a/2.jsonl", [{"text": "good", "n": "text"}])
    assert corpus.deliver().refused == []
    assert texts(corpus) == ["good"]


def test_refused_files_come_last_and_hold_up_no_delivery(corpus):
    corpus.write("a/0.jsonl", [{"text": "first", "n": 1}])
    corpus.deliver()
    for name in ("1", "2"):
        corpus.write(f"a/{name}.jsonl", [{"text": name, "n": "text"}])
    corpus.deliver()
    assert refused(corpus) == ["a/1.jsonl", "a/2.jsonl"]
    for name in ("3", "4"):
        corpus.write(f"a/{name}.jsonl", [{"text": name, "n": 1}])
    seen = []
    for _ in range(3):
        delivery = plan(scan(corpus.home, corpus.config.corpus), known(corpus), most_bytes=1)
        seen.append([file.shard for file in delivery.files])
        corpus.deliver(delivery)
    assert seen == [["a/1.jsonl", "a/3.jsonl"], ["a/2.jsonl", "a/4.jsonl"], ["a/1.jsonl"]]
    assert texts(corpus) == ["3", "4", "first"]


def test_a_refused_file_that_goes_is_refused_no_longer(corpus):
    corpus.write("a/0.jsonl", [{"text": "first", "n": 1}])
    corpus.write("a/1.jsonl", [{"text": "other", "n": "text"}])
    corpus.deliver()
    corpus.remove("a/1.jsonl")
    corpus.deliver()
    assert refused(corpus) == []


def test_a_growing_file_does_not_stop_withdrawals_but_a_new_one_does(corpus):
    for name in ("log", "gone"):
        corpus.write(f"a/{name}.jsonl", [{"text": name}])
    corpus.deliver()
    corpus.remove("a/gone.jsonl")
    corpus.write("a/log.jsonl", [{"text": "log"}, {"text": "more"}])
    files = scan(corpus.home, corpus.config.corpus)
    assert plan(files, known(corpus), ready=lambda file: False).withdrawn == ("a/gone.jsonl",)
    corpus.write("a/new.jsonl", [{"text": "gone"}])
    files = scan(corpus.home, corpus.config.corpus)
    assert plan(files, known(corpus), ready=lambda file: False).withdrawn == ()


def test_whatever_a_reader_raises_is_said_of_its_file_alone(corpus, monkeypatch):
    corpus.write("a/1.jsonl", [{"text": "one"}])
    corpus.write("a/2.jsonl", [{"text": "two"}])
    read = readers.ShardReader._read

    def failing(self):
        if str(self.path).endswith("1.jsonl"):
            raise OverflowError("absurd")
        yield from read(self)

    monkeypatch.setattr(readers.ShardReader, "_read", failing)
    [why] = corpus.deliver().refused
    assert "1.jsonl" in why and "OverflowError: absurd" in why
    assert texts(corpus) == ["two"]


def test_a_remote_file_that_changes_between_its_pieces_is_left_for_later(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from winnow.stages import reading

    def put(word: str) -> None:
        with fsspec.open("memory://bucket/web/a.parquet", "wb") as file:
            table = pa.table({"text": [f"{word} {number} {number * 7919 % 1013}" for number in range(400)]})
            pq.write_table(table, file, row_group_size=100)

    put("old")
    location = {"root": "memory://bucket", "include": ["**/*"]}
    corpus = SmallCorpus(tmp_path, corpus={"locations": [location], "workers": 1, "shard_bytes": 1000})
    pieces = []
    read = reading._read_piece

    def replaced(piece, rows, moved):
        pieces.append(piece)
        if len(pieces) == 3:
            put("new")
        return read(piece, rows, moved)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_read_piece", replaced)
        report = corpus.deliver()
    assert len(pieces) >= 3 and len(report.refused) == 1 and "changed" in report.refused[0]
    assert texts(corpus) == []
    assert corpus.deliver().refused == []
    assert len(texts(corpus)) == 400 and all(text.startswith("new") for text in texts(corpus))


def test_small_files_share_row_groups(tmp_path):
    corpus = SmallCorpus(tmp_path, corpus={"workers": 1})
    for number in range(200):
        corpus.write(f"a/{number:03}.jsonl", [{"text": f"text {number}"}])
    corpus.deliver()
    [(part,)] = corpus.store.query("SELECT part FROM parts WHERE kind = 'texts'")
    with corpus.store.storage.open("texts", part) as file:
        assert file.metadata.num_rows == 200 and file.num_row_groups == 1


def test_comparing_the_fields_of_many_files_merges_each_once(monkeypatch, tmp_path):
    corpus = SmallCorpus(tmp_path)
    for number in range(30):
        corpus.write(f"a/{number:02}.jsonl", [{"text": f"text {number}", "n": number}])
    merged = []
    merge = FieldTypes.merge
    monkeypatch.setattr(staging.FieldTypes, "merge", lambda self, other: merged.append(1) or merge(self, other))
    corpus.deliver()
    assert len(merged) <= 30


def test_touched_files_are_one_update(corpus):
    for name in ("1", "2", "3"):
        corpus.write(f"a/{name}.jsonl", [{"text": name}])
    corpus.deliver()
    for name in ("1", "2"):
        corpus.touch(f"a/{name}.jsonl")
    report = corpus.deliver()
    assert (report.shards, report.unchanged) == (0, 2)
    assert not corpus.waiting()


def test_quarantine_of_whole_and_of_cut_files_is_the_same(tmp_path):
    tables = []
    for shard_bytes in (64 * 2**20, 300):
        corpus = SmallCorpus(
            tmp_path / str(shard_bytes),
            corpus={"workers": 1, "shard_bytes": shard_bytes, "max_bad_fraction": 1.0},
        )
        records = [json.dumps({"text": f"good {number}"}).encode() for number in range(60)]
        corpus.write("a/f.jsonl", records + [b"{broken"] * 30 + [b'{"text": 3}'] * 5)
        report = corpus.deliver()
        assert report.reasons == {"invalid_json": 30, "text_not_string": 5}
        tables.append(corpus.tables())
    assert tables[0] == tables[1]
