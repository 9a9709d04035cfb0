"""The membership tables: read once a checkpoint, set and method; where items were found follows the corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.contamination.membership import LOOKS_SEEN, read_texts, statistics
from winnow.errors import UserError
from winnow.stages.membership import (
    measure_membership,
    membership_card,
    membership_due,
    write_membership,
)
from winnow.stages.references import write_sets
from winnow.stages.training import register
from winnow.store.stage import Stage
from winnow.store.store import add_parts
from winnow.train.checkpoint import load_checkpoint, save_checkpoint
from winnow.train.model import ModelConfig, build_model
from winnow.train.tokenizer import save_tokenizer, tokenise, train_tokenizer

CHECKPOINT = "step-1"


def item(name: str) -> str:
    """Return an item of fourteen words that no other shares."""
    return " ".join(f"{name}x{position}" for position in range(14))


REFERENCE = [item(f"reference{number}") for number in range(6)]
QUIZ = [item(f"quiz{number}") for number in range(12)]
LEAKED = (1, 3, 4, 7, 8, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny model."""
    from winnow.train.tokenizer import load_tokenizer

    root = tmp_path_factory.mktemp("model")
    save_tokenizer(train_tokenizer([*REFERENCE, *QUIZ], 300), root / "tokenizer")
    sizes = ModelConfig(vocab=300, hidden=16, layers=1, heads=2, intermediate=24, context=32)
    save_checkpoint(root / "checkpoint", build_model(sizes, 0), load_tokenizer(root / "tokenizer"), None, {"step": 1})
    return root / "checkpoint"


def small_world(root: Path, folder: Path, backend: str = "file", **settings: int) -> SmallCorpus:
    sets = [reference_items(*REFERENCE), reference_items(*QUIZ, name="quiz", kind="evaluation")]
    corpus = SmallCorpus(root, backend, sets=sets, membership=settings, quality={"filter": False})
    corpus.write("web/a.jsonl", [{"text": f"Some page begins and says {QUIZ[place]} and ends"} for place in LEAKED])
    corpus.write("web/b.jsonl", [{"text": f"A page that says nothing of interest, number {n}"} for n in range(3)])
    corpus.deliver()
    corpus.judge_contamination()
    register(corpus.store, CHECKPOINT, folder, Stage(corpus.store, "checkpoints", "run"))
    return corpus


def run(corpus: SmallCorpus, checkpoint: str = CHECKPOINT) -> int | None:
    """Do what the asset does; return the items that were read, None where nothing was due."""
    due = membership_due(corpus.store, corpus.config, checkpoint)
    if due.skipped:
        return None
    measured = measure_membership(corpus.store, corpus.config, due)
    with corpus.store.write() as connection:
        write_membership(connection, measured)
    return measured.items


def rows(corpus: SmallCorpus, columns: str, **where: str) -> list[tuple]:
    asked = " AND ".join(f"{name} = ${name}" for name in where) or "true"
    return corpus.store.query(f"SELECT {columns} FROM membership WHERE {asked} ORDER BY ALL", where)


def test_every_item_gets_the_statistics_of_its_own_reading_and_is_read_once(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    assert run(corpus) == len(REFERENCE) + len(QUIZ)
    loaded = load_checkpoint(folder)
    tokens = tokenise(loaded.tokenizer, QUIZ)
    expected = []
    for place, reading in enumerate(read_texts(loaded.model, tokens, 32)):
        cut = len(tokens[place]) > 32
        text = loaded.tokenizer.decode(tokens[place][:32].tolist()) if cut else QUIZ[place]
        found = statistics(reading, text, 20, 5, 5)
        expected.append((place, min(32, len(tokens[place])), float(np.exp(found["loss"])), *found.values()))
    assert any(len(one) > 32 for one in tokens), "the test needs an item that is longer than the context"
    stored = rows(corpus, f"item, tokens, perplexity, {', '.join(LOOKS_SEEN)}", evaluation_set="quiz")
    assert stored == expected
    before = corpus.rows("membership"), corpus.rows("membership_sets")
    assert run(corpus) is None
    assert membership_due(corpus.store, corpus.config, CHECKPOINT).skipped == "every set was read by this checkpoint"
    assert (corpus.rows("membership"), corpus.rows("membership_sets")) == before


def test_items_that_documents_hold_are_marked_and_set_apart_from_the_others(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    run(corpus)
    held = rows(corpus, "item, in_corpus, in_training", evaluation_set="quiz")
    assert held == [(place, place in LEAKED, None) for place in range(12)]
    assert {flag for (flag,) in rows(corpus, "in_corpus", evaluation_set="reference")} == {False}
    compared = corpus.store.query(
        "SELECT statistic, found_items, other_items, difference, low, high, auc FROM membership_sets"
        " WHERE evaluation_set = 'quiz' AND found_in = 'corpus'"
    )
    assert {name for name, *_ in compared} == set(LOOKS_SEEN)
    losses = np.array([loss for _, loss in rows(corpus, "item, loss", evaluation_set="quiz")])
    inside = np.isin(np.arange(12), LEAKED)
    [(_, found, others, difference, low, high, auc)] = [one for one in compared if one[0] == "loss"]
    assert (found, others) == (6, 6) and low < difference < high and 0 <= auc <= 1
    assert difference == pytest.approx(losses[inside].mean() - losses[~inside].mean())
    alone = corpus.store.query(
        "SELECT found_items, other_items, found_mean, difference, auc FROM membership_sets"
        " WHERE evaluation_set = 'reference' AND statistic = 'loss'"
    )
    assert alone == [(0, 6, None, None, None)]
    card = {row["evaluation_set"]: row for row in membership_card(corpus.store, CHECKPOINT)}
    assert (card["quiz"]["items"], card["quiz"]["in_corpus"]) == (12, 6)
    assert card["reference"]["min_k_auc"] is None


def test_what_was_compared_by_other_settings_says_nothing_of_where_items_are(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    run(corpus)
    settings = {"contamination": {"threshold": 0.9, "min_words": 12}}
    for compared in (False, True):
        corpus.config = corpus.config.model_validate(corpus.config.model_dump() | settings)
        if compared:
            corpus.judge_contamination()
        assert run(corpus) == 0
        held = {place for place, flag in rows(corpus, "item, in_corpus", evaluation_set="quiz") if flag}
        assert held == (set(LEAKED) if compared else set())


def test_a_changed_corpus_changes_where_items_are_found_without_reading_them_again(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    run(corpus)
    measured = rows(corpus, "evaluation_set, item, loss, min_k, zlib_ratio")
    corpus.write("web/c.jsonl", [{"text": f"And now a page repeats {QUIZ[0]} as well"}])
    corpus.deliver()
    corpus.judge_contamination()
    assert run(corpus) == 0
    assert rows(corpus, "evaluation_set, item, loss, min_k, zlib_ratio") == measured
    assert rows(corpus, "item, in_corpus", evaluation_set="quiz")[:3] == [(0, True), (1, True), (2, False)]
    assert corpus.store.query(
        "SELECT DISTINCT found_items FROM membership_sets WHERE evaluation_set = 'quiz' AND found_in = 'corpus'"
    ) == [(7,)]


def test_items_in_the_manifests_that_a_checkpoint_descends_from_are_marked(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    leaking = "SELECT doc_id FROM contamination_items WHERE evaluation_set = 'quiz' AND item IN (3, 7)"
    trained = corpus.store.arrow(leaking)
    lines = trained.append_column("version", pa.array(["v0001"] * len(trained)))
    parts = corpus.store.write_parts("manifest_rows", [lines.append_column("order", pa.array(range(len(trained))))])
    with corpus.store.write() as connection:
        add_parts(connection, parts)
        connection.execute("UPDATE checkpoints SET manifest = 'v0001'")
        connection.execute(
            "INSERT INTO checkpoints BY NAME SELECT * REPLACE ('step-2' AS checkpoint, NULL AS manifest,"
            " 'step-1' AS parent) FROM checkpoints"
        )
    for checkpoint in (CHECKPOINT, "step-2"):
        run(corpus, checkpoint)
        marked = rows(corpus, "item, in_training", evaluation_set="quiz", checkpoint=checkpoint)
        assert [place for place, flag in marked if flag] == [3, 7] and all(flag is not None for _, flag in marked)
    places = "SELECT DISTINCT found_in, found_items FROM membership_sets WHERE evaluation_set = 'quiz' ORDER BY ALL"
    assert corpus.store.query(places) == [("corpus", 6), ("training", 2)]


def test_a_budget_reads_the_same_part_of_the_items_whatever_their_order(tmp_path, folder):
    texts = {}
    for name, order in (("as-given", 1), ("reversed", -1)):
        corpus = small_world(tmp_path / name, folder, tokens=200)
        with corpus.store.write() as connection:
            quiz = reference_items(*QUIZ[::order], name="quiz", kind="evaluation")
            write_sets(connection, [reference_items(*REFERENCE), quiz])
        run(corpus)
        texts[name] = corpus.store.query(
            "SELECT text, loss FROM membership JOIN reference_items USING (digest, item)"
            " WHERE evaluation_set = 'quiz' ORDER BY text"
        )
        assert sum(tokens for (tokens,) in rows(corpus, "tokens", evaluation_set="quiz")) <= 200
    assert texts["as-given"] == texts["reversed"] and 0 < len(texts["reversed"]) < 12


def test_another_set_or_setting_is_read_anew_and_what_is_gone_goes(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    run(corpus)
    with corpus.store.write() as connection:
        quiz = reference_items(*QUIZ[:5], name="quiz", kind="evaluation")
        write_sets(connection, [reference_items(*REFERENCE), quiz])
    assert run(corpus) == 5
    assert rows(corpus, "count(*)", evaluation_set="quiz") == [(5,)]
    with corpus.store.write() as connection:
        write_sets(connection, [reference_items(*REFERENCE)])
    assert run(corpus) == 0 and run(corpus) is None
    assert corpus.store.query("SELECT DISTINCT evaluation_set FROM membership_sets") == [("reference",)]
    before = rows(corpus, "min_k", evaluation_set="reference")
    other = corpus.config.membership.model_copy(update={"min_k": 50.0})
    corpus.config = corpus.config.model_copy(update={"membership": other})
    assert run(corpus) == len(REFERENCE)
    assert rows(corpus, "min_k", evaluation_set="reference") != before


@pytest.mark.slow
def test_a_lake_gets_the_rows_of_a_file(tmp_path, folder, lake):
    worlds = [small_world(tmp_path / backend, folder, backend) for backend in ("file", lake)]
    for corpus in worlds:
        run(corpus)
        assert run(corpus) is None
    for table in ("membership", "membership_sets"):
        one, other = (corpus.rows(table) for corpus in worlds)
        assert one == other and one


def test_without_a_budget_nothing_is_read_and_it_says_so(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder, tokens=0)
    assert membership_due(corpus.store, corpus.config, CHECKPOINT).skipped == "membership.tokens is 0"


def test_a_checkpoint_whose_weights_changed_is_refused(tmp_path, folder):
    corpus = small_world(tmp_path / "home", folder)
    with corpus.store.write() as connection:
        connection.execute("UPDATE checkpoints SET weights_digest = 'another'")
    with pytest.raises(UserError, match="changed after it was registered"):
        run(corpus)
