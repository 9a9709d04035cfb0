"""Every policy's formula on a case small enough to work by hand."""

import math

import numpy as np
import pytest

from winnow.errors import UserError
from winnow.selection.belief import aged, believe, noise_of, standardise
from winnow.selection.boundary import cut, filled, unit_loss
from winnow.selection.draws import normals, students, uniforms
from winnow.selection.facts import ArmFacts, Prior
from winnow.selection.policies import Policy, Round, policy_class
from winnow.selection.tally import Tally


def facts(count: int, **more: object) -> ArmFacts:
    return ArmFacts(np.full(count, 100), np.full(count, 1000), **more)  # type: ignore[arg-type]


def make(name: str, count: int, seed: int = 0, arms: ArmFacts | None = None, **options: float | str | bool) -> Policy:
    return policy_class(name)(arms or facts(count), options, seed)


def fed(policy: Policy, rewards: dict[int, list[float]]) -> Policy:
    for arm, seen in rewards.items():
        policy.observe(arm, np.array(seen))
    return policy


def turn(count: int, arms: int, number: int = 1, probes: int = 1000, tokens: int = 1000) -> Round:
    return Round(number, np.ones(arms, dtype=bool), count, probes, tokens, np.full(arms, 1000))


def tally(rewards: list[list[float]]) -> Tally:
    result = Tally.empty((len(rewards),))
    for arm, seen in enumerate(rewards):
        values = np.array(seen)
        sums = (1, len(values), values.sum(), (values**2).sum())
        result.add(np.array([arm]), *(np.array([value], dtype=float) for value in sums))
    return result


def test_greedy_is_the_mean() -> None:
    policy = fed(make("greedy", 2), {0: [1.0, 2.0], 1: [4.0]})
    assert policy.scores().tolist() == [1.5, 4.0]


def test_cluster_ucb_adds_the_standard_deviation_seen() -> None:
    policy = fed(make("cluster_ucb", 3, beta=0.5), {0: [1.0, 3.0], 1: [0.0, 1.0, 2.0], 2: [5.0]})
    # unbiased variances 2 and 1 with 1 and 2 degrees: pooled (2 + 2) / 3, which arm 2 takes
    np.testing.assert_allclose(policy.bonus(), 0.5 * np.sqrt([2, 1, 4 / 3]))
    np.testing.assert_allclose(policy.scores() - policy.bonus(), [2, 1, 5])


def test_ucb_v_matches_the_formula() -> None:
    policy = fed(make("ucb_v", 2), {0: [1.0, 3.0], 1: [0.0, 0.0]})
    rate = 1.2 * math.log(4)
    # V = (1, 0), n = 2
    np.testing.assert_allclose(policy.bonus(), [math.sqrt(2 * rate / 2) + 3 * rate / 2, 3 * rate / 2])


def test_discounted_ucb_matches_the_formula_after_a_round() -> None:
    policy = fed(make("discounted_ucb", 2, gamma=0.5, xi=0.6, bound=1.0), {0: [2.0], 1: [1.0]})
    policy.end_round()
    policy.observe(0, np.array([5.0]))
    # N = (0.5 + 1, 0.5), mean of arm 0 = (0.5 * 2 + 5) / 1.5
    np.testing.assert_allclose(policy.mean(), [4.0, 1.0])
    np.testing.assert_allclose(policy.bonus(), 2 * np.sqrt(0.6 * math.log(2) / np.array([1.5, 0.5])))


def test_a_window_forgets_the_round_that_leaves_it() -> None:
    policy = fed(make("sliding_window_ucb", 2, window=2, bound=1.0), {0: [2.0], 1: [1.0]})
    policy.end_round()
    policy.observe(0, np.array([6.0]))
    np.testing.assert_allclose(policy.mean(), [4.0, 1.0])
    np.testing.assert_allclose(policy.bonus(), np.sqrt(0.6 * math.log(3) / np.array([2, 1])))
    policy.end_round()
    assert policy.mean()[0] == 6.0 and math.isnan(policy.mean()[1])
    assert policy.choose(turn(1, 2)).tolist() == [1]


def test_thompson_s_posterior_is_the_conjugate_one() -> None:
    policy = fed(make("thompson", 2, variance=2.0, prior_mean=1.0, prior_variance=4.0), {0: [3.0, 5.0]})
    # precision 1/4 + 2/2 = 1.25; mean (1/4 + 8/2) / 1.25 = 3.4; the other arm keeps the prior
    np.testing.assert_allclose(policy.mean(), [3.4, 1.0])
    draws = np.array([make_draw(seed) for seed in range(400)])
    np.testing.assert_allclose(draws.mean(axis=0), [3.4, 1.0], atol=0.3)
    np.testing.assert_allclose(draws.var(axis=0), [0.8, 4.0], rtol=0.25)


def make_draw(seed: int) -> np.ndarray:
    policy = make("thompson", 2, seed, variance=2.0, prior_mean=1.0, prior_variance=4.0)
    return fed(policy, {0: [3.0, 5.0]}).scores()


def test_a_discount_lets_thompson_drift_back_to_its_prior() -> None:
    policy = fed(make("thompson", 1, discount=0.5), {0: [3.0]})
    assert policy.mean()[0] == 1.5
    policy.end_round()
    assert policy.mean()[0] == pytest.approx(1.5 / 1.5)


def test_variance_adaptive_thompson_matches_the_conjugate_update_worked_by_hand() -> None:
    policy = make("thompson_variance", 2, prior="fixed", mean=1.0, strength=2.0, shape=3.0, scale=2.0)
    belief = fed(policy, {0: [2.0, 4.0]}).belief
    # n = 2, y = 3, S = 2: k = 4, m = (2 + 6) / 4 = 2, a = 4, b = 2 + 1 + 2 * 2 * 4 / 8 = 5
    assert belief.mean.tolist() == [2.0, 1.0]
    np.testing.assert_allclose(belief.variance, [5 / (4 * 4), 2 / (3 * 2)])
    np.testing.assert_allclose(belief.degrees, [8, 6])
    np.testing.assert_allclose(belief.noise, [5 / 3, 2 / 2])
    draw = students(np.array(0), 0, 0, belief.degrees)
    np.testing.assert_allclose(policy.scores(), belief.mean + np.sqrt(belief.variance) * draw)


def test_an_arm_of_noisy_rewards_is_drawn_wider() -> None:
    calm, wild = [1.0, 1.1, 0.9, 1.0] * 3, [4.0, -2.0, 3.0, -1.0] * 3
    for prior in ("fixed", "hierarchical"):
        rewards = {arm: [0.1 * arm + reward for reward in (wild if arm % 2 else calm)] for arm in range(8)}
        belief = fed(make("thompson_variance", 8, prior=prior), rewards).belief
        assert belief.noise[1::2].min() > 3 * belief.noise[::2].max()
        assert belief.variance[1::2].min() > belief.variance[::2].max()


def test_the_policy_aiming_at_the_budget_pulls_only_where_a_draw_would_choose_otherwise() -> None:
    # arm 0 is surely in, arm 3 surely out, 1 and 2 are at the edge of a budget of two arms
    rewards = {0: [9.0, 9.1] * 20, 1: [0.1, -0.4], 2: [-0.2, 0.3], 3: [-9.0, -9.1] * 20}
    pulled = set()
    for seed in range(20):
        policy = fed(make("thompson_variance", 4, seed, aim="budget"), rewards)
        pulled |= set(policy.choose(turn(2, 4, tokens=2000)).tolist())
        swapped = policy.choose(turn(2, 4, tokens=2000)).tolist()
        assert len(swapped) == 2
    edge = fed(make("thompson_variance", 4, 1, aim="budget"), rewards)
    assert not edge.settled(turn(2, 4, tokens=2000))
    sure = fed(make("thompson_variance", 4, 1, aim="budget"), {arm: [10.0 - 5 * arm] * 30 for arm in range(4)})
    assert sure.settled(turn(2, 4, tokens=2000))
    assert {1, 2} <= pulled


def test_hierarchical_shrinkage_worked_by_hand() -> None:
    # two probes an arm, scatter 2 each: variance 2 of one reward, error 1 of a mean; means 0, 4, 8
    rewards = [[-1.0, 1.0], [3.0, 5.0], [7.0, 9.0]]
    belief = believe(tally(rewards))
    # the variances are equal, so the prior of the variance is as sharp as allowed, and noise stays 2
    np.testing.assert_allclose(belief.noise, 2.0)
    # between: variance of the means 16, less error 1 = 15; trust 15 / 16
    np.testing.assert_allclose(belief.mean, 4 + np.array([-4, 0, 4]) * 15 / 16)
    np.testing.assert_allclose(belief.variance, 15 / 16)
    # a pull of 2 more: variance / sqrt(variance + 1)
    np.testing.assert_allclose(belief.learnable(2), 0.9375 / math.sqrt(1.9375))


def test_an_arm_never_seen_is_believed_average_with_the_spread_of_arms() -> None:
    belief = believe(tally([[-1.0, 1.0], [3.0, 5.0], [7.0, 9.0], []]))
    assert belief.mean[3] == pytest.approx(4.0) and belief.variance[3] == pytest.approx(15.0)


def test_variances_are_shrunk_by_as_much_as_they_could_differ_by_chance() -> None:
    rng = np.random.default_rng(0)
    same = tally([rng.normal(size=12).tolist() for _ in range(300)])
    apart = tally([(rng.lognormal(0, 0.8) * rng.normal(size=12)).tolist() for _ in range(300)])
    noise, degrees, pooled = noise_of(same)
    assert np.ptp(noise) < 0.4 and degrees[0] > 40 and pooled[0] == pytest.approx(1, abs=0.1)
    noise, degrees, _ = noise_of(apart)
    assert np.ptp(noise) > 3 and degrees[0] < 20


def test_equal_rewards_leave_a_belief_that_is_finite_and_flat() -> None:
    belief = believe(tally([[0.5, 0.5], [0.5, 0.5]]))
    np.testing.assert_allclose(belief.mean, 0.5)
    assert np.isfinite(belief.variance).all() and (belief.variance < 1e-6).all()


def slow_regression(rewards: list[list[float]], x: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The model of belief.py with dense matrices: posterior mean and variance of f, and log likelihood."""
    seen = [np.array(values) for values in rewards]
    plain = believe(tally(rewards))
    y, error = np.array([v.mean() for v in seen]), plain.noise / [len(v) for v in seen]
    low, high = 0.0, 100.0
    for _ in range(100):  # Paule and Mandel's equation, by bisection
        spread = (low + high) / 2
        center = np.average(y, weights=1 / (spread + error))
        low, high = (spread, high) if ((y - center) ** 2 / (spread + error)).sum() > len(y) - 1 else (low, spread)
    prior = spread * (share * x @ x.T / x.shape[1] + (1 - share) * np.eye(len(y)))
    total = prior + np.diag(error)
    gain = prior @ np.linalg.inv(total)
    residual = y - center
    fit = -0.5 * (np.linalg.slogdet(total)[1] + residual @ np.linalg.solve(total, residual))
    return center + gain @ residual, np.diag(prior - gain @ prior), fit


def test_the_regression_on_features_is_its_dense_twin_at_the_likeliest_share() -> None:
    from winnow.selection.belief import EXPLAINED

    rng = np.random.default_rng(5)
    for strength in (0.0, 1.0, 3.0):
        x = standardise(rng.normal(size=(14, 2)))
        assert x is not None
        means = strength * x[:, 0] + rng.normal(size=14)
        rewards = [rng.normal(means[arm], 1, size=int(rng.integers(2, 9))).tolist() for arm in range(14)]
        belief = believe(tally(rewards), x)
        mean, variance, _ = max((slow_regression(rewards, x, share) for share in EXPLAINED), key=lambda found: found[2])
        np.testing.assert_allclose(belief.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(belief.variance, variance, rtol=1e-6)


def test_many_runs_believe_what_each_believes_alone() -> None:
    rng = np.random.default_rng(1)
    shape = (4, 9)
    probes = rng.integers(0, 6, shape).astype(float)
    total = rng.normal(size=shape) * probes
    squares = total**2 / np.maximum(probes, 1) + rng.random(shape) * (probes > 1)
    x = standardise(rng.normal(size=(*shape, 3)))
    assert x is not None
    nothing = np.zeros(shape)
    together = believe(Tally(probes > 0, probes, total, squares, nothing, nothing), x)
    for run in range(4):
        of_run = Tally(probes[run] > 0, probes[run], total[run], squares[run], nothing[run], nothing[run])
        alone = believe(of_run, x[run])
        np.testing.assert_allclose(together.mean[run], alone.mean)
        np.testing.assert_allclose(together.variance[run], alone.variance)


def test_an_aged_prior_says_of_the_drifted_means_what_bayes_says() -> None:
    seen = tally([[-1.0, 1.0], [3.0, 5.0], [7.0, 9.0]])
    prior = Prior(seen.mean(), np.full(3, 2.0), seen.probes)
    # as above: center 4, spread 15, error 1. keep 0.64: f' = 4 + 0.8 (f - 4) + news of variance 0.36 * 15
    old = aged(prior, 0.64)
    loss = (15 + 1) / 0.64 - 15
    np.testing.assert_allclose(old.count, 2 / loss)
    np.testing.assert_allclose(old.mean, 4 + np.array([-4, 0, 4]) / 0.8)
    trust = 15 / (15 + 2 / old.count)
    np.testing.assert_allclose(4 + trust * (old.mean - 4), 4 + 0.8 * np.array([-4, 0, 4]) * 15 / 16)
    np.testing.assert_allclose(15 * (1 - trust), 0.64 * 15 / 16 + 0.36 * 15)
    assert aged(prior, 0.0).count.tolist() == [0, 0, 0]
    np.testing.assert_allclose(aged(prior, 1.0).count, prior.count)


def test_well_known_arms_lose_most_by_aging() -> None:
    prior = Prior(np.array([0.0, 1.0, 2.0, 3.0]), np.ones(4), np.array([2.0, 2.0, 200.0, 200.0]))
    kept = aged(prior, 0.8).count / prior.count
    assert kept[0] > 0.5 and kept[2] < 0.1


def test_features_are_standardised_and_wide_tables_reduced() -> None:
    rng = np.random.default_rng(0)
    found = standardise(rng.normal(size=(50, 30)), rng.normal(3, 5, size=(50, 2)), most=4)
    assert found is not None and found.shape == (50, 6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((found[:, 4:] ** 2).mean(axis=0), 1)
    assert standardise(None, None) is None


def test_lin_ucb_knows_an_arm_it_never_pulled_by_its_centroid_and_falls_back_where_the_line_is_wrong() -> None:
    rng = np.random.default_rng(2)
    centroids = np.linspace(-1, 1, 12)[:, None].astype(np.float32)
    line = 3 * centroids[:, 0]
    wrong = rng.permutation(np.linspace(-3, 3, 12))
    for truth, known in ((line, True), (wrong, False)):
        arms = facts(12, centroids=centroids)
        policy = make("lin_ucb", 12, arms=arms)
        fed(policy, {arm: (truth[arm] + 0.1 * rng.normal(size=8)).tolist() for arm in range(11)})
        mean = policy.mean()
        np.testing.assert_allclose(mean[:11], truth[:11], atol=0.3)
        assert (abs(mean[11] - truth[11]) < 0.6) == known
        assert policy.bonus()[11] > policy.bonus()[:11].max()


def test_lin_ucb_needs_centroids_or_features() -> None:
    with pytest.raises(UserError, match=r"lin_ucb.*centroids"):
        make("lin_ucb", 3)


def test_deup_learns_that_its_errors_are_larger_than_the_textbook_says() -> None:
    rng = np.random.default_rng(0)
    calm, shifting = make("deup", 40, ridge=1.0), make("deup", 40, ridge=1.0)
    for step in range(6):
        for arm in range(40):
            calm.observe(arm, rng.normal(size=4))
            shifting.observe(arm, rng.normal(3 * rng.normal() * (step > 0), 1, size=4))
    np.testing.assert_allclose(calm.bonus(), np.sqrt(noise_of(calm.tally)[0] / 24), atol=0.2)
    assert shifting.bonus().min() > 2 * calm.bonus().max()


def test_deup_s_regression_is_the_ridge_worked_by_hand() -> None:
    policy = make("deup", 1, ridge=2.0)
    policy.observe(0, np.array([1.0, 3.0]))  # the first pull has no prediction to judge
    np.testing.assert_allclose(policy.coefficients(), [0, 1, 0])  # type: ignore[attr-defined]
    noise = noise_of(policy.tally)[0][0]
    x = np.array([1, noise / 2, 1 / 2])
    policy.observe(0, np.array([5.0]))
    error = (5 - 2) ** 2 - noise / 1
    expected = np.linalg.solve(2 * np.eye(3) + np.outer(x, x), 2 * np.array([0, 1, 0]) + x * error)
    np.testing.assert_allclose(policy.coefficients(), expected)  # type: ignore[attr-defined]


def test_exp3_probabilities_match_online_data_mixing() -> None:
    policy = fed(make("exp3", 2), {0: [2.0], 1: [1.0]})
    np.testing.assert_allclose(policy.estimates, [0.2, 0.1])  # type: ignore[attr-defined]
    policy.number = 4
    before, now = math.sqrt(math.log(2) / (2 * 3)), math.sqrt(math.log(2) / (2 * 4))
    weights = np.exp(before * np.array([0.2, 0.1]))
    expected = (1 - 2 * now) * weights / weights.sum() + now
    np.testing.assert_allclose(policy.probabilities(), expected)  # type: ignore[attr-defined]
    assert expected.sum() == pytest.approx(1)


def test_exp3_weighs_a_reward_by_the_chance_of_its_arm() -> None:
    policy = fed(make("exp3", 4, estimate="importance"), {0: [2.0]})
    assert policy.estimates[0] == 2.0  # type: ignore[attr-defined]
    policy.end_round()
    policy.observe(1, np.array([3.0, 5.0]))
    assert policy.estimates[1] == pytest.approx(4 / 0.25)  # type: ignore[attr-defined]


def test_exp3_draws_arms_as_often_as_their_probability_says() -> None:
    policy = make("exp3", 3)
    policy.number, policy.estimates = 400, np.array([60.0, 30.0, 0.0])  # type: ignore[attr-defined]
    first = np.array([policy.choose(turn(1, 3, number))[0] for number in range(3000)])
    chances = policy.probabilities()  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.bincount(first, minlength=3) / 3000, chances, atol=0.03)


def test_successive_halving_drops_the_worse_half_until_the_budget_is_left() -> None:
    policy = make("successive_halving", 8)
    truth = np.array([0.0, 7.0, 2.0, 5.0, 4.0, 3.0, 6.0, 1.0])
    probes, seen = 48, []
    while probes > 0:
        chosen = policy.choose(turn(2, 8, probes=probes, tokens=2000))  # two arms of 1000 tokens: two phases
        seen.append(set(chosen.tolist()))
        for arm in chosen.tolist():
            policy.observe(arm, np.full(2, truth[arm]))
            probes -= 2
        policy.end_round()
    # 24 probes a phase: 3 an arm, so 2 pulls of 2; then the 16 left over 4 survivors
    assert policy.tally.probes.tolist() == [4, 8, 4, 8, 8, 4, 8, 4]
    survivors = np.flatnonzero(policy.alive)  # type: ignore[attr-defined]
    assert survivors.tolist() == [1, 3, 4, 6]
    assert all(arms <= {1, 3, 4, 6} for arms in seen[-4:])
    assert np.argsort(-policy.values())[:2].tolist() == [1, 6]


def test_round_robin_takes_every_arm_in_turn() -> None:
    policy = make("round_robin", 5)
    pulled = []
    for number in range(5):
        for arm in policy.choose(turn(2, 5, number)).tolist():
            policy.observe(arm, np.array([float(arm)]))
            pulled.append(arm)
    assert pulled == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_uniform_draws_every_arm_equally_often_and_none_twice_a_round() -> None:
    policy = make("uniform", 6)
    rounds = [policy.choose(turn(3, 6, number)).tolist() for number in range(2000)]
    assert all(len(set(chosen)) == 3 for chosen in rounds)
    np.testing.assert_allclose(np.bincount(np.concatenate(rounds)) / 2000, 0.5, atol=0.05)


def test_epsilon_greedy_takes_the_best_but_for_its_share_of_random_pulls() -> None:
    rewards = {arm: [float(arm)] for arm in range(10)}
    assert fed(make("epsilon_greedy", 10, epsilon=0.0), rewards).choose(turn(3, 10)).tolist() == [9, 8, 7]
    policy = fed(make("epsilon_greedy", 10, epsilon=0.4), rewards)
    rounds = [policy.choose(turn(1, 10, number))[0] for number in range(1000)]
    assert np.mean(np.array(rounds) == 9) == pytest.approx(0.6 + 0.04, abs=0.05)
    blind = fed(make("epsilon_greedy", 10, epsilon=1.0), rewards)
    assert np.mean([blind.choose(turn(1, 10, number))[0] == 9 for number in range(1000)]) == pytest.approx(
        0.1, abs=0.04
    )


def test_proportional_shares_follow_the_tokens() -> None:
    policy = make("proportional", 3, arms=ArmFacts(np.array([1, 2, 0]), np.array([30, 70, 0])))
    assert policy.shares().tolist() == [0.3, 0.7, 0.0]  # type: ignore[union-attr]
    assert not policy.probing


def test_the_knowledge_gradient_values_a_pull_by_what_may_cross_the_cut() -> None:
    rewards = {0: [8.0, 10.0], 1: [3.0, 5.0], 2: [2.0, 4.0], 3: [-8.0, -6.0]}
    policy = fed(make("knowledge_gradient", 4, probes=2), rewards)
    belief = policy.belief  # type: ignore[attr-defined]
    step = belief.learnable(2)
    # two arms of 1000 tokens are taken, 0 and 1: they compare with arm 2, the others with arm 1
    gap = np.abs(belief.mean - belief.mean[[2, 2, 1, 1]]) / step
    density = np.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
    tail = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in gap])
    worth = 1000 * step * (density - gap * tail)
    view = turn(1, 4, tokens=2000)
    np.testing.assert_allclose(
        policy._worth(step, filled(belief.mean, view.left, 2000), view), worth, rtol=1e-9, atol=1e-12
    )  # type: ignore[attr-defined]
    chosen = policy.choose(turn(2, 4, tokens=2000)).tolist()
    assert set(chosen) == {1, 2}
    np.testing.assert_allclose(policy.bonus(), step)


def test_the_knowledge_gradient_is_settled_when_no_arm_can_cross() -> None:
    policy = fed(make("knowledge_gradient", 4), {arm: [10.0 - 5 * arm, 10.1 - 5 * arm] for arm in range(4)})
    assert policy.settled(turn(1, 4, tokens=2000))
    open_case = fed(make("knowledge_gradient", 4), {arm: [1.0 + 0.1 * arm, -1.0] for arm in range(4)})
    assert not open_case.settled(turn(1, 4, tokens=2000))


def test_larger_arms_at_the_cut_are_worth_more_probes() -> None:
    arms = ArmFacts(np.full(3, 100), np.array([1000, 5000, 1000]))
    policy = fed(make("knowledge_gradient", 3, arms=arms), {arm: [-1.0, 1.0 + 0.01 * arm] for arm in range(3)})
    view = Round(1, np.ones(3, dtype=bool), 1, 100, 3000, arms.tokens)
    assert policy.choose(view).tolist() == [1]


def test_a_budget_is_filled_from_the_best_arm_down_and_the_cut_is_the_other_side() -> None:
    values, tokens = np.array([1.0, 3.0, np.nan, 3.0, 2.0]), np.array([10, 10, 10, 10, 10])
    given = filled(values, tokens, 25)
    assert given.tolist() == [0, 10, 0, 10, 5]
    known = np.where(np.isnan(values), -9.0, values)
    assert cut(known, given).tolist() == [2, 1, 2, 1, 1]
    assert filled(values, tokens, 99).sum() == 50
    assert unit_loss(np.array([0.0, np.inf]))[0] == pytest.approx(1 / math.sqrt(2 * math.pi))
    assert unit_loss(np.array([np.inf]))[0] == 0


def test_a_prior_of_the_last_checkpoint_takes_the_place_of_probes() -> None:
    prior = Prior(np.array([1.0, -1.0]), np.array([1.0, 1.0]), np.array([50.0, 50.0]))
    for name in ("thompson", "thompson_variance", "knowledge_gradient", "quad_ucb"):
        assert make(name, 2, arms=facts(2, prior=prior)).mean()[0] > 0.8


def test_a_posterior_hands_over_mean_variance_and_probes() -> None:
    policy = fed(make("greedy", 3), {0: [1.0, 3.0], 1: [2.0]})
    prior = policy.posterior()
    assert prior.mean[:2].tolist() == [2.0, 2.0] and prior.count.tolist() == [2, 1, 0]
    np.testing.assert_allclose(prior.variance, 2.0)  # one reward alone says nothing of its variance


def test_draws_are_uniform_normal_and_student_and_repeat() -> None:
    seeds = np.arange(50)
    flat = uniforms(seeds, 0, 3, 400)
    assert flat.min() > 0 and flat.max() < 1 and flat.mean() == pytest.approx(0.5, abs=0.01)
    assert flat.var() == pytest.approx(1 / 12, abs=0.002)
    drawn = normals(seeds, 1, 3, 400)
    assert drawn.mean() == pytest.approx(0, abs=0.03) and drawn.std() == pytest.approx(1, abs=0.02)
    wide = students(seeds, 1, 3, np.full((50, 400), 8.0))
    assert wide.var() == pytest.approx(8 / 6, rel=0.1)
    assert uniforms(np.array(7), 0, 3, 5).tobytes() == uniforms(np.array([7, 8]), 0, 3, 9)[0, :5].tobytes()
    assert len({uniforms(np.array(seed), stream, 3, 1)[0] for seed in range(20) for stream in range(20)}) == 400
