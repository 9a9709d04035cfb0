"""Withdrawn documents are in no later manifest, whichever came first, the demand or the file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import CORPUS_TABLES, SmallCorpus, reference_items

from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages.corpus import corpus_digest
from winnow.stages.demands import Demand, make_demand, read_demands
from winnow.stages.examining import examine
from winnow.stages.explain import explain_document
from winnow.stages.pool import candidate_pool
from winnow.stages.withdrawing import add_takedowns, list_takedowns, preview_takedowns, remove_takedowns
from winnow.stages.withdrawn_texts import purge_is_due, purge_withdrawn
from winnow.store.store import add_parts, insert, insert_row

TEXTS = [f"the text number {number} of this corpus is about {word}" for number, word in enumerate("abcdef")]
QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def filled(root: Path, backend: str = "file") -> SmallCorpus:
    """Three texts of the web, two of them in books as well, and a bad record."""
    corpus = SmallCorpus(root, backend)
    web = [{"text": text, "id": f"w{at}", "url": f"http://web/{at}"} for at, text in enumerate(TEXTS[:3])]
    corpus.write("web/a.jsonl", [*web, b"{broken"])
    corpus.write("books/a.jsonl", [{"text": text, "id": f"b{at}"} for at, text in enumerate(TEXTS[1:5])])
    return corpus


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    found = filled(tmp_path / "home")
    found.deliver()
    return found


def documents(corpus: SmallCorpus) -> set[str]:
    return {row[3] for row in corpus.rows("texts")}


def in_live_parts(corpus: SmallCorpus) -> set[str]:
    """Return every text in the live parts, those that the views hide too."""
    found: set[str] = set()
    for (part,) in corpus.store.query("SELECT part FROM parts WHERE kind = 'texts'"):
        with corpus.store.storage.open("texts", part) as file:
            found |= set(file.read(["text"])["text"].to_pylist())
    return found


def problems(corpus: SmallCorpus) -> list[tuple[str, list[str]]]:
    return [(one.name, one.examples) for one in examine(corpus.store, corpus.config) if not one.ok]


DEMANDS = {
    "doc_id": (make_demand("doc_id", str(doc_id(TEXTS[1])).upper()), TEXTS[1]),
    "original_id": (make_demand("original_id", "w1"), TEXTS[1]),
    "url": (make_demand("url", "http://web/1"), TEXTS[1]),
    "sha256": (make_demand("sha256", sha256(TEXTS[1]).upper()), TEXTS[1]),
}


@pytest.mark.parametrize("kind", DEMANDS)
def test_a_demand_withdraws_the_text_wherever_it_occurs(corpus, kind):
    demand, text = DEMANDS[kind]
    taken = add_takedowns(corpus.store, [demand])
    assert (taken.added, taken.documents, taken.occurrences) == (1, 1, 2)
    assert documents(corpus) == in_live_parts(corpus) == set(TEXTS[:5]) - {text}
    assert corpus.store.query("SELECT doc_id, kind FROM withdrawn") == [(doc_id(text), kind)]
    assert problems(corpus) == []


def test_records_stay_occurrences_plus_quarantined_and_the_row_names_the_demand(tmp_path, backend):
    corpus = filled(tmp_path, backend)
    corpus.deliver()
    add_takedowns(corpus.store, [make_demand("url", "http://web/1", "asked by\nits author")])
    assert corpus.store.query("SELECT shard, records, occurrences, quarantined FROM shards ORDER BY shard") == [
        ("books/a.jsonl", 4, 3, 1),
        ("web/a.jsonl", 4, 2, 2),
    ]
    rows = corpus.store.query(
        "SELECT shard, row, detail, excerpt, records, original_id FROM quarantine"
        " WHERE reason = 'withdrawn' ORDER BY ALL"
    )
    said = "withdrawn by url http://web/1: asked by its author"
    assert rows == [("books/a.jsonl", 0, said, "", 1, "b0"), ("web/a.jsonl", 1, said, "", 1, "w1")]
    assert problems(corpus) == []


def stored_gradients(corpus: SmallCorpus) -> list[Path]:
    folder = corpus.home.gradients / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "index.json").write_text("{}")
    (folder / "rows-00000.bin").write_bytes(bytes(64))
    return sorted(corpus.home.gradients.rglob("*"))


def test_stored_gradients_go_with_the_texts_and_a_preview_keeps_them(corpus):
    before = stored_gradients(corpus)
    preview_takedowns(corpus.store, [DEMANDS["url"][0]])
    assert sorted(corpus.home.gradients.rglob("*")) == before
    add_takedowns(corpus.store, [DEMANDS["url"][0]])
    assert list(corpus.home.gradients.rglob("*")) == [] and not purge_is_due(corpus.store)


def test_the_purge_stays_due_until_the_gradients_could_be_removed(corpus, monkeypatch):
    stored_gradients(corpus)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("winnow.store.leftovers.shutil.rmtree", refuse)
        with pytest.raises(UserError, match=r"cannot be removed \(.*Permission denied\); delete this folder yourself"):
            add_takedowns(corpus.store, [DEMANDS["url"][0]])
    assert purge_is_due(corpus.store) and TEXTS[1] in in_live_parts(corpus)
    assert purge_withdrawn(corpus.store) > 0
    assert list(corpus.home.gradients.rglob("*")) == [] and TEXTS[1] not in in_live_parts(corpus)


def test_a_preview_tells_what_would_go_and_changes_nothing(corpus):
    demands = [demand for demand, _ in DEMANDS.values()]
    before = left(corpus)
    taken = preview_takedowns(corpus.store, demands)
    assert (taken.added, taken.documents, taken.occurrences) == (4, 1, 2)
    assert left(corpus) == before
    assert corpus.store.query("SELECT count(*) FROM takedowns") == [(0,)]


def test_a_demand_holds_for_texts_that_come_back_in_other_files(corpus):
    add_takedowns(corpus.store, [make_demand("url", "http://web/1")])
    corpus.remove("web/a.jsonl")
    corpus.deliver()
    corpus.write("news/a.jsonl", [{"text": TEXTS[1], "id": "elsewhere"}, {"text": TEXTS[5]}])
    corpus.deliver()
    assert documents(corpus) == in_live_parts(corpus) == {*TEXTS[2:5], TEXTS[5]}
    assert problems(corpus) == []


def test_a_document_that_is_withdrawn_loses_its_judgements_and_the_digest_follows(tmp_path):
    corpus = SmallCorpus(tmp_path / "one")
    corpus.write("web/a.jsonl", [{"text": text} for text in TEXTS])
    corpus.deliver()
    corpus.judge_signals()
    add_takedowns(corpus.store, [make_demand("doc_id", str(doc_id(TEXTS[0])))])
    corpus.judge_signals()
    without = SmallCorpus(tmp_path / "two")
    without.write("web/a.jsonl", [{"text": text} for text in TEXTS[1:]])
    without.deliver()
    without.judge_signals()
    assert corpus.by_document() == without.by_document()


demands = st.lists(
    st.sampled_from(
        [
            *(make_demand("url", f"http://web/{at}") for at in range(3)),
            *(make_demand("original_id", name) for name in ("w0", "w2", "b1", "b3", "nobody")),
            make_demand("doc_id", str(doc_id(TEXTS[2]))),
            make_demand("sha256", sha256(TEXTS[4])),
        ]
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


@settings(max_examples=3, derandomize=True, **QUIET)
@given(demands, st.permutations(["web", "books", "add"]))
def test_demand_and_files_give_the_same_tables_in_any_order(demands, order):
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        after, mixed = filled(Path(first)), filled(Path(second))
        after.deliver()
        add_takedowns(after.store, demands)
        waiting = {file.source: file for file in mixed.waiting().files}
        for step in order:
            if step == "add":
                add_takedowns(mixed.store, demands)
            else:
                mixed.deliver(type(mixed.waiting())((waiting[step],)))
        assert left(after) == left(mixed)
        assert documents(mixed) == in_live_parts(mixed)


def left(corpus: SmallCorpus) -> dict[str, Any]:
    found: dict[str, Any] = {table: corpus.rows(table) for table in (*CORPUS_TABLES, "texts")}
    return found | {"withdrawn": corpus.rows("withdrawn", "withdrawn_at"), "digest": corpus_digest(corpus.store)}


def test_lifting_a_demand_brings_the_documents_back_with_the_next_delivery(tmp_path):
    corpus, never = filled(tmp_path / "one"), filled(tmp_path / "two")
    for one in (corpus, never):
        one.deliver()
    add_takedowns(corpus.store, [make_demand("url", "http://web/1"), make_demand("original_id", "b1")])
    lifted = remove_takedowns(corpus.store, [make_demand("url", "http://web/1")])
    assert (lifted.documents, lifted.shards) == (1, ["books/a.jsonl", "web/a.jsonl"])
    assert problems(corpus) == []
    corpus.deliver()
    assert documents(corpus) == set(TEXTS[:5]) - {TEXTS[2]}
    remove_takedowns(corpus.store, [make_demand("original_id", "b1")])
    corpus.deliver()
    assert left(corpus) == left(never)
    assert corpus.rows("withdrawn") == corpus.rows("takedowns") == []


def test_a_document_that_another_demand_reaches_stays_withdrawn_and_says_so(corpus):
    url, name = make_demand("url", "http://web/1"), make_demand("original_id", "b0")
    add_takedowns(corpus.store, [url])
    add_takedowns(corpus.store, [name])
    assert remove_takedowns(corpus.store, [url]).documents == 0
    assert {detail for (detail,) in corpus.store.query("SELECT detail FROM quarantine WHERE doc_id IS NOT NULL")} == {
        "withdrawn by original_id b0"
    }
    assert TEXTS[1] not in documents(corpus)
    with pytest.raises(UserError, match="there is no takedown url http://web/1"):
        remove_takedowns(corpus.store, [name, url])
    assert [row["value"] for row in list_takedowns(corpus.store)] == ["b0"]


def manifest_of(corpus: SmallCorpus, version: str, texts: Sequence[str]) -> None:
    """List a manifest's rows as the store does."""
    ids = [doc_id(text) for text in texts]
    rows = pa.table({"version": [version] * len(ids), "order": range(len(ids)), "doc_id": pa.array(ids, pa.uuid())})
    parts = corpus.store.write_parts("manifest_rows", [rows])
    with corpus.store.write() as connection:
        add_parts(connection, parts)
        insert_row(connection, "manifests", version=version)


def test_the_manifests_that_contain_a_document_are_named(corpus):
    manifest_of(corpus, "v0001", TEXTS[:3])
    manifest_of(corpus, "v0002", [TEXTS[0]])
    demand = make_demand("url", "http://web/1", "asked")
    assert preview_takedowns(corpus.store, [demand]).manifests == {"v0001": 1}
    assert add_takedowns(corpus.store, [demand, make_demand("url", "http://web/0")]).manifests == {
        "v0001": 2,
        "v0002": 1,
    }
    found = {row["value"]: row for row in list_takedowns(corpus.store)}
    assert found["http://web/1"]["manifests"] == {"v0001": 1}
    assert (found["http://web/1"]["documents"], found["http://web/1"]["reason"]) == (1, "asked")
    with corpus.store.read("manifest_rows") as connection:
        told = explain_document(connection, str(doc_id(TEXTS[1])))
        assert told == explain_document(connection, "w1")
    assert [row["version"] for row in told["manifests"]] == ["v0001"]
    assert told["withdrawn"][0]["value"] == "http://web/1"
    assert [(row["shard"], row["row"], row["run_id"]) for row in told["occurrences"]] == [
        ("books/a.jsonl", 0, "run"),
        ("web/a.jsonl", 1, "run"),
    ]


def test_the_pool_of_the_next_selection_has_no_withdrawn_document(tmp_path):
    corpus = SmallCorpus(tmp_path, sets=[reference_items("nothing of it")], quality={"filter": False})
    corpus.write("web/a.jsonl", [{"text": text, "id": f"w{at}"} for at, text in enumerate(TEXTS)])
    corpus.deliver()
    add_takedowns(corpus.store, [make_demand("original_id", "w2")])
    corpus.write("web/b.jsonl", [{"text": TEXTS[2]}, {"text": "one more"}])
    corpus.deliver()
    corpus.judge()
    with corpus.store.write() as connection:
        ids = connection.execute("SELECT doc_id FROM documents").to_arrow_table()["doc_id"]
        count = len(ids)
        insert(connection, "clusters", pa.table({"doc_id": ids, "clustering": ["k"] * count, "cluster": [1] * count}))
        insert(connection, "token_counts", pa.table({"doc_id": ids, "tokenizer": ["t"] * count, "tokens": [1] * count}))
    pool = candidate_pool(corpus.store, corpus.config, "k", "t")
    assert set(pool.documents["doc_id"].to_pylist()) == {doc_id(text) for text in (*TEXTS, "one more")} - {
        doc_id(TEXTS[2])
    }


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("doc_id", "w1", "doc_id 'w1' is no UUID"),
        ("sha256", "abc", "is not 64 hexadecimal digits"),
        ("url", "  ", "the url is empty"),
        ("author", "x", "kind 'author' is none of doc_id"),
    ],
)
def test_a_bad_demand_is_one_sentence(kind, value, told):
    with pytest.raises(UserError, match=told):
        make_demand(kind, value)


def test_a_list_is_read_whole_or_refused_with_its_line(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('\ufeffkind,value,reason\nurl,"http://a,b",they asked\noriginal_id,7,\n', encoding="utf-8")
    assert read_demands(path) == [Demand("url", "http://a,b", "they asked"), Demand("original_id", "7")]
    for lines, told in (
        ("kind,what\n", "line 1: no column 'value'"),
        ("", "line 1: no column 'kind'"),
        ("kind,value\nurl,x\nurl,\n", "line 3: the url is empty"),
        ("kind,value\nurl,a,b\n", "line 2: more values than columns"),
        ('kind,value\nurl,"x\n', "unexpected end of data"),
        ("kind,value\n\ndoc_id,x\n", "line 3: doc_id 'x' is no UUID"),
    ):
        path.write_text(lines)
        with pytest.raises(UserError, match=told):
            read_demands(path)
    path.write_bytes(b"kind,value\nurl,\xff\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_demands(path)


def test_adding_again_changes_nothing(corpus):
    every = [demand for demand, _ in DEMANDS.values()]
    add_takedowns(corpus.store, every)
    before = left(corpus)
    assert add_takedowns(corpus.store, [*every, *every[:1]]).added == 0
    assert left(corpus) == before
