import numpy as np
import pytest

from winnow.selection import BanditSettings, arm_facts, build_arms, decide, opening_probes, run_bandit
from winnow.selection.arms import Arms
from winnow.selection.ranking import ranked_grants, score_slope


def arms_of(labels: list[int], tokens: list[int]) -> Arms:
    ids = np.random.default_rng(0).integers(0, 256, (len(labels), 16), dtype=np.uint8)
    return build_arms(ids, np.array(labels), np.array(tokens))


def test_the_slope_is_least_squares_within_arms() -> None:
    arm_of = np.array([0, 0, 0, 1, 1, 2])
    scores = np.array([1.0, 2.0, 3.0, 10.0, 12.0, 5.0])
    rewards = np.array([0.0, 2.0, 4.0, -50.0, -46.0, 7.0])
    assert score_slope(arm_of, scores, rewards, 3) == pytest.approx(2.0)
    # unseen documents and scores that are no numbers do not count
    assert score_slope(arm_of, np.where(arm_of == 1, np.nan, scores), rewards, 3) == pytest.approx(2.0)
    assert score_slope(arm_of, scores, -rewards, 3) == 0.0
    assert score_slope(arm_of, np.ones(6), rewards, 3) == 0.0
    assert score_slope(arm_of, scores, np.full(6, np.nan), 3) == 0.0


def test_grants_are_the_tokens_of_the_best_documents_worked_by_hand() -> None:
    arms = arms_of([0, 0, 1, 1, 2], [10, 20, 30, 40, 50])
    scores = np.array([1.0, 3.0, 5.0, 1.0, np.nan])
    values = np.array([1.0, 0.0, -np.inf])
    # lifts by slope 1: arm 0: -1, +1; arm 1: +2, -2. Values 0, 2, 2, -2: equal ones by arm
    assert ranked_grants(arms, values, 1.0, scores, 45).tolist() == [20, 25, 0]
    assert ranked_grants(arms, values, 1.0, scores, 70).tolist() == [30, 40, 0]
    # without a slope whole arms are taken, best first
    assert ranked_grants(arms, values, 0.0, scores, 45).tolist() == [30, 15, 0]
    assert ranked_grants(arms, values, 1.0, scores, 150).tolist() == [30, 70, 50]


def planted(seed: int, correlation: float) -> tuple[Arms, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(12), 40)
    ids = rng.integers(0, 256, (480, 16), dtype=np.uint8)
    arms = build_arms(ids, labels, np.full(480, 10))
    noise = rng.normal(size=480)
    scores = correlation * noise + np.sqrt(1 - correlation**2) * rng.normal(size=480)
    return arms, 0.7 * rng.normal(size=12)[labels] + 0.7 * noise, scores


def mass(seed: int, correlation: float, grants: str) -> float:
    arms, rewards, scores = planted(seed, correlation)
    how = BanditSettings(
        block_tokens=40, max_probes=120, policy="knowledge_gradient", grants=grants, arms_per_round=3, probes_per_pull=4
    )
    opening = opening_probes(arms, 3, 0)
    result = run_bandit(arms, opening, rewards[opening], lambda at: rewards[at], 1000, how, scores=scores)
    assert result.granted_tokens.sum() == 1000
    chosen = decide(arms, result.ledger(), scores, 1000, 0)
    assert chosen.tokens == 1000
    return float(rewards[chosen.selected].sum())


def test_a_score_that_tells_documents_apart_is_worth_more_across_arms_than_inside_granted_ones() -> None:
    for correlation, least in ((0.9, 1.15), (0.5, 1.0)):
        ranked = sum(mass(seed, correlation, "ranked") for seed in range(6))
        final = sum(mass(seed, correlation, "final") for seed in range(6))
        assert ranked > least * final


def test_without_scores_ranked_grants_are_final_ones() -> None:
    arms, rewards, _ = planted(0, 0.5)
    opening = opening_probes(arms, 3, 0)
    granted = []
    for grants in ("ranked", "final"):
        how = BanditSettings(block_tokens=40, max_probes=90, policy="knowledge_gradient", grants=grants)
        result = run_bandit(arms, opening, rewards[opening], lambda at: rewards[at], 1000, how)
        granted.append(result.granted_tokens.tolist())
    assert granted[0] == granted[1]


def test_the_documents_decided_on_are_those_of_the_simulated_ranking() -> None:
    from winnow.selection.arms import PROBE_SALT
    from winnow.selection.simulate import Ground, simulate

    arms, rewards, scores = planted(3, 0.6)
    how = BanditSettings(block_tokens=40, max_probes=100, policy="knowledge_gradient", grants="ranked")
    opening = opening_probes(arms, 2, 0)
    features = np.bincount(arms.arm_of, scores)[:, None] / 40
    facts = arm_facts(arms, features=features)
    result = run_bandit(arms, opening, rewards[opening], lambda at: rewards[at], 1000, how, facts, scores)
    chosen = decide(arms, result.ledger(), scores, 1000, 0).selected
    order = np.concatenate(arms.seeded_positions(0, PROBE_SALT))
    ground = Ground(np.full(12, 40), arms.tokens[order][None], rewards[order][None, None], scores=scores[order][None])

    class Fixed:
        def draw(self, seeds: np.ndarray) -> Ground:
            return ground

    found = simulate(Fixed(), how, [0], budget_share=1000 / 4800, opening=2)
    above = rewards - rewards.mean()
    best = np.sort(above)[-100:].sum()
    assert found.share_ranked[0] == pytest.approx(above[chosen].sum() / best)
