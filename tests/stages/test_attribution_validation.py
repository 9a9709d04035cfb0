"""What the validations of a checkpoint read from the store: one oracle, one part of the reference, the pool."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from attributed_home import TEXTS, TRAINED, attributed
from small_corpus import SmallCorpus

from winnow.home import Home
from winnow.identity import doc_id, doc_ids
from winnow.stages.attribution_validation import READ, validate_attribution
from winnow.stages.checkpoints import checkpoint_named, stored_checkpoint
from winnow.stages.estimates import gradient_method, oracle_method
from winnow.stages.training_run import run_without_documents
from winnow.stages.validation_ground import Ground
from winnow.store.published import open_published
from winnow.store.store import insert, insert_row, open_store


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    return attributed(tmp_path_factory.mktemp("validation") / "home")


@pytest.fixture
def corpus(home: SmallCorpus, tmp_path: Path) -> SmallCorpus:
    shutil.copytree(home.home.root, tmp_path / "home")
    copied = SmallCorpus(tmp_path / "home")
    copied.config = home.config
    return copied


def test_the_estimator_is_compared_with_the_configured_oracle_alone(corpus: SmallCorpus) -> None:
    store = open_store(corpus.home)
    checkpoint = stored_checkpoint(store, "trained")
    [(reference,)] = store.query("SELECT digest FROM reference_sets WHERE kind = 'reference'")
    mine, truth = gradient_method(corpus.config, checkpoint), oracle_method(corpus.config, checkpoint)
    values = np.arange(len(TRAINED), dtype=np.float64)
    kept = {
        mine: ("grad_dot", values), truth: ("oracle", 2 * values), "oracle/former": ("oracle", -values),
        "adam_dot/former": ("adam_dot", -values),
    }  # fmt: skip
    with store.write() as connection:
        for method, (estimator, influence) in kept.items():
            same = {"checkpoint": "trained", "reference": reference, "method": method, "estimator": estimator}
            columns = {name: pa.array([value] * len(TRAINED)) for name, value in same.items()}
            rows = pa.table({"doc_id": doc_ids(TRAINED), **columns, "influence": influence})
            insert(connection, "probes", rows)
    store.publish()
    with open_published(corpus.home, corpus.config.store) as connection:
        found = validate_attribution(connection, corpus.home, corpus.config, checkpoint="trained", checks=["one_step"])
    rows = found.records()
    assert {row["method"] for row in rows} == {mine}
    [row] = [row for row in rows if row["value"] == pytest.approx(1.0)]
    told = {"checkpoint": "trained", "reference": reference, "scope": "blocks", "damping": 0.1, "seed": 0}
    assert row["count"] == len(TRAINED) and told.items() <= row.items()
    assert (row["estimator"], row["projection"]) == ("grad_dot", 0)


def test_queries_are_selecting_items_and_unread_documents_are_of_the_pool(corpus: SmallCorpus) -> None:
    store = open_store(corpus.home)
    with store.write() as connection:
        [(digest,)] = connection.execute("SELECT digest FROM reference_sets WHERE kind = 'reference'").fetchall()
        insert_row(
            connection, "reference_items", digest=digest, item=9, part="judging",
            text="a judging item that nobody chooses by, of more tokens than any other item that there is",
        )  # fmt: skip
        for at in (0, 20):
            insert_row(connection, "contamination", doc_id=doc_id(TEXTS[at]), evaluation_set="exam", contaminated=True)
    store.publish()
    with open_published(corpus.home, corpus.config.store) as connection:
        stored = checkpoint_named(connection, corpus.home, "trained")
        ground = Ground(connection, corpus.home, corpus.config, stored, 32, ())
        asked = ground.queries.texts or []
        rows = connection.execute(READ, {"manifests": ["v0001"], "filter": False, "semantic": False}).fetchall()
    assert asked and not any("judging" in text for text in asked)
    times = {str(doc): count for doc, count in rows}
    assert times[str(doc_id(TEXTS[0]))] == 1  # read, whatever is said of it now
    assert str(doc_id(TEXTS[20])) not in times and times[str(doc_id(TEXTS[21]))] == 0


def test_the_encoder_is_looked_for_in_the_home_and_loaded_once(
    corpus: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(name: str, dtype: str, max_tokens: int) -> Any:
        loaded.append(name)
        return name

    monkeypatch.setattr("winnow.embed.encoder.load_encoder", load)
    monkeypatch.setattr("winnow.embed.encoder.encode", lambda encoder, texts: np.ones((len(texts), 2), np.float32))
    (corpus.home.root / "my-encoder").mkdir()
    encoder = corpus.config.encoder.model_copy(update={"name": "my-encoder"})
    config = corpus.config.model_copy(update={"encoder": encoder})
    with open_published(corpus.home, config.store) as connection:
        stored = checkpoint_named(connection, corpus.home, "trained")
        run = run_without_documents(connection, Home(corpus.home.root), config, stored, Ground(
            connection, corpus.home, config, stored, 32, ()
        ).loaded)  # fmt: skip
    assert run.encode is not None and loaded == []
    assert run.encode(["a", "b"]).shape == (2, 2) and len(run.encode(["c"])) == 1
    assert loaded == [str(corpus.home.root / "my-encoder")]
