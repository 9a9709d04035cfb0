"""Rewards: transforms by hand, sums, arms, novelty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.selection.novelty import novelty
from winnow.selection.rewards import TRANSFORMS, Term, arm_rewards, fit_reward

COLUMN = np.array([4.0, 1.0, 1.0, 2.0, np.nan])
BY_HAND = {
    "identity": [4, 1, 1, 2],
    "zscore": (np.array([4, 1, 1, 2]) - 2) / np.sqrt(1.5),
    "rank": [7 / 8, 1 / 4, 1 / 4, 5 / 8],
    "log1p": np.log([5, 2, 2, 3]),
    "clip(1.5, 3)": [3, 1.5, 1.5, 2],
    "tail(0.5)": [1, 0, 0, 1],
    "log_sigmoid(0.5)": -np.log1p(np.exp(-(np.array([4, 1, 1, 2]) - 1.5) / np.sqrt(1.5))),
}


@pytest.mark.parametrize("transform", BY_HAND)
def test_each_transform_by_hand_and_not_a_number_stays_so(transform: str) -> None:
    found = fit_reward([Term("x", transform)], {"x": COLUMN}).of({"x": COLUMN})
    assert found[:4] == pytest.approx(np.array(BY_HAND[transform], dtype=float))
    assert np.isnan(found[4])


def test_every_transform_is_tested_by_hand() -> None:
    assert {name.partition("(")[0] for name in BY_HAND} == set(TRANSFORMS)


def test_log1p_keeps_the_sign_and_equal_values_have_no_z_score() -> None:
    assert fit_reward([Term("x", "log1p")], {"x": COLUMN}).of({"x": np.array([-3.0])}) == pytest.approx(-np.log(4))
    equal = fit_reward([Term("x", "zscore")], {"x": np.full(7, 0.1)})
    assert equal.of({"x": np.full(3, 0.1)}).tolist() == [0, 0, 0]


def test_terms_are_summed_by_weight_and_a_negative_weight_turns_the_sign() -> None:
    columns = {"influence": np.array([1.0, 2, 3]), "toxicity": np.array([0.0, 0.5, np.nan])}
    reward = fit_reward([Term("influence", "identity", 2.0), Term("toxicity", "identity", -1.0)], columns)
    assert reward.of(columns)[:2].tolist() == [2.0, 3.5]
    assert np.isnan(reward.of(columns)[2])


def test_a_sum_of_log_sigmoids_is_high_only_where_every_term_is() -> None:
    draw = np.random.default_rng(0)
    pool = {"a": draw.normal(size=999), "b": draw.normal(size=999)}
    reward = fit_reward([Term("a", "log_sigmoid(0.5)"), Term("b", "log_sigmoid(0.5)")], pool)
    both, one = reward.of({"a": np.array([1.5, 3.0]), "b": np.array([1.5, 0.0])})
    assert both > one


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.sampled_from(sorted(BY_HAND)), st.randoms())
def test_a_document_s_reward_depends_on_the_fitted_ones_as_a_set_and_not_on_its_company(
    values: list[float], transform: str, draw
) -> None:
    shuffled = draw.sample(values, len(values))
    one = fit_reward([Term("x", transform)], {"x": np.array(values)})
    other = fit_reward([Term("x", transform)], {"x": np.array(shuffled)})
    alone = [float(other.of({"x": np.array([value])})[0]) for value in values]
    assert one.of({"x": np.array(values)}).tolist() == alone


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Term("x", "square"), "transform 'square': no such transform; choose one of identity"),
        (lambda: Term("x", "clip(2, 1)"), r"expected clip\(a, b\), a <= b"),
        (lambda: Term("x", "tail(high)"), r"expected tail\(q\)"),
        (lambda: Term("x", "zscore(1)"), "expected zscore"),
        (lambda: Term("x", "zscore", np.inf), "weight inf"),
        (lambda: fit_reward([], {}), "no terms"),
        (lambda: fit_reward([Term("y")], {"x": COLUMN}), "column 'y': no such column; there are x"),
        (lambda: fit_reward([Term("x")], {"x": np.full(2, np.nan)}), "no document has a finite value"),
        (lambda: arm_rewards(COLUMN, np.zeros(5, int), 1, 1.0), "quantile: 1.0"),
    ],
)
def test_a_mistake_is_told(make, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make()


def test_an_arm_is_worth_the_mean_of_its_documents_or_its_share_of_the_pool_s_tail() -> None:
    values = np.array([1.0, 3.0, 10.0, np.nan, 2.0, np.inf])
    arm_of = np.array([0, 0, 2, 2, 0, 3])
    found = arm_rewards(values, arm_of, 4)
    assert found.count.tolist() == [3, 0, 1, 0]
    assert found.mean[[0, 2]].tolist() == [2.0, 10.0] and np.isnan(found.mean[[1, 3]]).all()
    assert found.variance[0] == 1.0 and np.isnan(found.variance[1:]).all()
    tail = arm_rewards(values, arm_of, 4, quantile=0.5)  # the median is 2.5
    assert tail.mean[[0, 2]] == pytest.approx([1 / 3, 1.0])


def test_novelty_is_the_distance_from_the_nearest_that_was_seen() -> None:
    vectors = np.array([[2.0, 0], [1, 1], [0, -3]])
    assert novelty(vectors, 3, np.array([[1.0, 0], [0, 1]])) == pytest.approx([0, 1 - np.sqrt(0.5), 1])
    assert novelty(vectors, 3, np.zeros((0, 2))).tolist() == [1, 1, 1]
    many, seen = np.random.default_rng(0).normal(size=(5_000, 3)), np.random.default_rng(1).normal(size=(2_100, 3))
    assert novelty(many, 5_000, seen)[4_321] == novelty(many[4_321:4_322], 1, seen[::-1])[0]
