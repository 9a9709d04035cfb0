"""Repeated spans in the store: over kept documents, whatever the deliveries; left out where a manifest trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus

from winnow.dedup.spans import make_span_plan, repeated_spans
from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages.spans import (
    kept_documents,
    leave_out,
    record_spans,
    require_spans,
    spans_key,
    spans_left_out,
    summarise,
)
from winnow.stages.training import Arm, pack_arm
from winnow.store.stage import Stage
from winnow.store.store import insert

NOTICE = "Permission is hereby granted, free of charge, to any person who obtains a copy of this text.\n"
STORIES = {
    name: f"{name.title()} came to the {place} on a {day} and asked, of all things, for {thing}.\n"
    for name, place, day, thing in (
        ("ann", "harbour", "windy morning", "a map of the moon"),
        ("bo", "library", "hot afternoon", "the heaviest of the dictionaries"),
        ("cy", "market", "quiet Sunday", "seven blue plates without a crack"),
        ("di", "station", "winter night", "the last train that ever ran to the coast"),
    )
}
TEXTS = [NOTICE + story for story in STORIES.values()]


def make(root: Path, backend: str = "file", **spans: object) -> SmallCorpus:
    return SmallCorpus(root, backend, spans=spans)


def configure(corpus: SmallCorpus, **spans: object) -> None:
    corpus.config = corpus.config.model_validate(corpus.config.model_dump() | {"spans": spans})


def find(corpus: SmallCorpus) -> bool:
    """Deliver what waits, judge duplicates and find spans as the asset does; return whether spans were made anew."""
    corpus.deliver()
    corpus.judge_duplicates()
    plan, documents = make_span_plan(corpus.config.spans), kept_documents(corpus.store, corpus.config)
    stage = Stage(corpus.store, "spans", "run", spans_key(plan, documents))
    if stage.done is not None:
        return False
    record_spans(corpus.store, stage, plan, documents)
    return True


def write(corpus: SmallCorpus, shard: str, texts: list[str]) -> None:
    corpus.write(shard, [{"text": text} for text in texts])


def repeated(corpus: SmallCorpus) -> dict[UUID, list[tuple[str, int, int, int]]]:
    found: dict[UUID, list[tuple[str, int, int, int]]] = {}
    for row in corpus.store.query("SELECT doc_id, kind, span_start, span_end, copies FROM spans ORDER BY ALL"):
        found.setdefault(row[0], []).append(row[1:])
    return found


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> SmallCorpus:
    """Four stories with the notice, their lines found; no test changes it."""
    corpus = make(tmp_path_factory.mktemp("four"), kinds=["lines"], apply=["lines"])
    write(corpus, "web/a.jsonl", TEXTS)
    assert find(corpus)
    return corpus


def test_all_copies_but_the_first_in_the_order_of_ids_are_recorded(four):
    corpus = four
    first, *others = sorted(map(doc_id, TEXTS))
    assert repeated(corpus) == {other: [("line", 0, len(NOTICE), 4)] for other in others}
    rows = {row[0]: row[1:] for row in corpus.store.query("SELECT * EXCLUDE (version) FROM repetition")}
    lengths = {doc_id(text): len(text) for text in TEXTS}
    assert rows == {other: (1, 0, 0, pytest.approx(len(NOTICE) / lengths[other])) for other in others} | {
        first: (0, 0, 0, 0.0)
    }


def test_a_preferred_source_has_the_first_copy(tmp_path):
    corpus = SmallCorpus(tmp_path, corpus={"sources": {"books": {"priority": -1}}}, spans={"kinds": ["lines"]})
    last = max(TEXTS, key=doc_id)
    write(corpus, "books/a.jsonl", [last])
    write(corpus, "web/a.jsonl", [text for text in TEXTS if text != last])
    find(corpus)
    assert set(repeated(corpus)) == {doc_id(text) for text in TEXTS} - {doc_id(last)}


def test_a_near_duplicate_makes_nothing_a_repeat(tmp_path):
    corpus = make(tmp_path)
    long = " ".join(STORIES.values())
    write(corpus, "web/a.jsonl", [long, long + " The end."])
    find(corpus)
    assert corpus.rows("spans") == []
    assert len(corpus.rows("repetition")) == 1


@pytest.mark.slow
def test_rows_are_replaced_when_corpus_or_settings_change_and_else_nothing_is_done(tmp_path, lake):
    corpus = make(tmp_path, lake)
    write(corpus, "web/a.jsonl", TEXTS[:2])
    write(corpus, "web/b.jsonl", TEXTS[2:])
    assert find(corpus)
    whole = corpus.rows("spans"), corpus.rows("repetition")
    assert {row[1] for row in whole[0]} == {"line"}
    assert not find(corpus)
    corpus.remove("web/b.jsonl")
    assert find(corpus)
    assert len(corpus.rows("repetition")) == 2
    write(corpus, "web/b.jsonl", TEXTS[2:])
    assert find(corpus)
    assert (corpus.rows("spans"), corpus.rows("repetition")) == whole
    configure(corpus, rule="every_copy")
    assert find(corpus)
    assert len(corpus.rows("spans")) == len(whole[0]) + 1
    configure(corpus, kinds=[])
    assert find(corpus)
    assert (corpus.rows("spans"), corpus.rows("repetition")) == ([], [])
    configure(corpus)
    assert find(corpus)
    assert (corpus.rows("spans"), corpus.rows("repetition")) == whole


@pytest.mark.slow
@settings(max_examples=3, deadline=None, derandomize=True)
@given(order=st.permutations([*TEXTS, NOTICE * 3]), cuts=st.lists(st.integers(0, 5), max_size=3).map(sorted))
def test_deliveries_in_any_order_and_cut_end_where_one_does(tmp_path_factory, order, cuts):
    spans = {"min_bytes": 40, "min_characters": 10}
    parts, at = [], 0
    for cut in [*cuts, len(order)]:
        parts.append(order[at:cut])
        at = max(at, cut)
    several = make(tmp_path_factory.mktemp("several"), **spans)
    for number, part in enumerate(parts):
        write(several, f"web/{number}.jsonl", part)
        find(several)
    once = make(tmp_path_factory.mktemp("once"), **spans)
    write(once, "web/all.jsonl", sorted(order))
    find(once)
    for table in ("spans", "repetition"):
        assert several.rows(table) == once.rows(table)
    ordered = sorted(order, key=doc_id)
    expected = repeated_spans(ordered, make_span_plan(several.config.spans), threads=1).to_pylist()
    assert sum(map(len, repeated(several).values())) == len(expected)
    for row in expected:
        of_document = repeated(several)[doc_id(ordered[row["document"]])]
        assert (row["kind"], row["span_start"], row["span_end"], row["copies"]) in of_document


def test_the_summary_tells_shares_and_the_units_with_most_copies(four):
    found = summarise(four.store)
    total = sum(map(len, TEXTS))
    share = pytest.approx(3 * len(NOTICE) / total)
    assert (found.kinds, found.sources) == ({"line": share}, {"web": share})
    (unit,) = found.top
    assert (unit["kind"], unit["copies"], unit["characters"]) == ("line", 4, len(NOTICE))
    assert NOTICE.startswith(unit["excerpt"])


# -- left out of training ---------------------------------------------------------------------------------------------


def manifest_of(corpus: SmallCorpus, version: str = "v0001") -> dict[str, str]:
    """Pretend that a manifest was made now: its snapshot lists the live parts of spans."""
    with corpus.store.write() as connection:
        for (part,) in connection.execute("SELECT part FROM parts WHERE kind = 'spans'").fetchall():
            listed = {"version": [version], "name": ["spans"], "kind": ["spans"], "part": [part]}
            insert(connection, "snapshots", pa.table(listed))
    return {"version": version, "configuration": json.dumps(corpus.config.semantic_settings("spans"))}


def test_a_manifest_leaves_out_the_kinds_of_its_own_settings_and_snapshot(tmp_path):
    corpus = make(tmp_path, apply=["lines"])
    write(corpus, "web/a.jsonl", TEXTS)
    find(corpus)
    documents = corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")
    manifest = manifest_of(corpus)
    left_out = spans_left_out(corpus.store, manifest, documents)
    assert len(left_out) == 3
    configure(corpus, kinds=[])  # what comes later is no concern of the manifest
    find(corpus)
    assert spans_left_out(corpus.store, manifest, documents).equals(left_out)
    assert len(spans_left_out(corpus.store, manifest, documents.slice(0, 2))) == 1
    for settings_of_manifest in ({"spans": {"apply": []}}, {}):
        row = manifest | {"configuration": json.dumps(settings_of_manifest)}
        assert spans_left_out(corpus.store, row, documents) is None


def test_texts_are_trained_on_without_the_spans_and_emptied_documents_are_skipped_and_counted(tmp_path):
    corpus = make(tmp_path, apply=["lines"], rule="every_copy")
    write(corpus, "web/a.jsonl", [*TEXTS[:2], "\n" + NOTICE])
    find(corpus)
    documents = corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")
    left_out = spans_left_out(corpus.store, manifest_of(corpus), documents)
    said: list[str] = []
    windows = pack_arm(corpus.store, Characters(), Arm("manifest", documents, left_out), 16, said.append)
    text = "".join(chr(token) for token in windows.reshape(-1).tolist() if token > 0)
    kept = {doc_id(text): text for text in TEXTS}
    stories = [kept[document].removeprefix(NOTICE) for document in sorted(map(doc_id, TEXTS[:2]))]
    assert text == "".join(stories)
    assert said == ["manifest: 1 of 3 documents are nothing but repeated spans and are skipped"]
    whole = pack_arm(corpus.store, Characters(), Arm("manifest", documents), 16)
    assert (whole > 0).sum() == sum(map(len, [*TEXTS[:2], NOTICE])) + 1


class Characters:
    """A tokenizer whose tokens are code points."""

    eos_token_id = 0

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(character) for character in text] for text in texts]}


def test_leaving_out_changes_no_other_text():
    texts = pa.table({"doc_id": documents_of(TEXTS), "text": pa.array(TEXTS, pa.large_string())})
    spans = pa.table({"doc_id": documents_of([TEXTS[2], "elsewhere"]), "span_start": [0, 0], "span_end": [5, 9]})
    assert leave_out(texts, spans)["text"].to_pylist() == [*TEXTS[:2], TEXTS[2][5:], TEXTS[3]]
    assert leave_out(texts, spans.slice(0, 0)).equals(texts)


def documents_of(texts: list[str]) -> pa.Array:
    from winnow.identity import doc_ids

    return doc_ids(texts)


def test_a_manifest_needs_the_spans_of_the_present_documents_if_it_leaves_them_out(tmp_path):
    corpus = make(tmp_path, apply=["lines"])
    write(corpus, "web/a.jsonl", TEXTS[:2])
    find(corpus)
    require_spans(corpus.store, corpus.config)
    write(corpus, "web/b.jsonl", TEXTS[2:])
    corpus.deliver()
    corpus.judge_duplicates()
    with pytest.raises(UserError, match="materialize `spans` first"):
        require_spans(corpus.store, corpus.config)
    configure(corpus, apply=[])
    require_spans(corpus.store, corpus.config)


def test_what_is_left_out_has_to_be_found(tmp_path):
    with pytest.raises(ValueError, match=re.escape("lines are left out only if spans.kinds has them too")):
        make(tmp_path, kinds=["substrings"], apply=["lines"])
