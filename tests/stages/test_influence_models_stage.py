"""Influence models of checkpoints that follow each other, on probes made up in the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_corpus import SmallCorpus, reference_items

from assets.checks import influence_model_fresh
from resources.workspace import Workspace
from winnow.errors import UserError
from winnow.stages.checkpoints import StoredCheckpoint
from winnow.stages.clusters import Clustering
from winnow.stages.estimates import gradient_method
from winnow.stages.influence import influence_model_key, opening_key, score_documents
from winnow.stages.influence_models import FittedModel, fit_model, former_model, freshness
from winnow.stages.loop import Loop
from winnow.stages.pool import candidate_pool
from winnow.stages.references import stored_reference
from winnow.store.judgements import mark_judged
from winnow.store.stage import Stage
from winnow.store.store import add_parts, insert, insert_row

COUNT = 80
WEIGHTS = np.random.default_rng(1).normal(size=6)


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    """Eighty judged documents with vectors, and the checkpoints a, b (from a), c (from b) and x (of nobody)."""
    corpus = SmallCorpus(tmp_path / "home", sets=[reference_items("nobody has this")], quality={"filter": False})
    corpus.write("web/a.jsonl", [{"text": f"the text number {number} of this corpus"} for number in range(COUNT)])
    corpus.deliver()
    corpus.judge()
    store = corpus.store
    ids = store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")["doc_id"]
    vectors = pa.array(np.random.default_rng(0).normal(size=(COUNT, 6)).tolist(), pa.list_(pa.float32()))
    embeddings = pa.table({"doc_id": ids, "model": ["encoder"] * COUNT, "vector": vectors})
    parts = store.write_parts("embeddings", [embeddings])
    with store.write() as connection:
        add_parts(connection, parts)
        clusters = {"clustering": pa.array(["k"] * COUNT), "cluster": pa.array([1] * COUNT)}
        tokens = {"tokenizer": pa.array(["t"] * COUNT), "tokens": pa.array([10] * COUNT)}
        for table, columns in (("clusters", clusters), ("token_counts", tokens)):
            insert(connection, table, pa.table({"doc_id": ids, **columns}))
        for sequence, (name, parent) in enumerate({"a": None, "x": None, "b": "a", "c": "b"}.items()):
            insert_row(connection, "checkpoints", checkpoint=name, parent=parent, sequence=sequence)
    return corpus


def opened(corpus: SmallCorpus, checkpoint: str, **influence: Any) -> Loop:
    config = corpus.config
    config = config.model_copy(update={"influence": config.influence.model_copy(update=influence)})
    return Loop(
        config,
        StoredCheckpoint(checkpoint, corpus.home.checkpoints / checkpoint, f"weights of {checkpoint}", "t"),
        stored_reference(corpus.store),
        Clustering("k", "encoder", np.zeros((2, 6), np.float32), ("", "")),
        candidate_pool(corpus.store, config, "k", "t"),
    )


def fit(corpus: SmallCorpus, loop: Loop, influence: Callable[[np.ndarray], np.ndarray]) -> FittedModel:
    """Probe every document at the loop's checkpoint and fit, as the assets do."""
    store, name = corpus.store, loop.checkpoint.name
    rows = store.arrow("SELECT doc_id, vector FROM embeddings ORDER BY doc_id")
    vectors = np.array(rows["vector"].to_pylist())
    told = {
        "checkpoint": name,
        "reference": loop.reference.digest,
        "method": gradient_method(loop.config, loop.checkpoint),
    }
    probes = pa.table({
        "doc_id": rows["doc_id"], **{column: pa.array([value] * COUNT) for column, value in told.items()},
        "influence": influence(vectors),
    })  # fmt: skip
    with store.write() as connection:
        connection.execute("DELETE FROM probes WHERE checkpoint = $name", {"name": name})
        insert(connection, "probes", probes)
        connection.execute("DELETE FROM judged WHERE version = $key", {"key": opening_key(loop)})
        mark_judged(connection, "probes", opening_key(loop), rows)
    stage = Stage(store, "influence_models", "run", influence_model_key(loop), name)
    fitted = fit_model(store, loop)
    with store.write() as connection:
        fitted.write(connection)
        stage.finish(connection, COUNT, output=fitted.name)
    return fitted


def linear(vectors: np.ndarray) -> np.ndarray:
    return vectors @ WEIGHTS + 0.1 * np.sin(9 * vectors[:, 0])


def fresh(corpus: SmallCorpus) -> Any:
    return influence_model_fresh(workspace=Workspace(home=str(corpus.home.root)))


def test_a_model_starts_from_that_of_the_checkpoint_before_and_says_how_that_one_fares(corpus):
    first = fit(corpus, opened(corpus, "a"), linear)
    assert first.former is None and first.stale is None and freshness(corpus.store) is None and fresh(corpus).passed
    assert former_model(corpus.store, opened(corpus, "x")) is None
    second = fit(corpus, opened(corpus, "b"), lambda vectors: 2 * linear(vectors) + 1)
    assert second.former == first.name and second.stale is False and second.model.warm
    assert "the former model reaches 0.9" in second.summary
    found = corpus.store.query(
        "SELECT surrogate, loss, probes, held_out, former, warm, stale, round(former_spearman, 1),"
        " former_low < former_high, interval > 0 FROM influence_models WHERE checkpoint = 'b'"
    )
    assert found == [("ridge", "squared", COUNT, COUNT, first.name, True, False, 1.0, True, True)]
    assert fresh(corpus).passed and fresh(corpus).metadata["former"].value == first.name


def test_an_influence_that_has_moved_on_raises_the_alarm(corpus):
    fit(corpus, opened(corpus, "a"), linear)
    moved = fit(corpus, opened(corpus, "b"), lambda vectors: vectors @ WEIGHTS[::-1] + vectors[:, 0] ** 3)
    assert moved.stale is True
    found = fresh(corpus)
    assert not found.passed and found.severity.value == "WARN" and "train shorter stages" in found.description
    [(kept,)] = corpus.store.query("SELECT former_own FROM influence_models WHERE checkpoint = 'b'")
    assert kept == moved.model.former.own > 0.5
    useless = fit(corpus, opened(corpus, "b", spearman_floor=0.999), lambda vectors: vectors @ WEIGHTS[::-1])
    assert not useless.used and useless.model.former is not None and useless.stale is None
    assert freshness(corpus.store) is None and fresh(corpus).passed
    patient = fit(corpus, opened(corpus, "b", stale_below=0.01), lambda vectors: 2 * linear(vectors))
    assert patient.stale is False and fresh(corpus).passed


def test_the_nearest_checkpoint_with_a_model_of_the_same_measure_is_the_former(corpus):
    first = fit(corpus, opened(corpus, "a"), linear)
    fit(corpus, opened(corpus, "x"), lambda vectors: 2 * linear(vectors))
    assert former_model(corpus.store, opened(corpus, "c")) == first.name
    assert former_model(corpus.store, opened(corpus, "c", damping=7.0)) is None
    cold = fit(corpus, opened(corpus, "c", warm_start=False), lambda vectors: 3 * linear(vectors))
    assert cold.former == first.name and cold.stale is False and not cold.model.warm
    (corpus.home.artifacts / f"influence-model-{first.name}.safetensors").write_bytes(b"of an older Winnow")
    alone = fit(corpus, opened(corpus, "c"), lambda vectors: 4 * linear(vectors))
    assert alone.stale is None and not alone.model.warm
    assert corpus.store.query("SELECT former FROM influence_models WHERE model = $name", {"name": alone.name}) == [
        (None,)
    ]


@pytest.mark.parametrize("surrogate", ["ridge", "grams", "trees", "mlp"])
def test_scores_are_predictions_with_the_spread_of_the_ensemble(corpus, surrogate):
    loop = opened(corpus, "a", surrogate=surrogate)
    fitted = fit(corpus, loop, linear)
    documents = corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")
    whole, cut = (score_documents(corpus.store, loop, documents, rows=rows) for rows in (50_000, 7))
    assert whole.equals(cut) and whole["version"].unique().to_pylist() == [fitted.name]
    assert (whole["spread"].to_numpy() > 0).all() and fitted.model.surrogate == surrogate
    assert np.corrcoef(whole["score"].to_numpy(), linear(np.array(
        corpus.store.arrow("SELECT vector FROM embeddings ORDER BY doc_id")["vector"].to_pylist()
    )))[0, 1] > 0.9  # fmt: skip


def test_a_loss_that_a_surrogate_does_not_have_is_refused(corpus):
    with pytest.raises(UserError, match="'ridge' has no loss 'lambda'; use one of squared"):
        fit(corpus, opened(corpus, "a", surrogate_loss="lambda"), linear)
    assert influence_model_key(opened(corpus, "a", warm_start=False)) != influence_model_key(opened(corpus, "a"))
