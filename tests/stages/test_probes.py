"""Measurements of influence say how they were made, and are refused where they would mean nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from attributed_home import TRAINED, attributed
from safetensors.torch import load_file, save_file
from small_corpus import SmallCorpus

from winnow.attribution.adamw import AdamW
from winnow.errors import UserError
from winnow.identity import doc_ids, ids_from_numpy, ids_to_numpy
from winnow.stages.checkpoints import require_unchanged, stored_checkpoint
from winnow.stages.estimates import gradient_measure, gradient_method, load_for_attribution, oracle_method
from winnow.stages.pool import Pool
from winnow.stages.probes import Prober
from winnow.stages.references import StoredSet, stored_reference
from winnow.stages.training import register
from winnow.stages.training_run import run_without_documents
from winnow.store.stage import Stage
from winnow.store.store import open_store
from winnow.train.tokenizer import tokenise
from winnow.train.weights import weights_digests

IDS = ids_to_numpy(doc_ids(TRAINED))
IDS = IDS[np.lexsort(tuple(IDS[:, column] for column in range(15, -1, -1)))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    return attributed(tmp_path_factory.mktemp("probes") / "home")


@pytest.fixture
def corpus(home: SmallCorpus, tmp_path: Path) -> SmallCorpus:
    shutil.copytree(home.home.root, tmp_path / "home")
    copied = SmallCorpus(tmp_path / "home")
    copied.config = home.config
    return copied


def prober(corpus: SmallCorpus, reference: StoredSet | None = None) -> Prober:
    store = open_store(corpus.home)
    documents = pa.table({"doc_id": ids_from_numpy(IDS)})
    checkpoint = stored_checkpoint(store, "trained")
    return Prober(store, corpus.config, checkpoint, reference or stored_reference(store), Pool(documents, documents))


def change_weights(corpus: SmallCorpus, change) -> None:
    path = corpus.home.checkpoints / "trained/model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})
    store = open_store(corpus.home)
    register(store, "trained", path.parent, Stage(store, "checkpoints", "again"))


def test_every_row_says_how_it_was_measured(corpus: SmallCorpus) -> None:
    one = prober(corpus)
    one.gradient(IDS[:3], "opening")
    one.oracle(IDS[:1])
    with one.store.write() as connection:
        assert one.write(connection) == 4
    rows = one.store.query(
        "SELECT DISTINCT checkpoint, reference = $digest, estimator, scope, projection, damping, phase FROM probes"
        " ORDER BY phase",
        {"digest": one.reference.digest},
    )
    assert rows == [
        ("trained", True, "grad_dot", "blocks", 0, 0.1, "opening"),
        ("trained", True, "oracle", "all", 0, None, "oracle"),
    ]


def test_what_reads_the_optimizers_state_is_measured_anew_with_another_state(corpus: SmallCorpus) -> None:
    checkpoint = stored_checkpoint(open_store(corpus.home), "trained")
    path, names, directions = checkpoint.path / "optimizer.safetensors", [], set()
    for change in (lambda: None, lambda: path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1"), path.unlink):
        change()
        for estimator in ("grad_dot", "adam_dot"):
            influence = corpus.config.influence.model_copy(update={"estimator": estimator})
            config = corpus.config.model_copy(update={"influence": influence})
            names.append((gradient_method(config, checkpoint), oracle_method(config, checkpoint)))
            corpus.config = config
            directions.add(prober(corpus)._saved)
    plain, adam = names[::2], names[1::2]
    assert len({gradient for gradient, _ in plain}) == 1 and len({gradient for gradient, _ in adam}) == 3
    assert all(gradient.startswith(gradient_measure(corpus.config) + "/") for gradient, _ in adam)
    assert len({oracle for _, oracle in names}) == 3 and len(directions) == 4


def test_the_rate_that_the_checkpoint_recorded_is_the_oracles_and_the_runs(corpus: SmallCorpus) -> None:
    checkpoint, path = stored_checkpoint(corpus.store, "trained"), corpus.home.checkpoints / "trained/winnow.json"
    told, unrecorded = json.loads(path.read_text()), oracle_method(corpus.config, checkpoint)
    rate = corpus.config.train.learning_rate
    for record, same in (({"learning_rate": rate}, True), ({"learning_rate": rate / 10}, False), ({"clip": 9}, False)):
        path.write_text(json.dumps(told | {"optimizer": record}))
        assert (oracle_method(corpus.config, checkpoint) == unrecorded) is same
        loaded = load_for_attribution(checkpoint)
        with corpus.store.read() as connection:
            last = run_without_documents(connection, corpus.home, corpus.config, checkpoint, loaded).final
        assert last.learning_rate == record.get("learning_rate", rate)
        assert last.adamw == AdamW(last.learning_rate, clip=record.get("clip", 1.0))


def test_a_checkpoint_known_by_its_tensors_alone_stays_itself_and_a_new_one_by_its_config_too(
    corpus: SmallCorpus,
) -> None:
    checkpoint = stored_checkpoint(corpus.store, "trained")
    require_unchanged(checkpoint)
    former = replace(checkpoint, weights_digest=weights_digests(checkpoint.path)[1])
    assert former != checkpoint
    config = checkpoint.path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 0.5}))
    require_unchanged(former)
    with pytest.raises(UserError, match=r"weights or config\.json in .* changed"):
        require_unchanged(checkpoint)


def test_a_document_without_a_finite_loss_is_recorded_with_its_reason_and_the_others_are_measured(
    corpus: SmallCorpus,
) -> None:
    one = prober(corpus)
    loaded = one._checkpoint()
    odd = torch.from_numpy(tokenise(loaded.tokenizer, TRAINED[:1])[0])

    def poison(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        ids = inputs[0][:, : len(odd)]
        mine = (ids == odd).all(dim=1) if ids.shape[1] == len(odd) else torch.zeros(len(ids), dtype=torch.bool)
        return torch.where(mine[:, None, None], torch.nan, output)

    loaded.model.get_input_embeddings().register_forward_hook(poison)
    found = one.gradient(IDS, "opening")
    place = [bytes(row) for row in IDS].index(bytes(ids_to_numpy(doc_ids(TRAINED[:1]))[0]))
    assert np.flatnonzero(~np.isfinite(found)).tolist() == [place]
    with one.store.write() as connection:
        one.write(connection)
    assert one.store.query("SELECT influence, reason FROM probes WHERE influence IS NULL") == [
        (None, "the document's loss is not finite")
    ]
    assert not np.isfinite(prober(corpus).gradient(IDS[place : place + 1], "opening")).any()  # it is not asked again


def test_a_reference_without_a_finite_loss_is_refused(corpus: SmallCorpus) -> None:
    change_weights(corpus, lambda weights: weights["model.norm.weight"].fill_(torch.nan))
    with pytest.raises(UserError, match=r"none of the .* reference documents has a finite loss"):
        prober(corpus).gradient(IDS[:2], "opening")
    with pytest.raises(UserError, match="the reference loss is not finite"):
        prober(corpus).oracle(IDS[:1])


def test_an_empty_reference_is_refused(corpus: SmallCorpus) -> None:
    whole = stored_reference(open_store(corpus.home))
    items = whole.items.set_column(whole.items.column_names.index("text"), "text", pa.array([" ", ""]))
    for measure in (lambda one: one.gradient(IDS[:2], "opening"), lambda one: one.oracle(IDS[:1])):
        with pytest.raises(UserError, match="the selecting part of reference 'reference' is empty"):
            measure(prober(corpus, StoredSet("reference", "reference", "d", items)))


def test_a_checkpoint_whose_tokenizer_was_changed_after_it_was_registered_is_refused(corpus: SmallCorpus) -> None:
    path = corpus.home.checkpoints / "trained/tokenizer.json"
    path.write_text(path.read_text().replace('"ByteLevel"', '"ByteLevel" ', 1).replace("a", "b", 1))
    with pytest.raises(UserError, match=r"tokenizer in .* is not the one that it was registered with"):
        prober(corpus).gradient(IDS[:2], "opening")


def test_token_counts_of_another_tokenizer_are_refused(corpus: SmallCorpus) -> None:
    store = open_store(corpus.home)
    with store.write() as connection:
        connection.execute(
            "UPDATE token_counts SET tokens = tokens + 1 WHERE doc_id = ?", [str(ids_from_numpy(IDS)[1])]
        )
    with pytest.raises(UserError, match=r"its tokenizer makes \d+ tokens of document .*, token_counts has \d+"):
        prober(corpus).gradient(IDS[:2], "opening")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(corpus: SmallCorpus) -> None:
    path = corpus.home.checkpoints / "trained"
    config = path / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 300', '"vocab_size": 290'))
    change_weights(
        corpus,
        lambda weights: weights.update(
            {"model.embed_tokens.weight": weights["model.embed_tokens.weight"][:290].clone()}
        ),
    )
    with pytest.raises(UserError, match="the tokenizer has ids up to 299 but the model only 290 embeddings"):
        prober(corpus).gradient(IDS[:2], "opening")


def test_a_model_that_is_not_causal_is_refused(corpus: SmallCorpus) -> None:
    from transformers import BertConfig, BertLMHeadModel

    path = corpus.home.checkpoints / "trained"
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (path / name).unlink(missing_ok=True)
    torch.manual_seed(0)
    BertLMHeadModel(
        BertConfig(
            vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=32,
        )
    ).save_pretrained(path)  # fmt: skip
    change_weights(corpus, lambda weights: None)
    with pytest.raises(UserError, match="BertLMHeadModel predicts a token from the ones after it too"):
        prober(corpus).gradient(IDS[:2], "opening")
