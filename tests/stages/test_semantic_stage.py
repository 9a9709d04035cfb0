"""Semantic duplicates in the store: what is compared, recorded and removed, and when the stage is done again."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_corpus import SmallCorpus

from winnow.errors import UserError
from winnow.identity import doc_id, ids_from_bytes
from winnow.stages.manifests import FUNNEL
from winnow.stages.pool import admissible, candidate_pool
from winnow.stages.semantic import (
    drop_semantic,
    example_pairs,
    find_semantic,
    require_semantic,
    semantic_key,
)
from winnow.store.stage import Stage
from winnow.store.store import add_parts, insert

MODEL = "encoder"
CODE = {"semantic": {"variant": "code"}}
FILTER = {"semantic": {"filter": True}}


def prose(seed: int, words: int = 60) -> str:
    """Return text that passes Gopher's rules and shares nothing with other seeds."""
    draw = random.Random(seed)
    syllables = ["ba", "do", "ki", "lu", "me", "no", "pra", "ri", "su", "ta", "ve", "zo"]
    made = ["".join(draw.choices(syllables, k=3)) for _ in range(words)]
    for at in range(0, words, 7):
        made[at] = ["the", "of", "and", "to", "with"][at // 7 % 5]
    return " ".join(made)


TEXTS = [prose(seed) for seed in range(8)]
NEAR = TEXTS[1] + " lastly"  # as it is longer, it is what stands for the two
ALIKE, PAIR = [NEAR, *TEXTS[2:4]], TEXTS[4:6]
REMAINING = [NEAR, TEXTS[0], *TEXTS[2:]]


EVERY = [*TEXTS, NEAR, TEXTS[2]]  # one text occurs twice


def vector_of(angle: float) -> list[float]:
    return [float(np.cos(angle)), float(np.sin(angle)), 0.0]


# Texts 1, 2, 3 and what nearly equals 1 point almost the same way, 4 and 5 too; the rest stand apart.
ANGLES = dict(zip(TEXTS, [0.0, 1.0, 1.05, 1.1, 2.0, 2.02, 3.0, 4.0], strict=True)) | {NEAR: 1.0}


class SemanticCorpus(SmallCorpus):
    """A small corpus whose vectors are given, not encoded."""

    def embed(self) -> None:
        documents = self.store.query("SELECT doc_id FROM documents ANTI JOIN embeddings USING (doc_id) ORDER BY doc_id")
        angles = {doc_id(text): angle for text, angle in ANGLES.items()}
        vectors = [vector_of(angles[doc]) for (doc,) in documents]
        rows = pa.table(
            {
                "doc_id": ids_from_bytes(b"".join(doc.bytes for (doc,) in documents)),
                "model": pa.array([MODEL] * len(documents), pa.string()),
                "vector": pa.array(vectors, pa.list_(pa.float32())),
            }
        )
        parts = self.store.write_parts("embeddings", [rows])
        with self.store.write() as connection:
            add_parts(connection, parts)

    def take_in(self) -> None:
        self.deliver()
        self.judge_duplicates()
        self.embed()

    def configure(self, **sections: Any) -> None:
        self.config = self.config.model_validate(self.config.model_dump() | sections)

    def stage(self) -> Stage:
        return Stage(self.store, "semantic_duplicates", "run", semantic_key(self.store, self.config, MODEL))

    def compare(self) -> Any:
        """Run the stage unless it is done; return what it found."""
        stage = self.stage()
        return find_semantic(self.store, self.config, MODEL, stage) if stage.done is None else None

    def semantic(self) -> dict[str, tuple[str, int, int]]:
        """Return text -> (text of the keeper, group size, occurrences)."""
        names = {doc_id(text): text for text in ANGLES}
        rows = self.store.query(
            "SELECT doc_id, keeper_id, group_size, occurrences FROM duplicates WHERE kind = 'semantic'"
        )
        return {names[doc]: (names[keeper], size, records) for doc, keeper, size, records in rows}

    def pool(self) -> dict[str, tuple[str | None, str | None, str | None]]:
        """Return text -> (reason, detail, text of the matched document)."""
        names = {doc_id(text): text for text in ANGLES}
        documents = candidate_pool(self.store, self.config, "k", "t").documents.to_pylist()
        return {
            names[row["doc_id"]]: (row["reason"], row["detail"], names.get(row["matched_doc"])) for row in documents
        }


def delivered(root: Path, texts: list[str], **config: Any) -> SemanticCorpus:
    corpus = SemanticCorpus(root / "home", **config)
    corpus.write("web/a.jsonl", [{"text": text} for text in texts])
    corpus.take_in()
    corpus.judge_signals()
    with corpus.store.write() as connection:
        documents = connection.execute("SELECT doc_id FROM documents").to_arrow_table()
        count = len(documents)
        for table, columns in (
            ("clusters", {"clustering": pa.array(["k"] * count), "cluster": pa.array([1] * count)}),
            ("token_counts", {"tokenizer": pa.array(["t"] * count), "tokens": pa.array([100] * count)}),
        ):
            insert(connection, table, pa.table({"doc_id": documents["doc_id"], **columns}))
    return corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all texts judged and embedded; to be copied, as a home can be moved."""
    return delivered(tmp_path_factory.mktemp("texts"), EVERY).home.root


@pytest.fixture
def corpus(home: Path, tmp_path: Path) -> SemanticCorpus:
    return SemanticCorpus(shutil.copytree(home, tmp_path / "home"))


def test_each_group_is_recorded_with_its_keeper_and_the_sizes_that_are_true(corpus: SemanticCorpus) -> None:
    found = corpus.compare()
    semantic = corpus.semantic()
    assert set(semantic) == {*ALIKE, *PAIR}
    assert found.groups == 2
    assert len({semantic[text][0] for text in ALIKE}) == 1
    # Five records: a near duplicate stands behind one of the three documents, a copy behind another.
    assert {semantic[text][1:] for text in ALIKE} == {(3, 5)}
    assert {semantic[text][1:] for text in PAIR} == {(2, 2)}
    rows = corpus.store.query("SELECT DISTINCT version, component FROM duplicates WHERE kind = 'semantic'")
    assert {component for _, component in rows} == {min(map(doc_id, group)) for group in (ALIKE, PAIR)}
    assert {version for version, _ in rows} == {corpus.stage().done}


def test_only_what_near_duplicates_leave_is_compared(corpus: SemanticCorpus) -> None:
    corpus.compare()
    compared = {doc for (doc,) in corpus.store.query("SELECT doc_id FROM semantic_duplicates")}
    assert compared == {doc_id(text) for text in REMAINING}


def test_near_and_exact_rows_stay_as_they_are_and_so_do_semantic_ones_when_those_are_made_anew(
    corpus: SemanticCorpus,
) -> None:
    others = "SELECT * FROM duplicates WHERE kind <> 'semantic' ORDER BY ALL"
    before = corpus.store.query(others)
    corpus.compare()
    assert corpus.store.query(others) == before
    semantic = corpus.semantic()
    with corpus.store.write() as connection:
        connection.execute("DELETE FROM stage_keys WHERE stage = 'duplicates'")
    corpus.judge_duplicates()
    assert corpus.store.query(others) == before
    assert corpus.semantic() == semantic
    assert corpus.compare() is None


def test_every_compared_document_says_what_any_epsilon_would_do_to_it(corpus: SemanticCorpus) -> None:
    corpus.configure(**CODE)
    found = corpus.compare().duplicates
    for epsilon in (0.0005, 0.01, 0.3):
        removed = corpus.store.query(
            "SELECT count(*) FROM semantic_duplicates WHERE similarity > 1 - $epsilon", {"epsilon": epsilon}
        )
        assert removed == [(len(found.rethreshold(epsilon).removed),)]
    first = corpus.store.query("SELECT count(*) FROM semantic_duplicates WHERE nearest IS NULL AND similarity IS NULL")
    assert first == [(found.clusters.count,)]
    sweep = corpus.store.query("SELECT variant, epsilon, documents, kept, kept_share FROM semantic_sweep ORDER BY ALL")
    assert sweep == sorted(tuple(row.values()) for row in found.sweep().to_pylist())


def test_the_stage_is_done_until_documents_settings_or_encoder_change(corpus: SemanticCorpus) -> None:
    corpus.compare()
    assert corpus.compare() is None
    corpus.configure(semantic={"filter": True})
    assert corpus.stage().done
    corpus.configure(semantic={"epsilon": 0.0003})
    assert corpus.compare() is not None
    assert set(corpus.semantic()) == set(PAIR)
    corpus.configure(semantic={})
    assert corpus.compare() is not None  # the table holds one state: an earlier one is not there any more
    assert (
        Stage(corpus.store, "semantic_duplicates", "run", semantic_key(corpus.store, corpus.config, "another")).done
        is None
    )


def test_a_document_that_goes_takes_its_rows_along_and_the_rest_is_compared_anew(corpus: SemanticCorpus) -> None:
    corpus.compare()
    keeper = corpus.semantic()[PAIR[0]][0]
    corpus.write("web/a.jsonl", [{"text": text} for text in EVERY if text != keeper])
    corpus.deliver()
    assert keeper not in corpus.semantic()
    assert (doc_id(keeper),) not in corpus.store.query("SELECT doc_id FROM semantic_duplicates")
    with pytest.raises(UserError, match="near duplicates are not grouped"):
        corpus.stage()
    corpus.take_in()
    corpus.compare()
    assert set(corpus.semantic()) == set(ALIKE)


def test_two_deliveries_end_where_one_does(corpus: SemanticCorpus, tmp_path: Path) -> None:
    corpus.compare()
    two = delivered(tmp_path / "two", [NEAR, *TEXTS[5:]])
    two.compare()
    two.write("web/b.jsonl", [{"text": text} for text in reversed([*TEXTS[:5], TEXTS[2]])])
    two.take_in()
    two.compare()
    for table in ("duplicates", "semantic_duplicates", "semantic_sweep"):
        assert corpus.rows(table) == two.rows(table), table


def test_recorded_only_unless_asked_and_then_the_verdict_names_the_keeper(corpus: SemanticCorpus) -> None:
    corpus.compare()
    assert {row[0] for row in corpus.pool().values()} == {None, "near_duplicate"}
    corpus.configure(**FILTER)
    pool, semantic = corpus.pool(), corpus.semantic()
    removed = {text for text, (keeper, *_) in semantic.items() if keeper != text}
    assert {text for text, (reason, *_) in pool.items() if reason == "semantic_duplicate"} == removed
    assert len(removed) == 3
    for text in removed:
        _, detail, matched = pool[text]
        assert detail is not None and re.fullmatch(r"cosine (0\.99\d|1\.000) with the keeper", detail)
        assert matched == semantic[text][0]
    corpus.configure(semantic={"filter": True, "enabled": False})
    assert {row[0] for row in corpus.pool().values()} == {None, "near_duplicate"}


def test_what_tokenizer_and_warm_up_see_does_not_depend_on_semantic_duplicates(corpus: SemanticCorpus) -> None:
    corpus.configure(**FILTER)
    before = admissible(corpus.store, corpus.config)
    corpus.compare()
    assert admissible(corpus.store, corpus.config) == before
    assert len(before) == len(REMAINING)


def test_what_is_to_decide_must_be_of_the_present_state(corpus: SemanticCorpus) -> None:
    require_semantic(corpus.store, corpus.config, MODEL)  # it only records: nothing is required
    corpus.configure(**FILTER)
    with pytest.raises(UserError, match="materialize `semantic_duplicates`"):
        require_semantic(corpus.store, corpus.config, MODEL)
    corpus.compare()
    require_semantic(corpus.store, corpus.config, MODEL)
    corpus.configure(semantic={"filter": True, "epsilon": 0.01})
    with pytest.raises(UserError, match="present documents and configuration"):
        require_semantic(corpus.store, corpus.config, MODEL)


def test_prototypes_are_dropped_with_a_reason_of_their_own(corpus: SemanticCorpus) -> None:
    corpus.configure(semantic={"filter": True, "prototypes_kept": 0.6})
    found = corpus.compare()
    assert len(found.prototypes) == 2  # of five that are kept, ceil(0.6 * 5) = 3 are left
    dropped = {text: row for text, row in corpus.pool().items() if row[0] == "semantic_prototype"}
    assert len(dropped) == 2
    assert all(detail and detail.startswith("distance 0.") and not matched for _, detail, matched in dropped.values())
    rows = corpus.store.query("SELECT doc_id, prototype, prototype_distance FROM semantic_duplicates")
    assert {doc for doc, prototype, _ in rows if prototype} == {doc_id(text) for text in dropped}
    assert sum(distance is None for *_, distance in rows) == 3


def test_the_funnel_counts_every_record(corpus: SemanticCorpus) -> None:
    corpus.configure(**FILTER)
    corpus.compare()
    rows = candidate_pool(corpus.store, corpus.config, "k", "t").documents
    decisions = pa.table(
        {
            "selection": pa.array(["s"] * len(rows)),
            "doc_id": rows["doc_id"],
            "verdict": pa.array(["rejected" if stage else "selected" for stage in rows["stage"].to_pylist()]),
            "reason": rows["reason"],
        }
    )
    parts = corpus.store.write_parts("decisions", [decisions])
    with corpus.store.write() as connection:
        add_parts(connection, parts)
    with corpus.store.read("decisions") as connection:
        counted = connection.execute(FUNNEL, {"selection": "s", "tokenizer": "t"}).fetchall()
    assert {outcome: records for _, outcome, records, _ in counted} == {
        "kept": 5,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "semantic_duplicate": 3,
    }


def test_switched_off_it_leaves_nothing_behind(corpus: SemanticCorpus) -> None:
    corpus.compare()
    near = corpus.store.query("SELECT count(*) FROM duplicates WHERE kind = 'near'")
    assert drop_semantic(corpus.store)
    assert not drop_semantic(corpus.store)
    for query in ("duplicates WHERE kind = 'semantic'", "semantic_duplicates", "semantic_sweep"):
        assert corpus.store.query(f"SELECT count(*) FROM {query}") == [(0,)]
    assert corpus.store.query("SELECT count(*) FROM duplicates WHERE kind = 'near'") == near
    assert corpus.stage().done is None


def test_a_preferred_source_keeps_its_document(corpus: SemanticCorpus) -> None:
    corpus.compare()
    other = next(text for text in PAIR if corpus.semantic()[text][0] != text)
    corpus.configure(corpus={"sources": {"books": {"priority": -1}}})
    corpus.write("books/b.jsonl", [{"text": other}])
    corpus.take_in()
    corpus.compare()
    assert {corpus.semantic()[text] for text in PAIR} == {(other, 2, 3)}


def test_examples_show_both_texts_of_a_pair(corpus: SemanticCorpus) -> None:
    found = corpus.compare()
    shown = example_pairs(corpus.store, found)
    assert [row["same"] for row in shown] == [True] * 3 + [False] * 3
    for row in shown:
        assert {row["document"], row["most similar before it"]} <= {text[:200] for text in ANGLES}
        assert (row["cosine"] > 0.95) == row["same"]


def test_an_empty_store_has_none_and_missing_vectors_are_told(corpus: SemanticCorpus, tmp_path: Path) -> None:
    empty = SemanticCorpus(tmp_path / "empty")
    empty.judge_duplicates()
    assert len(empty.compare().ids) == 0
    assert empty.store.query("SELECT DISTINCT documents, kept_share FROM semantic_sweep") == [(0, 1.0)]
    with pytest.raises(LookupError, match="8 of 8 documents have no vector"):
        find_semantic(corpus.store, corpus.config, "another", corpus.stage())
