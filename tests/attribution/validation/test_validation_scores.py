"""One-step agreement, intervals, corruption and fact tracing, on planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.attribution.correlation import spearman
from winnow.attribution.validation.corruption import KINDS, SOUND, corruption, plant
from winnow.attribution.validation.fact_tracing import Fact, fact_tracing, states_fact
from winnow.attribution.validation.intervals import auc, auc_interval, crossed_interval, mean_interval
from winnow.attribution.validation.one_step import one_step
from winnow.attribution.validation.rows import SCHEMA, leaderboard
from winnow.errors import UserError


def test_the_area_is_the_share_of_pairs_won_with_ties_as_halves() -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.integers(0, 6, 17).astype(float), generator.integers(0, 6, 23).astype(float)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(np.mean(pairs))
    low, high = auc_interval(positive, negative, seed=0)
    assert low < np.mean(pairs) < high


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        values = generator.normal(2.0, 1.0, 25)
        low, high = mean_interval(values, seed=trial)
        covered += low <= 2.0 <= high
    assert 85 <= covered <= 100


def test_seeds_shared_by_all_queries_widen_the_interval() -> None:
    generator = np.random.default_rng(2)
    own, shared = generator.normal(size=(12, 3)), 3.0 * np.array([[-1.0, 0.0, 1.0]])
    narrow, wide = crossed_interval(own, 0), crossed_interval(own + shared, 0)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert np.isnan(crossed_interval(np.ones((1, 1)), 0)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_queries_and_documents_changes_no_one_step_result(seed: int) -> None:
    generator = np.random.default_rng(seed)
    oracle = generator.normal(size=(3, 12))
    scores = oracle + generator.normal(size=oracle.shape)
    queries, documents = generator.permutation(3), generator.permutation(12)
    one = one_step("x", scores, oracle)
    other = one_step("x", scores[queries][:, documents], oracle[queries][:, documents])
    assert other.spearman == pytest.approx(one.spearman, abs=1e-12)
    assert other.interval == pytest.approx(one.interval, abs=1e-12)


def test_one_step_finds_agreement_where_it_was_planted_and_nowhere_else() -> None:
    generator = np.random.default_rng(3)
    oracle = generator.normal(size=(4, 100))
    same = one_step("same", np.exp(oracle), oracle)
    noisy = one_step("noisy", oracle + generator.normal(size=oracle.shape), oracle)
    nothing_scores = generator.normal(size=oracle.shape)
    nothing = one_step("nothing", nothing_scores, oracle)
    opposite = one_step("opposite", -oracle, oracle)
    twin = [spearman(scores, truth) for scores, truth in zip(nothing_scores, oracle, strict=True)]
    assert nothing.per_query == pytest.approx(twin)
    assert same.spearman == pytest.approx(1.0) and opposite.spearman == pytest.approx(-1.0)
    assert noisy.interval[0] < noisy.spearman < noisy.interval[1]
    assert noisy.interval[0] > 0.5 and noisy.interval[1] < 0.9  # 0.69 for two normals of correlation 0.71
    assert nothing.interval[0] < 0.0 < nothing.interval[1]


def test_documents_without_a_score_are_counted_and_left_out() -> None:
    oracle = np.arange(20.0).reshape(2, 10)
    scores = oracle.copy()
    scores[0, 3], oracle[1, 4] = np.nan, np.nan
    result = one_step("x", scores, oracle)
    assert (result.documents, result.excluded) == (8, 2)
    with pytest.raises(UserError, match="probe at least"):
        one_step("x", np.full((1, 5), np.nan), np.ones((1, 5)))


def corpus(count: int = 120) -> list[np.ndarray]:
    generator = np.random.default_rng(4)
    return [(start + np.arange(generator.integers(16, 40))) % 50 for start in generator.integers(0, 50, count)]


def test_planting_breaks_the_asked_share_in_three_ways_and_leaves_the_rest() -> None:
    documents = corpus()
    planted = plant(documents, 0.2, seed=1)
    assert {kind: int((planted.kind == kind).sum()) for kind in KINDS} == dict.fromkeys(KINDS, 8)
    for doc, broken, kind in zip(documents, planted.documents, planted.kind, strict=True):
        if kind == SOUND:
            assert np.array_equal(doc, broken)
        elif kind == "shuffled":
            assert np.array_equal(np.sort(doc), np.sort(broken)) and not np.array_equal(doc, broken)
        elif kind == "garbled":
            assert 0.3 < np.mean(doc == broken) < 0.7
        else:
            assert np.array_equal(doc[: len(doc) // 2], broken[: len(doc) // 2])
    assert not np.array_equal(plant(documents, 0.2, seed=2).kind, planted.kind)


def test_what_is_planted_does_not_depend_on_the_order_of_the_documents() -> None:
    documents = [np.append(doc, 50 + np.arange(2) + index) for index, doc in enumerate(corpus(40))]
    order = np.random.default_rng(5).permutation(40)
    one, other = plant(documents, 0.3), plant([documents[index] for index in order], 0.3)
    assert [other.kind[place] for place in range(40)] == [one.kind[index] for index in order]
    for place, index in enumerate(order):
        assert np.array_equal(other.documents[place], one.documents[index])


def test_corruption_is_found_where_scores_are_high_and_only_there() -> None:
    documents = corpus()
    kind = plant(documents, 0.25, seed=0).kind
    generator = np.random.default_rng(6)
    noise = generator.normal(size=len(documents))
    good = corruption("good", noise + 3.0 * (kind != SOUND), kind)
    blind = corruption("blind", noise, kind)
    constant = corruption("constant", np.ones(len(documents)), kind)
    assert good.area["any"] > 0.95 and good.interval["any"][0] > 0.9 and good.precision > 0.8
    assert blind.interval["any"][0] < 0.5 < blind.interval["any"][1]
    assert constant.area["any"] == 0.5
    assert constant.precision == pytest.approx((kind != SOUND).mean())
    assert set(good.area) == {"any", *KINDS}
    with pytest.raises(UserError, match="plant some"):
        corruption("x", noise, np.full(len(noise), SOUND, dtype=object))


FACTS = [
    Fact("Ada Lovelace", "London", "Ada Lovelace was born in London."),
    Fact("Rust", "Mozilla", "Rust was made at Mozilla."),
    Fact("Nobody", "Nowhere", "Nobody lives in Nowhere."),
]
TEXTS = [
    "Ada Lovelace grew up; London was her home.",
    "Ada Lovelace never saw Londonderry.",
    "She was born in London.",
    "Trust in Mozilla. Rust is theirs.",
    "rust at Mozilla",
]


def test_a_text_states_a_fact_with_object_and_subject_as_whole_words_or_by_its_title() -> None:
    titles = [None, "Ada Lovelace", "Ada Lovelace", None, None]
    expected = [[True, False, True, False, False], [False, False, False, True, False], [False] * 5]
    assert states_fact(FACTS, TEXTS, titles).tolist() == expected
    assert states_fact(FACTS, TEXTS).tolist()[0] == [True, False, False, False, False]


def test_fact_tracing_counts_ranks_and_skips_facts_that_nothing_states() -> None:
    states = np.array([[True, False, True, False, False], [False, False, False, True, False], [False] * 5])
    scores = np.array([[5.0, 9.0, 8.0, 7.0, np.nan], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5])
    result = fact_tracing("x", scores, states, depths=(1, 2, 4, 10))
    assert result.reciprocal_rank.tolist() == [1 / 2, 1 / 2] and result.mrr == 0.5
    assert result.precision[1].tolist() == [0.0, 0.0] and result.precision[2].tolist() == [0.5, 0.5]
    assert result.recall[4].tolist() == [1.0, 1.0] and 10 not in result.precision
    assert (result.facts, result.skipped) == (2, 1)


def test_a_score_that_says_nothing_gains_nothing_wherever_the_stating_document_stands() -> None:
    states = np.eye(6, dtype=bool)
    result = fact_tracing("constant", np.zeros((6, 6)), states)
    assert result.mrr == pytest.approx(1 / 6) and result.precision[1].sum() == 0.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_ranks_are_those_of_counting_every_document_that_is_no_worse(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (3, 9)).astype(float)  # many ties
    states = generator.random((3, 9)) < 0.3
    states[:, 0] = True
    found = fact_tracing("x", scores, states, depths=(3,))
    for value, truth, reciprocal, precision in zip(
        scores, states, found.reciprocal_rank, found.precision[3], strict=True
    ):
        assert reciprocal == 1 / (1 + sum(value[~truth] >= value[truth].max()))
        ranks = sorted(zip(-value, truth, strict=True))  # False before True where scores are equal
        assert precision == pytest.approx(sum(hit for _, hit in ranks[:3]) / 3)


def test_every_result_gives_rows_of_the_leaderboard() -> None:
    generator = np.random.default_rng(7)
    oracle = generator.normal(size=(4, 30))
    kind = np.array(["garbled"] * 10 + [SOUND] * 20, dtype=object)
    table = leaderboard(
        [
            one_step("x", oracle, oracle),
            corruption("x", oracle[0], kind),
            fact_tracing("x", oracle, oracle > 1.0, depths=(1,)),
        ]
    )
    assert table.schema == SCHEMA and set(table["validation"].to_pylist()) == {"one_step", "corruption", "fact_tracing"}
