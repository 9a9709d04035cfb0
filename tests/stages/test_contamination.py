"""Overlap in the store: every item that a document holds, the report a set, and what a change makes anew."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.cli.explanation import lines
from winnow.config import Config, EvaluationSet
from winnow.contamination.judge import Rule, rule_of
from winnow.contamination.sets import read_evaluation_set
from winnow.errors import UserError
from winnow.stages import contamination
from winnow.stages.contamination import example_lines, overlap_versions, report_lines, waiting_sets
from winnow.stages.explain import explain_document
from winnow.stages.pool import JUDGED, VERDICTS, admissible
from winnow.stages.references import stored_sets, write_sets

QUESTIONS = [
    "Which tool would a beekeeper choose to calm a hive before lifting out the wooden frames?",
    "What did the clockmaker of Altenberg replace first when the town bell began to ring nine minutes late?",
    "In which month did the ferry between the twin harbours stop carrying mail for the outer islands?",
    "Why so?",
]
ANSWERS = ["a smoker", "the pendulum spring", "October", "because"]
REFERENCE = reference_items("the reference is about something else altogether and nobody repeats any of its words")


def quiz(tmp_path, name="quiz", order=1):
    records = [
        {"id": f"q{k}", "question": question, "answer": answer}
        for k, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]
    path = tmp_path / f"{name}{order}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records[::order]))
    return read_evaluation_set(name, path)


def corpus_with(tmp_path, *sets, backend="file", **config: Any) -> SmallCorpus:
    return SmallCorpus(tmp_path / "home", backend, [REFERENCE, *sets], **config)


def deliver(corpus: SmallCorpus, shard: str, *texts: str) -> None:
    corpus.write(f"web/{shard}.jsonl", [{"text": text, "id": f"{shard}{k}"} for k, text in enumerate(texts)])
    corpus.deliver()


DUMP = "A quiz with its key.\n" + "\n".join(f"{q} {a}" for q, a in zip(QUESTIONS, ANSWERS, strict=True))


def test_every_item_that_a_document_holds_is_counted(tmp_path, backend):
    settings = {"contamination": {"evaluation_sets": {"old": {"path": "x", "method": "gpt3"}}}}
    corpus = corpus_with(tmp_path, quiz(tmp_path), quiz(tmp_path, "old"), backend=backend, **settings)
    deliver(corpus, "a", DUMP, f"Yesterday: {QUESTIONS[0]}", "nothing of the kind is told in this text at all")
    assert corpus.judge_contamination() == 9
    found = corpus.store.query(
        "SELECT i.item_id, count(*), bool_and(c.score = 1), min(c.part), bool_or(answer_near)"
        " FROM contamination_items c JOIN reference_items i USING (item) JOIN reference_sets s USING (digest)"
        " WHERE s.reference = c.evaluation_set AND evaluation_set = 'quiz' GROUP BY ALL ORDER BY ALL"
    )
    assert found == [
        ("q0", 2, True, "question", True), ("q1", 1, True, "question", True), ("q2", 1, True, "question", True),
    ]  # fmt: skip
    rows = corpus.store.query("SELECT method, contaminated, score, required FROM contamination ORDER BY ALL")
    assert rows == [("gapped", True, 1.0, 0.8), ("gapped", True, 1.0, 1.0), *[("gpt3", True, 1.0, 1.0)] * 2]
    reports = {row["evaluation_set"]: row for row in report_lines(corpus.store)}
    assert reports["quiz"] == {
        "evaluation_set": "quiz", "method": "gapped", "items": 4, "items_too_short": 1, "items_too_common": 0,
        "items_contaminated": 3, "item_share": 0.75, "documents": 3, "documents_contaminated": 2, "longest_match": 18,
    }  # fmt: skip
    assert reports["reference"]["documents_contaminated"] == reports["reference"]["items_contaminated"] == 0
    assert (reports["old"]["documents_contaminated"], reports["old"]["items_contaminated"]) == (2, 3)
    examples = [one for one in example_lines(corpus.store) if one["evaluation_set"] == "quiz"]
    assert [one["item"] for one in examples] == ["q1", "q2", "q0", "q0"]
    assert all(one["text"].split()[:3] == QUESTIONS[int(one["item"][1])].split()[:3] for one in examples)


def test_batches_in_any_order_give_the_rows_and_the_report_of_one_delivery(tmp_path):
    texts = [DUMP, f"Yesterday: {QUESTIONS[0]}", "nothing of the kind", f"{QUESTIONS[2]} In October.", QUESTIONS[1]]
    outcomes = []
    for number, cut in enumerate(([[0, 1, 2, 3, 4]], [[3], [0, 4], [1, 2]], [[2, 1], [4], [3, 0]])):
        corpus = SmallCorpus(tmp_path / str(number), sets=[REFERENCE, quiz(tmp_path)])
        for shard, places in enumerate(cut):
            deliver(corpus, str(shard), *(texts[place] for place in places))
            corpus.judge_contamination()
        outcomes.append(
            [corpus.rows(table) for table in ("contamination", "contamination_items", "contamination_report")]
        )
    assert len(outcomes[0][1]) == 6
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_changed_set_is_compared_anew_and_no_other(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path), quiz(tmp_path, "other"))
    deliver(corpus, "a", DUMP, "nothing of the kind")
    assert (corpus.judge_contamination(), corpus.judge_contamination()) == (6, 0)
    strict = {"contamination": {"evaluation_sets": {"other": {"path": "x", "threshold": 0.9}}}}
    corpus.config = Config.model_validate(corpus.config.model_dump() | strict)
    assert (corpus.judge_contamination(), corpus.judge_contamination()) == (2, 0)
    assert [row["items_contaminated"] for row in report_lines(corpus.store)] == [3, 3, 0]
    with corpus.store.write() as connection:
        write_sets(connection, [REFERENCE, quiz(tmp_path)])
    assert corpus.judge_contamination() == 0
    assert [row["evaluation_set"] for row in report_lines(corpus.store)] == ["quiz", "reference"]
    assert corpus.store.query("SELECT DISTINCT evaluation_set FROM contamination_items") == [("quiz",)]


def test_another_order_of_the_file_changes_no_row(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path))
    deliver(corpus, "a", DUMP)
    corpus.judge_contamination()
    before = corpus.rows("contamination_items"), corpus.rows("reference_items")
    with corpus.store.write() as connection:
        write_sets(connection, [REFERENCE, quiz(tmp_path, order=-1)])
    assert corpus.judge_contamination() == 0
    assert (corpus.rows("contamination_items"), corpus.rows("reference_items")) == before


def test_by_gpt3_what_more_than_ten_documents_have_is_ignored_whatever_came_first(tmp_path):
    """The eleventh copy clears all of them, and its withdrawal brings them back."""
    settings = {"contamination": {"evaluation_sets": {"quiz": {"path": "x", "method": "gpt3"}}}}
    corpus = corpus_with(tmp_path, quiz(tmp_path), **settings)
    shared = " ".join(QUESTIONS[1].split()[:14])

    def contaminated() -> int:
        return corpus.store.query("SELECT count(*) FROM contamination WHERE contaminated")[0][0]

    deliver(corpus, "a", *(f"{shared} number {k}" for k in range(10)), "nothing of the kind")
    assert corpus.judge_contamination() == 22
    assert contaminated() == 10
    deliver(corpus, "b", f"{shared} number 10", f"{QUESTIONS[0]} number 11")
    assert corpus.judge_contamination() == 4
    assert contaminated() == 1
    assert corpus.store.query("SELECT count(*), min(item) FROM contamination_items") == [(1, 0)]
    assert report_lines(corpus.store)[0]["items_too_short"] == 1
    corpus.remove("web/b.jsonl")
    corpus.deliver()
    assert corpus.judge_contamination() == 0
    assert contaminated() == 10


def held_items(corpus: SmallCorpus, name: str) -> list[tuple[str, int]]:
    return corpus.store.query(
        "SELECT i.item_id, count(*) FROM contamination_items c JOIN reference_items i USING (item)"
        " JOIN reference_sets s USING (digest) WHERE s.reference = c.evaluation_set AND s.reference = $name"
        " GROUP BY ALL ORDER BY ALL",
        {"name": name},
    )


def set_of(tmp_path, name, **questions):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": key, "question": text}) + "\n" for key, text in questions.items()))
    return read_evaluation_set(name, path)


LICENCE = (
    "permission to use change and pass on this program and its papers for any purpose and without fee is hereby "
    "granted provided that this notice appears"
)


def test_by_gpt3_a_document_holds_the_items_of_its_rare_ngrams_and_not_the_longest(tmp_path):
    """The licence that twelve more have is longer than the question; without the others it counts again."""
    items = set_of(tmp_path, "quiz", lic=f"{LICENCE} write a poem", real=QUESTIONS[0])
    settings = {"contamination": {"evaluation_sets": {"quiz": {"path": "x", "method": "gpt3"}}}}
    corpus = corpus_with(tmp_path, items, **settings)
    deliver(corpus, "a", f"{LICENCE} and later {QUESTIONS[0]} end")
    corpus.judge_contamination()
    alone = [corpus.rows(table) for table in ("contamination", "contamination_items")]
    assert held_items(corpus, "quiz") == [("lic", 1), ("real", 1)]
    deliver(corpus, "b", *(f"{LICENCE} number {k}" for k in range(12)))
    corpus.judge_contamination()
    assert held_items(corpus, "quiz") == [("real", 1)]
    worst = corpus.store.query("SELECT longest_match, item FROM contamination WHERE contaminated")
    assert worst == [(len(QUESTIONS[0].split()), 1)]
    corpus.remove("web/b.jsonl")
    corpus.deliver()
    corpus.judge_contamination()
    assert [corpus.rows(table) for table in ("contamination", "contamination_items")] == alone


def test_by_longest_run_every_item_is_recorded_and_a_short_whole_one_counts_beside_a_longer_part(tmp_path):
    settings = {"contamination": {"evaluation_sets": {"quiz": {"path": "x", "method": "longest_run"}}}}
    short = "nine little words that are a whole short item"
    items = set_of(tmp_path, "quiz", short=short, long=LICENCE, first=QUESTIONS[0], second=QUESTIONS[1])
    corpus = corpus_with(tmp_path, items, **settings)
    part = " ".join(LICENCE.split()[:12])
    deliver(corpus, "a", DUMP, f"{part}. And {short}.", f"{part} alone")
    corpus.judge_contamination()
    assert held_items(corpus, "quiz") == [("first", 1), ("second", 1), ("short", 1)]
    rows = corpus.store.query(
        "SELECT longest_match, contaminated FROM contamination WHERE evaluation_set = 'quiz' ORDER BY ALL"
    )
    assert rows == [(9, True), (12, False), (18, True)]


def test_nothing_is_selected_while_a_set_waits_for_documents(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path), quality={"filter": False})
    for shard, text in (("a", f"Yesterday: {QUESTIONS[0]}"), ("b", f"Today: {QUESTIONS[1]}"), ("c", "nothing of it")):
        deliver(corpus, shard, text)
        corpus.judge_signals()
        corpus.judge_duplicates()
        with pytest.raises(UserError, match="1 documents were not compared with the set"):
            admissible(corpus.store, corpus.config)
        corpus.judge_contamination()
        assert len(admissible(corpus.store, corpus.config)) == (shard == "c")
    strict = {"contamination": {"threshold": 0.9}}
    with pytest.raises(UserError, match="3 documents were not compared with the set 'quiz'"):
        admissible(corpus.store, Config.model_validate(corpus.config.model_dump() | strict))


def test_overlap_goes_when_the_items_of_a_set_change_and_before_it_is_compared_anew(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path))
    deliver(corpus, "a", DUMP)
    corpus.judge_contamination()
    with corpus.store.write() as connection:
        write_sets(connection, [REFERENCE, set_of(tmp_path, "quiz", other=QUESTIONS[2])])
    for table in ("contamination", "contamination_items"):
        assert corpus.store.query(f"SELECT count(*) FROM {table}") == [(0,)]
    assert corpus.judge_contamination() == 1
    assert held_items(corpus, "quiz") == [("other", 1)]


def test_ids_of_items_follow_the_file_and_their_places_stay(tmp_path):
    corpus = corpus_with(tmp_path, set_of(tmp_path, "quiz", a=QUESTIONS[0], b=QUESTIONS[1]))
    deliver(corpus, "a", QUESTIONS[0], f"{QUESTIONS[1]} indeed")
    corpus.judge_contamination()
    before = corpus.rows("contamination_items")
    with corpus.store.write() as connection:
        write_sets(connection, [REFERENCE, set_of(tmp_path, "quiz", d=QUESTIONS[1], c=QUESTIONS[0])])
    assert corpus.judge_contamination() == 0
    assert corpus.rows("contamination_items") == before
    named = corpus.store.query("SELECT item, item_id, topic, question FROM reference_items WHERE item_id IS NOT NULL")
    assert sorted(named) == [(0, "c", "c", QUESTIONS[0]), (1, "d", "d", QUESTIONS[1])]


@pytest.mark.parametrize("method", ["gapped", "longest_run", "gpt3"])
def test_a_killed_comparison_keeps_what_it_has_compared(tmp_path, monkeypatch, method):
    settings = {"contamination": {"evaluation_sets": {"quiz": {"path": "x", "method": method}}}}
    texts = [DUMP, f"Yesterday: {QUESTIONS[0]}", "nothing of the kind", f"{QUESTIONS[2]} In October.", QUESTIONS[1]]
    whole, killed = (SmallCorpus(tmp_path / end, sets=[REFERENCE, quiz(tmp_path)], **settings) for end in ("a", "b"))
    for corpus in (whole, killed):
        deliver(corpus, "a", *texts)
    whole.judge_contamination()
    original = contamination.texts_of

    def cut(store, documents):
        tables = [table.slice(k, 1) for table in original(store, documents) for k in range(len(table))]
        yield from tables[:3]
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(contamination, "texts_of", cut)
        patched.setattr(contamination, "WRITTEN_AT_ONCE", 1)
        with pytest.raises(RuntimeError):
            killed.judge_contamination()
    waiting = waiting_sets(killed.store, killed.config.contamination)
    assert [len(one.documents) for one in waiting] == [2, 2]
    assert killed.judge_contamination() == 4
    for table in ("contamination", "contamination_items", "contamination_report"):
        assert killed.rows(table) == whole.rows(table)


def test_a_verdict_says_the_score_of_a_gapped_match_and_the_words_of_a_run(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path), quality={"filter": False})
    deliver(corpus, "a", f"Yesterday: {QUESTIONS[0]}", REFERENCE.texts()[0])
    corpus.judge()
    with corpus.store.scratch(*JUDGED) as connection:
        details = connection.execute(
            f"{VERDICTS} SELECT detail FROM verdicts ORDER BY detail", {"filter": False, "semantic": False}
        ).fetchall()
    assert details == [("1.00 of the question of an item of quiz",), ("14 words in a row with reference",)]


def test_each_set_has_a_rule_of_its_own_and_the_reference_always_the_strict_one(tmp_path):
    sets = {
        "a": EvaluationSet(path="a"),
        "b": EvaluationSet(path="b", threshold=0.6, parts=["passage"]),
        "c": EvaluationSet(path="c", method="longest_run", min_words=9),
        "d": EvaluationSet(path="d", method="gpt3"),
    }
    settings = Config().contamination.model_copy(update={"evaluation_sets": sets})
    assert rule_of(settings, "a", "evaluation") == Rule("gapped", 0.8, ("question", "passage"))
    assert rule_of(settings, "b", "evaluation") == Rule("gapped", 0.6, ("passage",))
    assert rule_of(settings, "c", "evaluation") == Rule("longest_run", ngram=8, min_words=9)
    assert rule_of(settings, "d", "evaluation") == Rule("gpt3", ngram=13)
    for name in ("a", "d", "reference"):
        assert rule_of(settings, name, "reference") == Rule("longest_run", ngram=8, min_words=13)
    corpus = corpus_with(tmp_path, quiz(tmp_path, "a"), quiz(tmp_path, "b"))
    versions = overlap_versions(stored_sets(corpus.store), settings)
    assert list(versions) == ["reference", "a", "b"]
    assert versions["a"] != versions["b"]


def test_a_document_that_repeats_the_reference_is_contaminated_as_before(tmp_path):
    text = REFERENCE.texts()[0]
    corpus = corpus_with(tmp_path)
    deliver(corpus, "a", f"Here: {text.upper()}.", " ".join(text.split()[:13]), " ".join(text.split()[:12]))
    corpus.judge_contamination()
    rows = corpus.store.query(
        "SELECT longest_match, contaminated, score, method FROM contamination ORDER BY longest_match"
    )
    assert rows == [(12, False, 12 / 13, "longest_run"), (13, True, 1.0, "longest_run"), (14, True, 1.0, "longest_run")]
    assert waiting_sets(corpus.store, corpus.config.contamination)[0].documents.num_rows == 0


def test_an_explanation_names_the_item_the_score_and_how_many_more(tmp_path):
    corpus = corpus_with(tmp_path, quiz(tmp_path))
    deliver(corpus, "a", DUMP)
    corpus.judge()
    with corpus.store.read("texts", "scores", "manifest_rows", "embeddings") as connection:
        (doc,) = connection.execute("SELECT doc_id FROM documents").fetchone()
        found = explain_document(connection, str(doc))
    page = "\n".join(lines(found))
    assert "words in a row with quiz, item q" in page and "(contaminated)" in page
    assert "of the question (limit 0.80), its answer near" in page
    assert "it holds 3 items of quiz in all" in page


def test_documents_that_wait_for_the_same_sets_are_read_once(tmp_path, monkeypatch):
    corpus = corpus_with(tmp_path, quiz(tmp_path), quiz(tmp_path, "other"))
    deliver(corpus, "a", DUMP, "nothing of the kind")
    reads: list[pa.Table] = []
    from winnow.stages import contamination

    original = contamination.texts_of
    monkeypatch.setattr(contamination, "texts_of", lambda *args: reads.append(args[1]) or original(*args))
    corpus.judge_contamination()
    assert [len(documents) for documents in reads].count(2) == 1  # the others are of the examples
