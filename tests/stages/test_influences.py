"""``winnow influences``: the documents that a checkpoint was trained on, by their influence on any text."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from attributed_home import CONTEXT, LONG, START, TEXTS, TRAINED, attributed
from shell import Shell
from small_corpus import SmallCorpus

from winnow.attribution.estimators import make_estimator
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.identity import doc_id
from winnow.stages.influences import Influences, Question, find_influences
from winnow.store.published import open_published
from winnow.store.store import open_store

QUERY = TRAINED[5]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    return attributed(tmp_path_factory.mktemp("influences") / "home")


@pytest.fixture
def shell(corpus: SmallCorpus, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(corpus.home.root, capsys)


def ask(corpus: SmallCorpus, text: str = QUERY, **more: object) -> Influences:
    with open_published(corpus.home, corpus.config.store) as connection:
        return find_influences(connection, corpus.home, corpus.config, Question(text, checkpoint="trained", **more))


def told(shell: Shell, *arguments: str) -> dict[str, Any]:
    code, out, err = shell("influences", *arguments, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert isinstance(found, dict) and isinstance(found["documents"], list)
    return found


def texts(found: Influences) -> list[str]:
    names = {doc_id(text): text for text in TEXTS}
    return [names[one.doc_id] for one in found.documents]


def test_all_documents_of_the_manifest_are_measured_and_the_text_itself_ranks_first(corpus: SmallCorpus) -> None:
    found = ask(corpus, estimator="adam_dot", top=100)
    assert set(texts(found)) == set(TRAINED) and texts(found)[0] == QUERY
    assert (found.measured, found.among.manifests, found.among.unrecorded) == (16, ("v0001",), (START,))
    assert {one.times for one in found.documents} == {1}
    values = [one.influence for one in found.documents]
    assert values == sorted(values, reverse=True)
    first = found.documents[0]
    assert (first.bm25_rank, first.source, first.original_id, first.excerpt) == (1, "web", "w5", QUERY)
    assert (found.estimate.estimator, found.estimate.scope, found.estimate.projection) == ("adam_dot", "blocks", 0)
    assert 0 < found.query_loss < 6 and found.query_used == found.query_tokens == first.tokens - 1


@pytest.mark.parametrize("estimator", ["trackstar", "less", "tfidf", "tracin", "grad_cos"])
def test_methods_that_do_not_stream_find_the_text_itself_too(corpus: SmallCorpus, estimator: str) -> None:
    found = ask(corpus, estimator=estimator, top=3)
    assert texts(found)[0] == QUERY
    assert found.estimate.projection == (16 if estimator in ("trackstar", "less") else 0)


def test_the_lowest_are_the_same_list_from_its_other_end(corpus: SmallCorpus) -> None:
    every = texts(ask(corpus, top=100))
    assert texts(ask(corpus, top=5, lowest=True)) == every[::-1][:5]
    assert texts(ask(corpus, top=5)) == every[:5]


def test_influences_and_bm25_are_those_of_the_estimators(corpus: SmallCorpus) -> None:
    from winnow.train.checkpoint import load_checkpoint
    from winnow.train.tokenizer import tokenise

    loaded = load_checkpoint(corpus.home.checkpoints / "trained", attention="eager")
    tokens = [np.append(one, 0) for one in tokenise(loaded.tokenizer, TRAINED)]
    checkpoint = RunCheckpoint("trained", lambda: loaded.model)
    run = TrainingRun(tokens, (checkpoint,), TRAINED)
    queries = Queries(tokenise(loaded.tokenizer, [QUERY]), [QUERY])
    found = {one.doc_id: one for one in ask(corpus, top=100).documents}
    for name, kept in (("grad_dot", "influence"), ("bm25", "bm25")):
        expected = make_estimator(name).fit(run, Settings()).score(queries)[0]
        assert [getattr(found[doc_id(text)], kept) for text in TRAINED] == pytest.approx(expected, rel=1e-6), name


def test_a_checkpoint_without_a_recorded_manifest_is_asked_about_the_pool_and_that_is_said(shell: Shell) -> None:
    code, out, _ = shell("influences", "--query", QUERY, "--checkpoint", START, "--top", "3")
    assert code == 0 and "25 documents of the pool, as it is not recorded what the checkpoint was trained on" in out
    found = told(shell, "--query", QUERY, "--checkpoint", START, "--top", "3")
    assert [row["times"] for row in found["documents"]] == [None] * 3
    assert (found["among"], found["manifests"], found["unrecorded"], found["shortlisted_by"]) == (25, [], [START], None)


def test_of_many_documents_those_that_bm25_ranks_first_are_measured_and_that_is_said(
    corpus: SmallCorpus, shell: Shell
) -> None:
    found = ask(corpus, shortlist=6, top=100)
    assert found.measured == len(found.documents) == 6
    assert sorted(one.bm25_rank or 99 for one in found.documents) == [1, 2, 3, 4, 5, 6]
    for name in ("grad_dot", "ekfac"):  # a document's influence does not depend on the others in the list
        every = {one.doc_id: one.influence for one in ask(corpus, estimator=name, top=100).documents}
        some = ask(corpus, estimator=name, shortlist=6, top=100).documents
        assert {one.doc_id: one.influence for one in some}.items() <= every.items()
    unlike = ask(corpus, "zzz qqq", shortlist=6, top=100)  # no shared word: drawn, the same ones every time
    assert texts(unlike) == texts(ask(corpus, "zzz qqq", shortlist=6, top=100)) and len(unlike.documents) == 6
    assert {one.bm25_rank for one in unlike.documents} == {None}
    _, out, _ = shell("influences", "--query", QUERY, "--shortlist", "6", "--checkpoint", "trained")
    assert (
        f"6 of 16 documents of manifest v0001; what {START} was trained on is not recorded; a shortlist by BM25" in out
    )


def test_a_shortlist_by_stored_gradients_needs_no_shared_word_and_is_made_once(
    corpus: SmallCorpus, tmp_path: Path
) -> None:
    from winnow.home import Home

    home = Home(broken_copy(corpus, tmp_path))
    asked = Question("violins", "logra", checkpoint="trained", shortlist=4, top=100, by_gradients=True)
    every = Question("violins", "logra", checkpoint="trained", top=100)
    with open_published(home, corpus.config.store) as connection:
        found = find_influences(connection, home, corpus.config, asked)
        best = find_influences(connection, home, corpus.config, every)
        assert {one.doc_id for one in found.documents} == {one.doc_id for one in best.documents[:4]}
        assert (found.measured, found.shortlisted_by) == (4, "stored projected gradients")
        parts = sorted((path, path.stat().st_mtime_ns) for path in home.store.glob("gradients/*/*"))
        worst = find_influences(connection, home, corpus.config, replace(asked, lowest=True))
    assert {one.doc_id for one in worst.documents} == {one.doc_id for one in best.documents[-4:]}
    assert parts and parts == sorted((path, path.stat().st_mtime_ns) for path in home.store.glob("gradients/*/*"))


def test_of_very_many_documents_an_index_names_those_to_measure(
    corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from winnow.home import Home
    from winnow.stages import gradient_index

    home = Home(broken_copy(corpus, tmp_path))
    asked = Question("violins", "logra", checkpoint="trained", shortlist=4, top=100, by_gradients=True)
    with open_published(home, corpus.config.store) as connection:
        exact = [find_influences(connection, home, corpus.config, replace(asked, lowest=low)) for low in (False, True)]
        monkeypatch.setattr(gradient_index, "INDEXED_FROM", 10)
        monkeypatch.setattr(gradient_index, "SAMPLE_BYTES", 1)  # one list, so that all of it is searched
        again = [find_influences(connection, home, corpus.config, replace(asked, lowest=low)) for low in (False, True)]
        written = {path: path.stat().st_mtime_ns for path in home.gradients.glob("*/nearest/*")}
        assert [path.suffix for path in sorted(written)] == [".faiss", ".json", ".lists"]
        find_influences(connection, home, corpus.config, replace(asked, text="a garden"))
    assert [texts(one) for one in again] == [texts(one) for one in exact]
    assert written == {path: path.stat().st_mtime_ns for path in home.gradients.glob("*/nearest/*")}
    assert not list(home.gradients.glob("*.tmp")) + list(home.gradients.glob("*/*.tmp"))


def test_curvature_is_measured_once_a_checkpoint_and_scope_and_the_answers_are_equal(
    corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from winnow.attribution import directional
    from winnow.home import Home

    home = Home(broken_copy(corpus, tmp_path))
    with open_published(home, corpus.config.store) as connection:
        ask_again = [Question(QUERY, name, checkpoint="trained", top=100) for name in ("ekfac", "kfac")]
        first = find_influences(connection, home, corpus.config, ask_again[0])
        kept = list(home.gradients.glob("*/curvature.safetensors"))
        assert len(kept) == 1
        monkeypatch.setattr(directional, "fit_curvature", None)
        assert find_influences(connection, home, corpus.config, ask_again[0]).documents == first.documents
        kfac = find_influences(connection, home, corpus.config, ask_again[1])  # the same factors serve it
        assert texts(kfac)[0] == QUERY and list(home.gradients.glob("*/curvature.safetensors")) == kept
        with pytest.raises(TypeError, match="not callable"):
            find_influences(connection, home, corpus.config, replace(ask_again[0], scope="mlp"))


def test_tokens_pass_through_a_file_in_the_order_of_the_documents(corpus: SmallCorpus, tmp_path: Path) -> None:
    from winnow.identity import doc_ids, ids_as_keys, ids_to_numpy
    from winnow.stages.training_run import read_documents, spill_tokens
    from winnow.train.checkpoint import load_checkpoint

    ids = ids_to_numpy(doc_ids([*TEXTS, LONG]))
    ids = ids[np.argsort(ids_as_keys(ids), order=("high", "low"))]
    loaded = load_checkpoint(corpus.home.checkpoints / "trained", attention="eager")
    with open_published(corpus.home, corpus.config.store) as connection:
        expected = read_documents(connection, loaded, ids)[0]
        found = spill_tokens(connection, loaded, ids, tmp_path)
    assert len(found) == 25 and list(tmp_path.iterdir()) == []
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [one.tolist() for one in found[3:5]] == [one.tolist() for one in expected[3:5]]


def test_a_text_longer_than_the_context_is_explained_by_its_first_window(corpus: SmallCorpus, shell: Shell) -> None:
    found = ask(corpus, LONG)
    assert found.query_used == CONTEXT < found.query_tokens
    _, out, _ = shell("influences", "--query", LONG)
    assert f"of which the first {CONTEXT}, the model's context, are explained" in out


def test_rows_say_how_they_were_measured(shell: Shell) -> None:
    found = told(shell, "--query", QUERY, "--estimator", "logra", "--scope", "mlp", "--top", "2")
    measure = {"checkpoint": "trained", "estimator": "logra", "scope": "mlp", "projection": 16, "damping": 0.1}
    assert all(measure.items() <= one.items() for one in (found, *found["documents"])) and len(found["documents"]) == 2
    assert (found["seed"], found["excluded"]) == (0, {})
    code, out, _ = shell("influences", "--query", QUERY, "--top", "2", "--json")
    assert code == 0 and [row["estimator"] for row in json.loads(out)["documents"]] == ["grad_dot", "grad_dot"]


def test_the_text_comes_from_a_file_or_standard_input_too(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "query.txt"
    path.write_text(QUERY, encoding="utf-8")
    expected = told(shell, "--query", QUERY, "--top", "3")
    assert told(shell, str(path), "--top", "3") == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(QUERY.encode())))
    assert told(shell, "-", "--top", "3") == expected


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["--query", "  \n"], "the text is empty"),
        (["--query", "x"], "the text has a single token"),
        (["--query", "a text", "--checkpoint", "other"], "'other' is not registered; there is: warmup-.*, trained"),
        (["--query", "a text", "--estimator", "magic"], "'magic' is unknown; use one of .*grad_dot"),
        (["--query", "a text", "--estimator", "datamodel"], "needs models trained on subsets"),
        (["--query", "a text", "--scope", "nothing_like_it"], "scope 'nothing_like_it' matches no"),
        (["no/such/file.txt"], "no such file; a text itself goes after --query"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(shell: Shell, arguments: list[str], mend: str) -> None:
    import re

    code, out, err = shell("influences", *arguments)
    *_, sentence = err.strip().splitlines()
    assert (code, out) == (2, "") and sentence.startswith("winnow: ") and re.search(mend, sentence), err


def test_a_document_without_a_finite_gradient_is_counted_as_excluded(
    corpus: SmallCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    home = broken_copy(corpus, tmp_path)
    path = home / "checkpoints/trained/model.safetensors"
    weights = load_file(path)
    token = first_token_of(corpus, TRAINED[0])
    weights["model.embed_tokens.weight"][token] = torch.nan
    save_file(weights, path, {"format": "pt"})
    register_again(home)
    code, out, err = Shell(home, capsys)("influences", "--query", "needs care", "--checkpoint", "trained")
    assert code == 0, err
    assert "excluded: 16 of them, the document's loss is not finite" in out  # the head shares the embedding
    found = told(Shell(home, capsys), "--query", "needs care", "--checkpoint", "trained")
    assert (found["documents"], found["excluded"]) == ([], {"the document's loss is not finite": 16})


def test_a_checkpoint_whose_tokenizer_or_weights_changed_is_refused(
    corpus: SmallCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = broken_copy(corpus, tmp_path)
    path = home / "checkpoints/trained/tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"eos_token": "a"}))
    code, _, err = Shell(home, capsys)("influences", "--query", "a text", "--checkpoint", "trained")
    assert code == 2 and "is not the one that it was registered with" in err
    shutil.rmtree(home / "checkpoints/trained")
    code, _, err = Shell(home, capsys)("influences", "--query", "a text", "--checkpoint", "trained")
    assert code == 2 and "is gone; put the folder back" in err


def test_an_estimator_that_needs_the_optimizer_says_so_where_it_was_not_saved(
    corpus: SmallCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = broken_copy(corpus, tmp_path)
    (home / "checkpoints/trained/optimizer.safetensors").unlink()
    shell = Shell(home, capsys)
    code, _, err = shell("influences", "--query", "a text", "--estimator", "adam_dot")
    assert code == 2 and "'adam_dot' needs the optimizer's state (optimizer.safetensors" in err


def broken_copy(corpus: SmallCorpus, folder: Path) -> Path:
    shutil.copytree(corpus.home.root, folder / "home")
    return folder / "home"


def first_token_of(corpus: SmallCorpus, text: str) -> int:
    from winnow.train.tokenizer import load_tokenizer, tokenise

    return int(tokenise(load_tokenizer(corpus.home.checkpoints / "trained"), [text])[0][0])


def register_again(home: Path) -> None:
    from winnow.home import Home
    from winnow.stages.training import register
    from winnow.store.stage import Stage

    store = open_store(Home(home))
    register(store, "trained", home / "checkpoints/trained", Stage(store, "checkpoints", "run"))
    store.publish()


def test_sources_are_ranked_by_what_unlearning_them_does_to_the_reference(
    corpus: SmallCorpus, shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = shell("attribution", "sources", "--checkpoint", "trained", "--steps", "2", "--format", "json")
    assert code == 0, err
    [row] = json.loads(out)
    assert (row["source"], row["documents"], row["unlearnt"], row["estimator"]) == ("web", 16, 16, "untrac")
    assert row["influence"] > 0.0 and row["checkpoint"] == "trained" and row["steps"] == 2 and row["reference"]
    assert shell("attribution", "sources", "--checkpoint", "trained", "--steps", "2", "--format", "json")[1] == out
    home = broken_copy(corpus, tmp_path)
    (home / "checkpoints/trained/optimizer.safetensors").unlink()
    code, _, err = Shell(home, capsys)("attribution", "sources", "--checkpoint", "trained")
    assert code == 2 and "no optimiser state" in err
