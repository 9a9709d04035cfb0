"""The benches: halves of the queries, tuning, the leaderboard, and what is cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from winnow.attribution.bank import BankPlan
from winnow.attribution.bench import BENCHES, Prepared, get_bench, prepare
from winnow.attribution.bench_data import subwords_corpus, words_corpus
from winnow.attribution.bench_runs import train_run
from winnow.attribution.estimators.kfac import Kfac
from winnow.attribution.lds import ceiling, compare
from winnow.attribution.leaderboard import GRID, leaderboard, measure, scores_of
from winnow.attribution.run import Settings
from winnow.errors import UserError

SMALLER = replace(
    BENCHES["tiny"], recipe=replace(BENCHES["tiny"].recipe, epochs=3), plan=BankPlan(8, seeds=(0, 1)), checkpoints=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return prepare(SMALLER, folder, runs=2)


def test_no_query_judges_what_it_tunes_and_none_is_trained_on(prepared: Prepared) -> None:
    sets = [
        {document.tobytes() for document in documents}
        for documents in (prepared.tuning.tokens, prepared.judging.tokens, prepared.runs[0].documents)
    ]
    assert [len(one) for one in sets] == [8, 8, 64]
    assert not sets[0] & sets[1] and not (sets[0] | sets[1]) & sets[2]


def test_a_bench_is_trained_once(prepared: Prepared, folder: Path) -> None:
    trained: list[int] = []
    again = prepare(SMALLER, folder, runs=2, progress=lambda done, _: trained.append(done))
    assert trained == []
    np.testing.assert_array_equal(again.bank.losses, prepared.bank.losses)
    assert prepare(replace(SMALLER, plan=BankPlan(4, alpha=0.3)), folder).bank.digest != prepared.bank.digest


def test_a_run_with_another_number_of_checkpoints_is_trained_anew(prepared: Prepared, tmp_path: Path) -> None:
    documents, recipe = prepared.runs[0].documents[:16], SMALLER.recipe
    kept = [len(train_run(tmp_path, documents, recipe, 0, count)) for count in (2, 3, 3)]
    assert kept == [2, 3, 3]
    before = (tmp_path / "run.json").stat().st_mtime_ns
    assert len(train_run(tmp_path, documents, recipe, 0, 3)) == 3
    assert (tmp_path / "run.json").stat().st_mtime_ns == before
    train_run(tmp_path, documents[1:], recipe, 0, 3)
    assert (tmp_path / "run.json").stat().st_mtime_ns != before


def test_runs_of_other_seeds_are_other_models(prepared: Prepared) -> None:
    first, second = (dict(run.final.load().named_parameters()) for run in prepared.runs)
    assert any((first[name] != second[name]).any() for name in first)
    assert [checkpoint.steps for checkpoint in prepared.runs[0].checkpoints] == [12, 12]


def test_the_leaderboard_is_sorted_and_says_what_is_not_measured(prepared: Prepared) -> None:
    rows = leaderboard(prepared, ["random", "embedding", "tfidf", "grad_dot"])
    assert {row.estimator for row in rows} == {"random", "embedding", "tfidf", "grad_dot"}
    assert [row.lds for row in rows[:3]] == sorted((row.lds for row in rows[:3]), reverse=True)
    assert (rows[3].estimator, rows[3].lds, rows[3].reason) == ("embedding", None, "needs encode")
    for row in rows[:3]:
        assert (row.subsets, row.seeds, row.runs) == (8, 2, 2) and row.bank == prepared.bank.digest
        assert row.share == pytest.approx(row.lds / prepared.ceiling)


@pytest.mark.parametrize("tune", [True, False])
def test_settings_that_an_estimator_does_not_use_are_not_recorded(tune: bool, prepared: Prepared) -> None:
    lexical, gradient = (measure(prepared, name, Settings(projection=4), tune=tune) for name in ("tfidf", "grad_dot"))
    assert (lexical.scope, lexical.damping, lexical.projection, lexical.tuned) == (None, None, 0, False)
    assert gradient.scope in GRID["scope"] and gradient.damping is None and gradient.tuned == tune


def test_tuning_never_looks_at_the_judging_queries(prepared: Prepared) -> None:
    column = prepared.bank.columns(prepared.judging.tokens)
    losses = prepared.bank.losses.copy()
    losses[:, :, column] = -losses[:, :, column]
    turned = replace(prepared, bank=replace(prepared.bank, losses=losses))
    one, other = (measure(bench, "adam_dot", Settings()) for bench in (prepared, turned))
    assert (one.scope, one.damping, one.tuning_lds) == (other.scope, other.damping, other.tuning_lds)
    assert other.lds == pytest.approx(-one.lds)


def test_without_tuning_the_given_settings_are_used(prepared: Prepared) -> None:
    row = measure(prepared, "adam_dot", Settings("head", 1.0), tune=False)
    assert (row.scope, row.damping, row.tuned) == ("head", 1.0, False)
    scores = scores_of(prepared, "adam_dot", Settings("head", 1.0))
    columns = prepared.bank.columns(prepared.judging.tokens)
    assert compare(scores, scores, prepared.bank.masks, prepared.bank.losses[:, :, columns]).mean == 0.0


def test_what_learns_from_subsets_is_judged_on_others(prepared: Prepared) -> None:
    row = measure(prepared, "datamodel", Settings())
    assert row.subsets == 4 and row.lds is not None and row.lds < 0.9
    half = prepared.bank.take(np.arange(8) % 2 == 1)
    limit = ceiling(half.losses[:, :, half.columns(prepared.judging.tokens)])
    assert row.ceiling == limit != prepared.ceiling
    assert row.share == (row.lds / limit if limit > 0.0 else None)


def test_damping_is_tuned_without_fitting_anew(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[Settings] = []
    fit = Kfac.fit
    monkeypatch.setattr(Kfac, "fit", lambda self, run, settings: (fitted.append(settings), fit(self, run, settings))[1])
    row = measure(prepared, "kfac", Settings("head"))
    assert {one.damping for one in fitted[:-1]} <= {0.1, row.damping} and len(fitted) <= len(GRID["scope"]) + 2
    assert row.damping in GRID["damping"] and row.tuned


def test_a_bench_without_its_corpus_says_where_to_find_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WINNOW_TEST_DATA", raising=False)
    with pytest.raises(UserError, match="set WINNOW_TEST_DATA"):
        get_bench("small").corpus()
    monkeypatch.setenv("WINNOW_TEST_DATA", str(tmp_path))
    with pytest.raises(UserError, match="is absent"):
        get_bench("mixed").corpus()
    with pytest.raises(UserError, match="use one of tiny, small, mixed"):
        get_bench("large")


def test_word_documents_have_full_length_and_no_two_are_read_alike() -> None:
    names = ["cat", "dog", "cow", "hen", "fox", "owl"]
    texts = [f"{one} saw the {other} on the mat, again and again." for one in names for other in names]
    corpus = words_corpus([*texts, texts[0], "the short one"], documents=20, queries=8, vocabulary=20, context=8)
    assert [len(one) for one in (corpus.documents, corpus.texts, corpus.queries, corpus.query_texts)] == [20, 20, 8, 8]
    read = {tokens.tobytes() for tokens in (*corpus.documents, *corpus.queries)}
    assert len(read) == 28 and all(len(tokens) == 8 and tokens.max() < 20 for tokens in corpus.documents)
    assert corpus.texts[0] == "cat saw the dog on the mat ,"  # its twin with the cat comes again at the end
    with pytest.raises(UserError, match="needs 3 documents of full length and the corpus has 1"):
        words_corpus(texts, documents=2, queries=1, vocabulary=3, context=3)  # one or another saw: all the same


def test_subword_documents_take_the_sources_in_turn() -> None:
    sources = [[f"{word} number {n} of many words that follow one another" for n in range(9)] for word in ("ab", "cd")]
    corpus = subwords_corpus(sources, documents=6, queries=2, vocabulary=300, context=8)
    assert [text[:2] for text in corpus.texts] == ["ab", "cd"] * 3
    assert all(len(tokens) == 8 for tokens in (*corpus.documents, *corpus.queries))


def test_averaging_takes_every_checkpoint_of_every_run(prepared: Prepared) -> None:
    settings = Settings("head", 0.1)
    row = measure(prepared, "adam_fisher", settings, tune=False, average=True)
    assert (row.runs, row.checkpoints) == (2, 2)
    first = replace(prepared, runs=tuple(replace(run, checkpoints=run.checkpoints[:1]) for run in prepared.runs))
    parts = [scores_of(one, "adam_fisher", settings) for one in (first, prepared)]
    np.testing.assert_allclose(scores_of(prepared, "adam_fisher", settings, average=True), np.mean(parts, axis=0))
    assert measure(prepared, "tracin", settings, tune=False, average=True).checkpoints == 1
