import math

import numpy as np
import pytest

from winnow.errors import UserError
from winnow.selection.facts import ArmFacts, Prior
from winnow.selection.policies import Policy, Round, best_first, policy_class, policy_names, takes_option
from winnow.selection.policies.quad_ucb import QuadUCB


def facts(count: int, **more: object) -> ArmFacts:
    return ArmFacts(np.full(count, 100), np.full(count, 1000), **more)  # type: ignore[arg-type]


def turn(open_arms: list[bool], count: int, number: int = 1) -> Round:
    return Round(number, np.array(open_arms), count, 1000, 1000, np.full(len(open_arms), 1000))


def fed(policy: Policy, rewards: dict[int, list[float]]) -> Policy:
    for arm, seen in rewards.items():
        policy.observe(arm, np.array(seen))
    return policy


def test_a_policy_is_found_by_the_name_of_its_file() -> None:
    assert "quad_ucb" in policy_names()
    assert policy_class("quad_ucb") is QuadUCB


def test_an_unknown_policy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'greediest'.*quad_ucb"):
        policy_class("greediest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.0}, r"'quad_ucb', option 'beta': no such option; it has alpha, raw, tau"),
        ({"alpha": -1}, r"'alpha': -1; expected a finite number, at least 0"),
        ({"alpha": "much"}, r"'much'; expected a finite number"),
        ({"raw": 1}, r"'raw': 1; expected true or false"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_policy_option_and_what_is_allowed(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        QuadUCB(facts(2), options)


def test_a_policy_says_whether_it_takes_an_option() -> None:
    assert takes_option("quad_ucb", "alpha") and not takes_option("quad_ucb", "beta")


def test_ucb_matches_the_formula_worked_by_hand() -> None:
    policy = QuadUCB(facts(3), {"alpha": 0.5})
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


def test_quad_s_raw_constants_take_raw_rewards_and_one_pull_more() -> None:
    policy = fed(QuadUCB(facts(2), {"raw": True}), {0: [0.003], 1: [0.001, 0.002]})
    assert not policy.standardised and policy.options.alpha == 1e-4
    # T = (1, 1): 1e-4 sqrt(2 ln 2 / 2)
    np.testing.assert_allclose(policy.bonus(), 1e-4 * math.sqrt(math.log(2)))
    assert QuadUCB(facts(2), {"raw": True, "alpha": 0.2}).options.alpha == 0.2


def test_an_arm_that_quad_s_code_never_pulled_stands_at_tau() -> None:
    policy = fed(QuadUCB(facts(3), {"raw": True}), {0: [0.005], 1: [-0.001]})
    np.testing.assert_allclose(policy.mean(), [0.005, -0.001, 0.002])
    assert policy.choose(turn([True] * 3, 3)).tolist() == [0, 2, 1]
    # sum T = 2 and T + 1 = 1: 1e-4 sqrt(2 ln 2)
    assert policy.bonus()[2] == pytest.approx(1e-4 * math.sqrt(2 * math.log(2)))


def test_the_more_an_arm_was_pulled_the_smaller_its_bonus() -> None:
    policy = QuadUCB(facts(2), {"alpha": 1.0})
    policy.observe(0, np.array([0.0]))
    for _ in range(5):
        policy.observe(1, np.array([0.0]))
    assert policy.bonus()[0] > policy.bonus()[1] > 0


def test_unpulled_arms_come_first_then_scores_and_ties_go_to_the_smaller_arm() -> None:
    policy = fed(QuadUCB(facts(5)), {0: [0.0], 2: [5.0], 3: [5.0]})
    assert policy.choose(turn([True] * 5, 5)).tolist() == [1, 4, 2, 3, 0]


def test_only_open_arms_are_chosen_and_no_more_than_asked() -> None:
    policy = fed(QuadUCB(facts(4), {"alpha": 0.0}), {0: [4.0], 1: [3.0], 2: [2.0], 3: [1.0]})
    assert policy.choose(turn([False, True, True, True], 2)).tolist() == [1, 2]
    assert policy.choose(turn([False] * 4, 2)).tolist() == []


def test_the_best_of_many_runs_are_those_of_each_run_alone() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        priorities = rng.choice([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf], size=(6, 9))
        open_arms = rng.random((6, 9)) < 0.6
        count = rng.integers(0, 7, 6)
        many = best_first(priorities, open_arms, count)
        for run in range(6):
            alone = best_first(priorities[run], open_arms[run], int(count[run]))
            order = sorted(np.flatnonzero(open_arms[run]).tolist(), key=lambda arm: (-priorities[run, arm], arm))
            assert alone.tolist() == order[: count[run]]
            assert many[run][many[run] >= 0].tolist() == alone.tolist()


def test_a_prior_counts_as_its_probes() -> None:
    prior = Prior(np.array([2.0, np.nan]), np.array([4.0, np.nan]), np.array([4.0, 0.0]))
    policy = QuadUCB(facts(2, prior=prior))
    assert policy.tally.probes.tolist() == [4, 0] and policy.tally.pulls.tolist() == [1, 0]
    assert policy.mean()[0] == 2.0 and math.isnan(policy.mean()[1])
    assert policy.tally.variance()[0] == pytest.approx(4)
    policy.observe(0, np.array([4.0, 4.0]))
    assert policy.mean()[0] == pytest.approx((4 * 2 + 8) / 6)


def test_arms_and_their_facts_have_one_length() -> None:
    with pytest.raises(ValueError, match="centroids"):
        facts(3, centroids=np.zeros((2, 4)))


def test_neighbours_share_rewards_by_distance_as_worked_by_hand() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0]])
    policy = QuadUCB(facts(3, centroids=points))
    policy.share(0.2)
    fed(policy, {0: [2.0, 4.0], 1: [1.0]})
    # the weight between 0 and 1 is 1 - 0.1 / 0.2 = 0.5
    np.testing.assert_allclose(policy.tally.probes, [2 + 0.5, 1 + 0.5 * 2, 0])
    np.testing.assert_allclose(policy.tally.pulls, [1.5, 1.5, 0])
    np.testing.assert_allclose(policy.mean()[:2], [(6 + 0.5) / 2.5, (1 + 3) / 2])
    assert math.isnan(policy.mean()[2])


def test_sharing_as_released_counts_a_whole_pull_for_a_neighbour_s_faded_reward() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0]])
    policy = QuadUCB(facts(3, centroids=points))
    policy.share(0.2, "released")
    fed(policy, {0: [2.0, 4.0]})
    np.testing.assert_allclose(policy.tally.pulls, [1, 1, 0])
    np.testing.assert_allclose(policy.mean()[:2], [3.0, 1.5])


def test_a_radius_that_reaches_no_other_arm_changes_nothing() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    plain, shared = QuadUCB(facts(5)), QuadUCB(facts(5, centroids=points))
    shared.share(1e-6)
    for policy in (plain, shared):
        fed(policy, {arm: [arm * 0.5, 1.0] for arm in range(5)})
    np.testing.assert_array_equal(plain.scores(), shared.scores())


def test_sharing_needs_centroids() -> None:
    with pytest.raises(UserError, match="centroids"):
        QuadUCB(facts(2)).share(0.2)
