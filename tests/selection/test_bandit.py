import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.selection import (
    Arms,
    BanditResult,
    BanditSettings,
    arm_facts,
    build_arms,
    opening_probes,
    run_bandit,
)

SETTINGS = BanditSettings(block_tokens=200, max_probes=400, arms_per_round=2, probes_per_pull=4, seed=3)


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def pool(sizes: list[int], seed: int = 0) -> Arms:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)) * 10, sizes)
    return build_arms(ids(len(labels), seed), labels, rng.integers(1, 40, len(labels)), np.arange(len(sizes)) * 10)


def run(
    arms: Arms, influence: np.ndarray, budget: int, how: BanditSettings = SETTINGS, opening: int = 3
) -> BanditResult:
    probes = opening_probes(arms, opening, how.seed)
    return run_bandit(arms, probes, influence[probes], lambda positions: influence[positions], budget, how)


def planted(arms: Arms, good: set[int], seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1e-3, len(arms.tokens))
    return np.array([2e-3 if arm in good else -1e-3 for arm in arms.arm_of.tolist()]) + noise


def same(left: BanditResult, right: BanditResult) -> bool:
    arrays = ("granted_tokens", "probed", "rewards", "excluded")
    return left.ledger().equals(right.ledger()) and all(
        getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in arrays
    )


def test_opening_probes_draw_the_same_number_from_every_arm_without_replacement() -> None:
    arms = pool([5, 0, 2, 40])
    probes = opening_probes(arms, 3, seed=0)
    assert np.bincount(arms.arm_of[probes], minlength=4).tolist() == [3, 0, 2, 3]
    assert len(set(probes.tolist())) == len(probes)
    assert opening_probes(arms, 3, seed=1).tolist() != probes.tolist()


def test_more_opening_probes_contain_fewer() -> None:
    arms = pool([20, 30])
    assert set(opening_probes(arms, 3, 0).tolist()) < set(opening_probes(arms, 6, 0).tolist())


def test_arms_refuse_a_document_that_occurs_twice() -> None:
    twice = np.repeat(ids(1), 2, axis=0)
    with pytest.raises(UserError, match="occurs twice"):
        build_arms(twice, np.array([0, 1]), np.array([1, 1]))


def test_good_clusters_get_most_of_the_tokens() -> None:
    arms = pool([100] * 8)
    result = run(arms, planted(arms, {1, 5}), int(arms.arm_tokens()[[1, 5]].sum()))
    assert result.granted_tokens[[1, 5]].sum() > 0.9 * result.granted_tokens.sum()
    refused = [pull for pull in result.pulls if pull.verdict == "refused"]
    assert all(pull.tokens_granted == 0 and pull.cluster not in (10, 50) for pull in refused)


def test_rewards_are_standardised_so_the_scale_of_influence_changes_no_grant() -> None:
    arms = pool([60] * 6)
    influence = planted(arms, {2})
    plain = run(arms, influence, 2000)
    scaled = run(arms, influence * 1024.0, 2000)
    assert plain.granted_tokens.tolist() == scaled.granted_tokens.tolist()
    np.testing.assert_allclose(
        [pull.bonus for pull in plain.pulls], [pull.bonus for pull in scaled.pulls], equal_nan=True
    )


def test_the_ledger_of_a_small_case_matches_the_hand_calculation() -> None:
    labels = np.repeat([7, 9], [4, 4])
    arms = build_arms(ids(8), labels, np.full(8, 10))
    influence = np.where(labels == 7, 3.0, 1.0)
    how = BanditSettings(
        block_tokens=20,
        max_probes=100,
        policy_options={"alpha": 0.5},
        arms_per_round=1,
        probes_per_pull=1,
        accept_threshold=0.0,
    )
    result = run(arms, influence, 40, how, opening=1)
    # opening rewards 3 and 1: center 2, scale 1, so the z-scores are +1 and -1; T = (1, 1)
    assert (result.center, result.scale) == (2.0, 1.0)
    rows = [(pull.round, pull.cluster, pull.verdict, pull.tokens_granted) for pull in result.pulls]
    assert rows == [(0, 7, "opening", 0), (0, 9, "opening", 0), (1, 7, "accepted", 20), (2, 7, "accepted", 20)]
    first, second = result.pulls[2:]
    assert first.score == pytest.approx(1 + 0.5 * math.sqrt(2 * math.log(2) / 1))
    assert second.score == pytest.approx(1 + 0.5 * math.sqrt(2 * math.log(3) / 2))
    assert (first.reward, first.arm_mean, first.documents_granted, first.cost) == (3.0, 1.0, 2, 10)
    assert result.bonus_ratio == pytest.approx((first.bonus + second.bonus) / 2)


def test_an_exhausted_cluster_is_never_pulled_again() -> None:
    arms = pool([5, 80, 80])
    result = run(arms, planted(arms, {0, 1}), int(arms.arm_tokens()[:2].sum()))
    assert result.granted_tokens[0] == arms.arm_tokens()[0]
    rows = [pull for pull in result.pulls if pull.cluster == 0]
    spent = next(i for i in range(len(rows)) if sum(p.tokens_granted for p in rows[: i + 1]) == arms.arm_tokens()[0])
    assert spent == len(rows) - 1


def test_an_empty_cluster_has_no_row_and_no_grant() -> None:
    arms = pool([30, 0, 30])
    result = run(arms, planted(arms, {0}), arms.pool_tokens)
    assert 10 not in {pull.cluster for pull in result.pulls}
    assert result.granted_tokens.tolist() == arms.arm_tokens().tolist()


@pytest.mark.parametrize("value", [0.0, 0.1, -7e-4])
def test_equal_rewards_are_all_refused_and_the_budget_is_filled(value: float) -> None:
    arms = pool([30, 30, 30])
    result = run(arms, np.full(90, value), 700)
    assert {pull.verdict for pull in result.pulls} == {"opening", "refused", "filled"}
    assert result.granted_tokens.sum() == 700
    assert all(pull.probes == 0 for pull in result.pulls if pull.verdict == "filled")


def test_a_reward_that_is_no_number_is_excluded_and_recorded() -> None:
    arms = pool([40, 40])
    influence = planted(arms, {0})
    broken = influence.copy()
    broken[arms.positions[::3]] = np.nan
    result = run(arms, broken, 500)
    measured = np.concatenate([opening_probes(arms, 3, SETTINGS.seed), result.probed])
    assert sorted(result.excluded.tolist()) == sorted(measured[np.isnan(broken[measured])].tolist())
    assert sum(pull.excluded for pull in result.pulls) == len(result.excluded) > 0
    assert all(math.isfinite(pull.arm_mean) for pull in result.pulls if pull.verdict == "accepted")


def test_a_cluster_without_any_finite_reward_is_filled_last() -> None:
    arms = pool([30, 30, 30])
    influence = planted(arms, {1})
    influence[arms.arm_of == 0] = np.nan
    result = run(arms, influence, arms.pool_tokens - 1)
    assert result.pulls[-1].cluster == 0 and result.pulls[-1].verdict == "filled"
    assert result.ledger().column("arm_mean").to_pylist()[-1] is None


def test_no_finite_opening_reward_is_an_error() -> None:
    arms = pool([5])
    with pytest.raises(UserError, match="finite reward"):
        run(arms, np.full(5, np.nan), 10)


def test_when_the_probes_are_spent_the_mean_is_reused() -> None:
    arms = pool([100, 100])
    result = run(arms, planted(arms, {0}), 1500, replace(SETTINGS, max_probes=10))
    assert sum(pull.probes for pull in result.pulls) == 10
    late = [pull for pull in result.pulls if pull.verdict == "accepted" and pull.probes == 0]
    assert late and {pull.cluster for pull in late} == {0}
    for pull in late:
        assert pull.reward == pytest.approx(result.center + result.scale * pull.arm_mean)
        assert pull.cost == 0


def test_documents_are_measured_once_at_most_and_in_one_call_a_round() -> None:
    arms = pool([50] * 4)
    influence, calls = planted(arms, {0, 3}), []

    def measure(positions: np.ndarray) -> np.ndarray:
        calls.append(positions)
        return influence[positions]

    opening = opening_probes(arms, 3, SETTINGS.seed)
    result = run_bandit(arms, opening, influence[opening], measure, 2000, SETTINGS)
    everything = np.concatenate([opening, *calls])
    assert len(set(everything.tolist())) == len(everything)
    assert len(calls) <= result.rounds
    assert np.concatenate(calls).tolist() == result.probed.tolist()


def test_the_order_in_which_opening_rewards_arrive_changes_nothing() -> None:
    arms = pool([30] * 5)
    influence = planted(arms, {1})
    opening = opening_probes(arms, 4, SETTINGS.seed)
    shuffled = np.random.default_rng(5).permutation(opening)
    measure: Callable[[np.ndarray], np.ndarray] = influence.__getitem__
    left = run_bandit(arms, opening, influence[opening], measure, 900, SETTINGS)
    right = run_bandit(arms, shuffled, influence[shuffled], measure, 900, SETTINGS)
    assert same(left, right)


def test_a_measure_of_the_wrong_length_is_an_error() -> None:
    arms = pool([30, 30])
    opening = opening_probes(arms, 2, 0)
    with pytest.raises(ValueError, match="measure returned"):
        run_bandit(arms, opening, np.arange(4.0), lambda positions: np.zeros(1), 100, SETTINGS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy_options", {"alpha": -1.0}),
        ("policy_options", {"alpha": math.nan}),
        ("policy_options", {"beta": 1.0}),
        ("block_tokens", 0),
        ("policy", "none"),
        ("accept_threshold", math.inf),
        ("neighbour_radius", -0.1),
        ("grants", "never"),
        ("max_probe_tokens", -1),
    ],
)
def test_a_setting_out_of_range_is_an_error_that_names_it(name: str, value: object) -> None:
    told = next(iter(value)) if isinstance(value, dict) else name
    with pytest.raises(UserError, match=told):
        replace(SETTINGS, **{name: value})  # type: ignore[arg-type]


cases = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(0, 25), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0),
        "seed": st.integers(0, 10_000),
        "share": st.floats(0.01, 1.3),
        "nan": st.booleans(),
        "flat": st.booleans(),
        "how": st.builds(
            BanditSettings,
            block_tokens=st.integers(1, 300),
            max_probes=st.integers(0, 60),
            policy_options=st.sampled_from([{"alpha": 0.0}, {"alpha": 0.35}, {"alpha": 5.0}]),
            arms_per_round=st.integers(1, 4),
            probes_per_pull=st.integers(1, 5),
            accept_threshold=st.sampled_from([-5.0, 0.0, 0.5]),
            seed=st.integers(0, 5),
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_grants_sum_to_the_budget_whatever_the_case_and_replays_are_bitwise(case: dict) -> None:
    arms = pool(case["sizes"], case["seed"])
    rng = np.random.default_rng(case["seed"])
    influence = np.full(len(arms.tokens), 0.3) if case["flat"] else rng.normal(size=len(arms.tokens))
    opening = opening_probes(arms, 2, case["how"].seed)
    if case["nan"]:
        influence[rng.random(len(influence)) < 0.3] = np.nan
        influence[opening[0]] = 0.25
    budget = max(1, int(case["share"] * arms.pool_tokens))
    result = run(arms, influence, budget, case["how"], opening=2)
    assert result.granted_tokens.sum() == min(budget, arms.pool_tokens)
    assert (result.granted_tokens <= arms.arm_tokens()).all()
    table = result.ledger()
    assert sum(table.column("tokens_granted").to_pylist()) == result.granted_tokens.sum()
    later = sum(pull.probes for pull in result.pulls if pull.verdict != "opening")
    assert later == len(result.probed) <= max(0, case["how"].max_probes - len(opening))
    for pull in result.pulls:
        if pull.verdict == "accepted":
            assert pull.arm_mean > case["how"].accept_threshold and pull.tokens_granted > 0
        elif pull.verdict == "refused":
            assert not pull.arm_mean > case["how"].accept_threshold and pull.tokens_granted == 0
    assert same(result, run(arms, influence, budget, case["how"], opening=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_the_documents_changes_no_row_of_the_ledger(seed: int) -> None:
    arms = pool([12, 20, 7], seed)
    influence = planted(arms, {1}, seed)
    shuffle = np.random.default_rng(seed).permutation(len(arms.tokens))
    other = build_arms(arms.doc_ids[shuffle], arms.clusters[arms.arm_of][shuffle], arms.tokens[shuffle])
    left, right = run(arms, influence, 400), run(other, influence[shuffle], 400)
    assert left.ledger().equals(right.ledger())
    assert arms.doc_ids[left.probed].tobytes() == other.doc_ids[right.probed].tobytes()


FINAL = replace(SETTINGS, policy="knowledge_gradient", max_probes=120, arms_per_round=3)


def test_with_grants_at_the_end_the_best_means_get_the_tokens_after_all_probes() -> None:
    arms = pool([60] * 6)
    result = run(arms, planted(arms, {1, 4}), int(arms.arm_tokens()[[1, 4]].sum()), FINAL)
    assert [pull.verdict for pull in result.pulls[-2:]] == ["filled", "filled"]
    assert {pull.cluster for pull in result.pulls[-2:]} == {10, 40}
    assert all(pull.tokens_granted == 0 for pull in result.pulls[:-2])
    assert {pull.verdict for pull in result.pulls[:-2]} <= {"opening", "probed"}
    assert result.granted_tokens[[1, 4]].tolist() == arms.arm_tokens()[[1, 4]].tolist()


def test_a_settled_policy_leaves_probes_unspent_and_one_that_is_not_spends_them() -> None:
    arms = pool([60] * 6)
    influence = planted(arms, {1, 4})
    sure = run(arms, influence, int(arms.arm_tokens()[[1, 4]].sum()), FINAL)
    never = run(arms, influence, 2000, replace(FINAL, policy_options={"tolerance": 0.0}))
    assert sum(pull.probes for pull in sure.pulls) < 60
    assert sum(pull.probes for pull in never.pulls) == 120


@pytest.mark.parametrize("policy", ["knowledge_gradient", "thompson_variance", "successive_halving", "quad_ucb"])
@pytest.mark.parametrize("value", [0.0, -7e-4])
def test_equal_rewards_fill_the_budget_at_the_end(policy: str, value: float) -> None:
    arms = pool([30, 0, 30, 30])
    result = run(arms, np.full(90, value), 700, replace(FINAL, policy=policy, grants="final"))
    assert result.granted_tokens.sum() == 700 and result.granted_tokens[1] == 0
    assert all(math.isfinite(pull.arm_mean) for pull in result.pulls)


def test_a_cluster_whose_probes_gave_no_number_is_granted_last_even_by_a_policy_that_believes() -> None:
    arms = pool([30, 30, 30])
    influence = planted(arms, set())
    influence[arms.arm_of == 0] = np.nan
    result = run(arms, influence, arms.pool_tokens - 1, FINAL)
    assert result.pulls[-1].cluster == 0
    assert result.granted_tokens[1:].tolist() == arms.arm_tokens()[1:].tolist()


def test_a_budget_larger_than_the_pool_grants_all_of_it_at_the_end() -> None:
    arms = pool([10, 20])
    result = run(arms, planted(arms, {0}), 10 * arms.pool_tokens, FINAL)
    assert result.granted_tokens.tolist() == arms.arm_tokens().tolist()


@pytest.mark.parametrize("grants", ["blocks", "final"])
def test_probes_cost_their_tokens_and_stop_at_the_first_that_is_too_dear(grants: str) -> None:
    arms = pool([50] * 4)
    influence = planted(arms, {2})
    how = replace(SETTINGS, grants=grants, max_probe_tokens=150)
    result = run(arms, influence, 2000, how)
    spent = [pull.cost for pull in result.pulls if pull.verdict != "opening"]
    assert 100 < sum(spent) <= 150 and sum(spent) == arms.tokens[result.probed].sum()
    assert result.granted_tokens.sum() == 2000
    unlimited = run(arms, influence, 2000, replace(how, max_probe_tokens=0))
    assert result.probed.tolist() == unlimited.probed[: len(result.probed)].tolist()


def test_a_policy_without_probes_needs_no_opening_and_grants_by_size() -> None:
    arms = pool([10, 0, 30, 60])
    nothing = np.zeros(0, dtype=np.int64)
    how = replace(SETTINGS, policy="proportional")
    result = run_bandit(arms, nothing, nothing.astype(float), lambda at: np.zeros(len(at)), 500, how)
    expected = 500 * arms.arm_tokens() / arms.pool_tokens
    assert np.abs(result.granted_tokens - expected).max() < 1 and result.granted_tokens.sum() == 500
    assert len(result.probed) == 0 and {pull.verdict for pull in result.pulls} == {"filled"}


def test_raw_rewards_are_not_standardised_and_need_no_opening() -> None:
    arms = pool([60] * 4)
    influence = planted(arms, {3}) + 2e-3  # 0.004 in arm 3, 0.001 elsewhere
    how = replace(SETTINGS, policy="quad_ucb", policy_options={"raw": True}, accept_threshold=2e-3)
    nothing = np.zeros(0, dtype=np.int64)
    result = run_bandit(arms, nothing, nothing.astype(float), lambda at: influence[at], 800, how)
    assert (result.center, result.scale) == (0.0, 1.0)
    assert result.granted_tokens.tolist() == [0, 0, 0, 800]
    accepted = [pull for pull in result.pulls if pull.verdict == "accepted"]
    assert accepted and all(pull.arm_mean == pytest.approx(4e-3, abs=1e-3) for pull in accepted)


def test_a_prior_lets_the_bandit_go_on_where_the_last_checkpoint_ended() -> None:
    arms = pool([60] * 6)
    influence = planted(arms, {1, 4})
    budget = int(arms.arm_tokens()[[1, 4]].sum())
    first = run(arms, influence, budget, FINAL)
    opening = opening_probes(arms, 1, seed=9)[:3]
    again = run_bandit(
        arms, opening, influence[opening], lambda at: influence[at], budget, replace(FINAL, max_probes=20),
        arm_facts(arms, prior=first.posterior),
    )  # fmt: skip
    assert again.granted_tokens.tolist() == first.granted_tokens.tolist()


def test_neighbours_of_a_good_cluster_profit_from_its_rewards() -> None:
    arms = pool([40] * 4)
    influence = planted(arms, {0})
    points = np.array([[0.0, 0.0], [0.05, 0.0], [3.0, 0.0], [6.0, 0.0]])
    opening = opening_probes(arms, 3, SETTINGS.seed)
    opening = opening[arms.arm_of[opening] != 1]  # cluster 1 is known by its neighbour alone
    how = replace(SETTINGS, max_probes=len(opening), neighbour_radius=0.2, grants="final")
    result = run_bandit(
        arms, opening, influence[opening], lambda at: influence[at], int(arms.arm_tokens()[:2].sum()), how,
        arm_facts(arms, points),
    )  # fmt: skip
    assert result.granted_tokens.tolist() == [*arms.arm_tokens()[:2].tolist(), 0, 0]
