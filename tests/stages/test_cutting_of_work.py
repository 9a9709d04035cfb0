"""However the work is cut (pieces, workers, deliveries), the store ends with the same tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from small_corpus import SmallCorpus

from winnow.stages.corpus import known_shards, reading_of
from winnow.stages.spooling import TaskRows
from winnow.text import planning
from winnow.text.deliveries import plan, scan
from winnow.text.planning import plan_tasks

BROKEN = b"{broken"


def fill(corpus: SmallCorpus) -> None:
    """Write a big file with bad lines and blank ones, one that fails, and small ones that share texts."""
    big = [{"id": number, "text": f"document {number} {'x' * (number % 50)}"} for number in range(400)]
    lines = [json.dumps(record).encode() for record in big]
    for place in (3, 57, 58, 311):
        lines[place] = BROKEN
    lines[100:100] = [b"", b"   ", b""]
    corpus.write("web/big.jsonl", lines)
    corpus.write("web/failing.jsonl", [{"text": "kept by nobody"} for _ in range(50)] + [BROKEN] * 20)
    for number in range(6):
        corpus.write(
            f"books/{number}.jsonl", [{"text": f"document {number + 4} xxxx"}, {"text": f"only here {number}"}]
        )


def corpus_with(tmp_path: Path, name: str, **settings: int) -> SmallCorpus:
    corpus = SmallCorpus(tmp_path / name, corpus=settings)
    fill(corpus)
    return corpus


@pytest.fixture
def whole(tmp_path: Path) -> SmallCorpus:
    corpus = corpus_with(tmp_path, "whole", workers=1)
    corpus.deliver()
    return corpus


def part_digests(corpus: SmallCorpus) -> list[tuple[str]]:
    return corpus.store.query("SELECT part FROM parts ORDER BY part")


@pytest.mark.parametrize("shard_bytes", [900, 5000])
def test_the_size_of_the_pieces_changes_no_table(tmp_path, whole, shard_bytes):
    corpus = corpus_with(tmp_path, "cut", workers=1, shard_bytes=shard_bytes)
    corpus.deliver()
    assert corpus.tables() == whole.tables()


@pytest.mark.slow
def test_the_number_of_workers_changes_not_one_byte(tmp_path):
    one = corpus_with(tmp_path, "one", workers=1, shard_bytes=2000)
    many = corpus_with(tmp_path, "many", workers=3, shard_bytes=2000)
    for corpus in (one, many):
        corpus.deliver()
    assert many.tables() == one.tables()
    assert part_digests(many) == part_digests(one)
    assert len(part_digests(one)) > 1


def test_deliveries_of_bounded_size_end_in_the_tables_of_one(tmp_path, whole):
    corpus = corpus_with(tmp_path, "bounded", workers=1)
    sizes = []
    while True:
        with corpus.store.read() as connection:
            known = known_shards(connection, corpus.config.corpus)
        delivery = plan(scan(corpus.home, corpus.config.corpus), known, most_bytes=100)
        if not delivery:
            break
        sizes.append(len(delivery.files))
        corpus.deliver(delivery)
    assert sizes == [1] * 8  # a file that is larger than a delivery is one alone
    assert corpus.tables() == whole.tables()


def test_nothing_is_withdrawn_while_files_wait_for_a_later_delivery(tmp_path):
    corpus = SmallCorpus(tmp_path)
    corpus.write("a/1.jsonl", [{"text": "stays"}])
    corpus.deliver()
    (corpus.home.inbox / "a" / "1.jsonl").rename(corpus.home.inbox / "a" / "2.jsonl")
    corpus.write("a/3.jsonl", [{"text": "other"}])
    with corpus.store.read() as connection:
        known = known_shards(connection, corpus.config.corpus)
    files = scan(corpus.home, corpus.config.corpus)
    assert plan(files, known, most_bytes=1).withdrawn == ()
    assert plan(files, known).withdrawn == ("a/1.jsonl",)


def test_a_failing_file_leaves_no_text_in_the_part_it_would_have_shared(whole):
    with whole.store.scratch("texts") as connection:
        assert connection.execute("SELECT count(*) FROM texts WHERE text = 'kept by nobody'").fetchall() == [(0,)]
    parts = whole.store.query("SELECT part FROM parts WHERE kind = 'texts'")
    shards = set()
    for (part,) in parts:
        with whole.store.storage.open("texts", part) as file:
            shards |= set(file.read(columns=["shard"])["shard"].to_pylist())
    assert shards == {"web/big.jsonl", *(f"books/{number}.jsonl" for number in range(6))}
    assert whole.store.query("SELECT parts FROM shards WHERE shard = 'web/failing.jsonl'") == [([],)]


def test_a_file_that_is_cut_fails_as_a_whole(tmp_path):
    tables = []
    for shard_bytes in (64 * 2**20, 300):
        corpus = SmallCorpus(tmp_path / str(shard_bytes), corpus={"workers": 1, "shard_bytes": shard_bytes})
        corpus.write("a/f.jsonl", [{"text": f"good {number}"} for number in range(60)] + [BROKEN] * 11)
        report = corpus.deliver()
        assert report.failed == ["a/f.jsonl"]
        assert corpus.store.query("SELECT count(*) FROM parts") == [(0,)]
        tables.append(corpus.tables())
    assert tables[0] == tables[1]


def test_rows_that_wait_for_the_end_of_their_file_go_to_disk_over_a_bound(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(TaskRows, "HELD_BYTES", 50)
    corpus = corpus_with(tmp_path, "held", workers=1, batch_bytes=100)
    corpus.deliver()
    assert corpus.tables() == whole.tables()
    assert list(corpus.home.scratch.iterdir()) == []


def test_small_files_are_read_together_and_big_ones_in_pieces(tmp_path):
    corpus = corpus_with(tmp_path, "planned")
    wanted = [(file, reading_of(corpus.config.corpus, file)) for file in scan(corpus.home, corpus.config.corpus)]
    made = plan_tasks(wanted, 3000)
    names = [[(piece.file.shard, piece.number) for piece in task.pieces] for task in made.tasks]
    assert names[-1] == [(f"books/{number}.jsonl", 0) for number in range(6)] + [("web/failing.jsonl", 0)]
    big = [name for task in names[:-1] for name in task]
    assert big == [("web/big.jsonl", number) for number in range(len(big))]
    assert len(big) > 3
    spans = made.cuts["web/big.jsonl"].spans
    assert spans[0].start == 0 and all(a.end == b.start for a, b in itertools.pairwise(spans))


def test_a_file_that_vanishes_before_it_is_cut_is_left_to_its_reader(tmp_path, monkeypatch):
    corpus = corpus_with(tmp_path, "vanishing")
    wanted = [(file, reading_of(corpus.config.corpus, file)) for file in scan(corpus.home, corpus.config.corpus)]

    def gone(path: str):
        raise FileNotFoundError(2, "No such file", path)

    monkeypatch.setattr(planning, "open_binary", gone)
    made = plan_tasks(wanted, 3000)
    assert made.cuts == {}
    assert sorted(piece.file.shard for task in made.tasks for piece in task.pieces) == sorted(
        file.shard for file, _ in wanted
    )


def test_live_counters_end_at_what_was_read(tmp_path, monkeypatch):
    corpus = corpus_with(tmp_path, "counted", workers=1, shard_bytes=3000)
    from winnow.stages import progress as module
    from winnow.stages.corpus import deliver
    from winnow.store.stage import Stage

    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)
    counts = []
    delivery = corpus.waiting()
    work = Stage(corpus.store, "corpus", "run", partition=delivery.key)
    report = deliver(corpus.store, corpus.config.corpus, delivery, work, counts.append)
    assert [count.documents for count in counts] == sorted(count.documents for count in counts)
    last = counts[-1]
    assert last.done == last.total == sum(file.bytes for file in delivery.files) == report.bytes
    assert last.documents == report.occurrences
    assert last.left == 0 and "documents" in str(last)
    cost = corpus.store.query("SELECT stage, processed, bytes FROM costs")
    assert cost == [("corpus", report.occurrences, report.bytes)]
