import math

import numpy as np
import pytest

from winnow.errors import UserError
from winnow.selection.policies import BanditState, policy_class, policy_names
from winnow.selection.policies.quad_ucb import QuadUCB


def test_a_policy_is_found_by_the_name_of_its_file() -> None:
    assert "quad_ucb" in policy_names()
    assert policy_class("quad_ucb") is QuadUCB


def test_an_unknown_policy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'greedy'.*quad_ucb"):
        policy_class("greedy")


def test_ucb_matches_the_formula_worked_by_hand() -> None:
    policy = QuadUCB(arms=3, alpha=0.5)
    policy.observe(0, np.array([1.0, 3.0]))
    policy.observe(0, np.array([2.0]))
    policy.observe(1, np.array([-1.0, 1.0]))
    policy.observe(2, np.array([0.5]))
    policy.observe(2, np.array([]))  # a pull that reused the mean: T grows, the mean stays
    # T = (2, 1, 2), sum T = 5, means = (2, 0, 0.5)
    bonus = [0.5 * math.sqrt(2 * math.log(5) / t) for t in (2, 1, 2)]
    np.testing.assert_allclose(policy.mean(), [2.0, 0.0, 0.5])
    np.testing.assert_allclose(policy.bonus(), bonus)
    np.testing.assert_allclose(policy.scores(), np.array([2.0, 0.0, 0.5]) + bonus)


def test_the_more_an_arm_was_pulled_the_smaller_its_bonus() -> None:
    policy = QuadUCB(arms=2, alpha=1.0)
    policy.observe(0, np.array([0.0]))
    for _ in range(5):
        policy.observe(1, np.array([0.0]))
    assert policy.bonus()[0] > policy.bonus()[1] > 0


def test_unpulled_arms_come_first_then_scores_and_ties_go_to_the_smaller_arm() -> None:
    policy = QuadUCB(arms=5, alpha=0.1)
    for arm, reward in ((0, 0.0), (2, 5.0), (3, 5.0)):
        policy.observe(arm, np.array([reward]))
    assert policy.choose(BanditState(np.ones(5, dtype=bool), 5)).tolist() == [1, 4, 2, 3, 0]


def test_only_open_arms_are_chosen_and_no_more_than_asked() -> None:
    policy = QuadUCB(arms=4, alpha=0.0)
    for arm, reward in enumerate((4.0, 3.0, 2.0, 1.0)):
        policy.observe(arm, np.array([reward]))
    state = BanditState(np.array([False, True, True, True]), 2)
    assert policy.choose(state).tolist() == [1, 2]
    assert policy.choose(BanditState(np.zeros(4, dtype=bool), 2)).tolist() == []
