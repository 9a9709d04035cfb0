"""Every registered estimator on one small trained run: the list that a new estimator is added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attribution_models import build_gpt2, patterned_docs, random_docs
from torch import nn

from winnow.attribution import directional
from winnow.attribution.bank import BankPlan, SubsetBank, train_bank
from winnow.attribution.bench_runs import train_run
from winnow.attribution.estimators import estimator_names, make_estimator
from winnow.attribution.retraining import Recipe
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.errors import UserError

# Whether a query that is one of the training documents ranks that document first.
FINDS_ITS_OWN = {
    "adafactor_dot": True,
    "adam_dot": True,
    "adam_fisher": True,
    "bm25": True,
    "datainf": True,
    "datamodel": False,  # a dozen trainings tell little of a single document
    "datamodel_lasso": False,
    "diagonal_fisher": True,
    "ekfac": True,
    "embedding": True,
    "fisher": True,
    "grad_cos": True,
    "grad_dot": True,
    "group_oracle": False,  # a document's steps are shared with its group's
    "hidden_state": True,
    "kfac": True,
    "length": False,
    "less": True,
    "logra": True,
    "oracle": True,
    "quad_corrected": True,
    "random": False,
    "representer": True,
    "self_influence": False,  # the same for every query
    "self_influence_ekfac": False,
    "source": True,
    "tfidf": True,
    "tracin": True,
    "trackstar": True,
    "trak": True,
    "untrac": True,
    "untrac_inverse": True,
}
DOCUMENTS, OWN = 24, 5
RECIPE = Recipe("llama", 64, 16, 2, 2, 32, intermediate=24, learning_rate=5e-3, warmup_steps=2, epochs=6, batch=8)


def written(tokens: np.ndarray) -> str:
    return " ".join(f"w{token}" for token in tokens)


def bag(texts: Sequence[str]) -> np.ndarray:
    """An encoder of sorts: unit vectors of word counts."""
    counts = np.array([[text.split().count(f"w{word}") for word in range(64)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    folder = tmp_path_factory.mktemp("run")
    documents = [*patterned_docs(8, 0, 1, 0.3), *patterned_docs(8, 32, 2, 0.3), *random_docs(8, 3, low=20, high=32)]
    documents = [document[:32] for document in documents]
    queries = [documents[OWN], *(document[:32] for document in patterned_docs(2, 0, 4, 0.3))]
    bank: SubsetBank = train_bank(folder / "bank", documents, queries, RECIPE, BankPlan(8, seeds=(0,)))
    checkpoints = train_run(folder / "whole", documents, RECIPE, seed=7, checkpoints=3)
    return TrainingRun(documents, checkpoints, [written(one) for one in documents], bag, bank)


@pytest.fixture(scope="module")
def queries(run: TrainingRun) -> Queries:
    tokens = [run.documents[OWN], *(document[:32] for document in patterned_docs(2, 0, 4, 0.3))]
    return Queries(tokens, [written(one) for one in tokens])


def test_the_list_names_every_registered_estimator() -> None:
    assert tuple(sorted(FINDS_ITS_OWN)) == estimator_names()


@pytest.mark.parametrize("name", sorted(FINDS_ITS_OWN))
def test_scores_are_finite_and_the_same_again(name: str, run: TrainingRun, queries: Queries) -> None:
    scores = make_estimator(name).fit(run, Settings()).score(queries)
    assert scores.shape == (len(queries), DOCUMENTS) and scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(make_estimator(name).fit(run, Settings()).score(queries), scores)
    if FINDS_ITS_OWN[name]:
        assert int(scores[0].argmax()) == OWN


@pytest.mark.parametrize("name", sorted(FINDS_ITS_OWN))
def test_an_estimator_uses_what_it_says(name: str, run: TrainingRun, queries: Queries) -> None:
    estimator = make_estimator(name)
    first = estimator.fit(run, Settings()).score(queries)
    for changed in (Settings(scope="head"), Settings(damping=3.0)):
        same = np.array_equal(estimator.fit(run, changed).score(queries), first)
        assert same != (("scope" if changed.scope == "head" else "damping") in estimator.uses)


HOLDS_QUERIES = ("datainf", "diagonal_fisher", "ekfac", "fisher", "grad_cos", "quad_corrected", "source", "tracin")


@pytest.mark.parametrize("name", HOLDS_QUERIES)
def test_queries_in_blocks_score_as_all_at_once_and_no_more_are_held(
    name: str, run: TrainingRun, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = make_estimator(name).fit(run, Settings("mlp"))
    expected, held = fitted.score(queries), []
    real = directional.query_gradients

    def counted(model: nn.Module, docs: Sequence[np.ndarray], scope: str) -> dict[str, torch.Tensor]:
        held.append(len(docs))
        return real(model, docs, scope)

    monkeypatch.setattr(directional, "query_gradients", counted)
    monkeypatch.setattr(directional, "DIRECTION_BYTES", 1)
    np.testing.assert_allclose(fitted.score(queries), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert set(held) == {1} and len(held) >= len(queries)


@pytest.mark.parametrize("name", sorted(FINDS_ITS_OWN))
def test_what_an_estimator_needs_is_missed(name: str, run: TrainingRun) -> None:
    estimator = make_estimator(name)
    assert estimator.missing(run) is None
    bare = TrainingRun(run.documents, (replace(run.final, optimizer=None),))
    assert (estimator.missing(bare) is None) == (not estimator.needs)
    if estimator.needs:
        with pytest.raises(UserError, match=f"'{name}' needs the run's {estimator.missing(bare)}: "):
            estimator.fit(bare, Settings())
    with pytest.raises(UserError, match="no documents"):
        estimator.fit(replace(run, documents=[]), Settings())
    with pytest.raises(UserError, match=f"'{name}' has no option 'typo'"):
        estimator.fit(run, Settings(options={"typo": 1.0}))


GRADIENT_METHODS = sorted(set(FINDS_ITS_OWN) - {"source", "tracin"})


@pytest.mark.parametrize("name", [one for one in GRADIENT_METHODS if "scope" in make_estimator(one).uses])
def test_gradient_methods_take_every_parameter_of_a_model_with_a_tied_weight(name: str) -> None:
    model = build_gpt2(context=40)
    state = {
        parameter: {"exp_avg": value.detach() * 0.01, "exp_avg_sq": value.detach().square() + 1e-4, "step": 9}
        for parameter, value in model.named_parameters()
    }
    documents = random_docs(4, low=4, high=40)
    one = TrainingRun(documents, (RunCheckpoint("last", lambda: model, 0.1, 1, state),))
    scores = make_estimator(name).fit(one, Settings("all", projection=4)).score(Queries(documents[:2]))
    assert scores.shape == (2, 4) and np.isfinite(scores).all()
    assert (scores[0] != scores[1]).any() != name.startswith("self_influence")


def test_a_damping_below_zero_no_query_and_no_rate_are_refused(run: TrainingRun, queries: Queries) -> None:
    with pytest.raises(UserError, match="must not be negative"):
        Settings(damping=-0.1)
    with pytest.raises(UserError, match="no query"):
        Queries([])
    fitted = make_estimator("ekfac").fit(run, Settings("head"))
    with pytest.raises(UserError, match="must not be negative"):
        fitted.damped(-1.0)
    unknown = replace(run, checkpoints=tuple(replace(one, learning_rate=None) for one in run.checkpoints))
    with pytest.raises(UserError, match="has no learning rate"):
        make_estimator("tracin").fit(unknown, Settings()).score(queries)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"use one of .*tfidf"):
        make_estimator("tf-idf")
