"""A manifest is of the state that its transaction adds to, or it is not made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.errors import UserError
from winnow.mixture import manifest_files
from winnow.mixture.manifest_files import verify_manifest
from winnow.mixture.weights import plan_mixture
from winnow.selection import decide, random_control
from winnow.stages.checkpoints import StoredCheckpoint
from winnow.stages.clusters import Clustering
from winnow.stages.demands import make_demand
from winnow.stages.influence import influence_model_key
from winnow.stages.loop import Loop
from winnow.stages.pool import candidate_pool
from winnow.stages.publishing import Made, make_manifest, manifest_key
from winnow.stages.references import stored_reference
from winnow.stages.selection import Selected, selection_name
from winnow.stages.withdrawing import add_takedowns
from winnow.store import snapshots
from winnow.store.stage import Stage
from winnow.store.store import insert, insert_row, replace_owned

TEXTS = [f"the text number {number} of this corpus is about {word}" for number, word in enumerate("abcdef")]
BUDGET = 40


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    """Six judged documents of ten tokens each, all of them in one cluster, and an influence model below its floor."""
    config: dict[str, Any] = {"quality": {"filter": False}, "selection": {"budget_tokens": BUDGET}}
    corpus = SmallCorpus(tmp_path / "home", sets=[reference_items("nobody has this sentence")], **config)
    corpus.write("web/a.jsonl", [{"text": text} for text in TEXTS])
    corpus.deliver()
    corpus.judge()
    with corpus.store.write() as connection:
        ids = connection.execute("SELECT doc_id FROM documents").to_arrow_table()["doc_id"]
        count = len(ids)
        clusters = {"clustering": pa.array(["k"] * count), "cluster": pa.array([1] * count)}
        tokens = {"tokenizer": pa.array(["t"] * count), "tokens": pa.array([10] * count)}
        for table, columns in (("clusters", clusters), ("token_counts", tokens)):
            insert(connection, table, pa.table({"doc_id": ids, **columns}))
    key = influence_model_key(opened(corpus))
    with corpus.store.write() as connection:
        insert_row(connection, "stage_keys", stage="influence_models", partition="c", key=key, output="m")
    return corpus


def opened(corpus: SmallCorpus) -> Loop:
    store, config = corpus.store, corpus.config
    return Loop(
        config,
        StoredCheckpoint("c", corpus.home.checkpoints / "c", "w", "t"),
        stored_reference(store),
        Clustering("k", "encoder", np.zeros((2, 4), np.float32), ("", "")),
        candidate_pool(store, config, "k", "t"),
    )


def chosen(corpus: SmallCorpus) -> tuple[Selected, Stage]:
    """Select every candidate and decide so in the store, as the assets before the manifest do."""
    store, loop = corpus.store, opened(corpus)
    arms = loop.arms()
    ledger = pa.table({"round": [0], "cluster": [1], "tokens_granted": [BUDGET]})
    decisions = decide(arms, ledger, None, BUDGET, 0)
    control = random_control(arms.doc_ids, arms.tokens, BUDGET, 0)
    selected = Selected(loop, decisions, control, plan_mixture({"web": BUDGET}, BUDGET, "natural"), BUDGET, False)
    name = selection_name(store, loop)
    parts = store.write_parts("decisions", [selected.decision_rows(name)])
    with store.write() as connection:
        replace_owned(connection, "decisions", name, parts)
    return selected, Stage(store, "manifests", "run", manifest_key(store, loop), "c")


def made(corpus: SmallCorpus) -> Made:
    return make_manifest(corpus.store, *chosen(corpus))


def withdraw(corpus: SmallCorpus, doc: UUID) -> None:
    add_takedowns(corpus.store, [make_demand("doc_id", str(doc))])


def during_the_snapshot(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, after the first snapshot of the manifest is taken and before its transaction."""
    real, waiting = snapshots.take_snapshot, [act]

    def interrupted(*arguments: Any) -> Any:
        found = real(*arguments)
        if waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(snapshots, "take_snapshot", interrupted)


def manifests(corpus: SmallCorpus) -> tuple[list[str], list[str]]:
    """Return the versions that the store lists, and whatever lies in the folder."""
    listed = [version for (version,) in corpus.store.query("SELECT version FROM manifests ORDER BY version")]
    return listed, sorted(path.name for path in corpus.home.manifests.glob("*"))


def test_a_manifest_is_of_the_documents_that_were_chosen(corpus):
    found = made(corpus)
    assert manifests(corpus) == (["v0001"], ["v0001"])
    assert verify_manifest(found.folder).ok
    assert found.manifest.documents == 4
    assert found.manifest.funnel["web"]["kept"] == {"records": 4, "tokens": BUDGET}


@pytest.mark.parametrize("when", ["before the manifest", "during the snapshot"])
def test_a_takedown_after_the_choice_leaves_no_manifest_with_the_document(corpus, monkeypatch, when):
    selected, stage = chosen(corpus)
    doc = selected.manifest_rows()["doc_id"][0].as_py()
    if when == "before the manifest":
        withdraw(corpus, doc)
    else:
        during_the_snapshot(monkeypatch, lambda: withdraw(corpus, doc))
    with pytest.raises(UserError, match="the corpus changed while the manifest was made: run again"):
        make_manifest(corpus.store, selected, stage)
    assert manifests(corpus) == ([], [])
    assert corpus.store.query("SELECT count(*) FROM parts WHERE kind = 'manifest_rows'") == [(0,)]
    corpus.judge_duplicates()
    again = made(corpus)
    assert again.manifest.documents == 4
    assert doc not in again.manifest.rows["doc_id"].to_pylist()


def test_another_reference_after_the_choice_leaves_no_manifest(corpus, monkeypatch):
    path = corpus.home.resolve(corpus.config.reference.path or "reference.jsonl")
    corpus.config = corpus.config.model_copy(
        update={"reference": corpus.config.reference.model_copy(update={"path": str(path)})}
    )
    selected, stage = chosen(corpus)
    during_the_snapshot(monkeypatch, lambda: path.write_text("{}"))
    with pytest.raises(UserError, match="the reference or an evaluation set changed"):
        make_manifest(corpus.store, selected, stage)
    assert manifests(corpus) == ([], [])


def test_of_two_runs_that_make_one_version_the_second_is_refused(corpus, monkeypatch):
    selected, stage = chosen(corpus)
    during_the_snapshot(monkeypatch, lambda: made(corpus))
    with pytest.raises(UserError, match="another run made manifest v0001 meanwhile"):
        make_manifest(corpus.store, selected, stage)
    assert manifests(corpus) == (["v0001"], ["v0001"])
    assert corpus.store.query("SELECT count(*) FROM manifest_rows") == [(4,)]
    assert verify_manifest(corpus.home.manifests / "v0001").ok


def test_the_rows_are_written_while_others_can_write(corpus, monkeypatch):
    real, written = manifest_files.pq.write_table, []

    def slowly(*arguments: Any, **named: Any) -> None:
        with corpus.store.write() as connection:  # would wait for the manifest's own transaction
            insert_row(connection, "mixtures", mixture="of another")
        real(*arguments, **named)
        written.append(arguments[1].name)

    monkeypatch.setattr(corpus.store, "settings", corpus.store.settings.model_copy(update={"lock_wait_seconds": 1.0}))
    monkeypatch.setattr(manifest_files.pq, "write_table", slowly)
    made(corpus)
    assert written == ["rows.parquet"]
    assert manifests(corpus) == (["v0001"], ["v0001"])
