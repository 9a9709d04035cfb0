import numpy as np
import pytest

from winnow.errors import UserError
from winnow.selection import BanditSettings, arm_facts, build_arms, opening_probes, run_bandit
from winnow.selection.arms import PROBE_SALT
from winnow.selection.policies import policy_names
from winnow.selection.simulate import Ground, Planted, Replay, simulate, simulate_stages
from winnow.selection.simulate.judging import Judge

SMALL = Planted(arms=12, documents=30, size_spread=0.5, explained=0.5, dimension=3)
HOW = BanditSettings(block_tokens=20, max_probes=150, arms_per_round=3, probes_per_pull=4)


class Fixed:
    """A world of one given ground, whatever the seed."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def draw(self, seeds: np.ndarray) -> Ground:
        assert len(seeds) == 1
        return self.ground


def how(**more: object) -> BanditSettings:
    from dataclasses import replace

    return replace(HOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("grants", ["blocks", "final"])
@pytest.mark.parametrize("policy", policy_names())
def test_the_engine_of_many_runs_is_the_bandit_run_by_run(policy: str, grants: str) -> None:
    rng = np.random.default_rng(3)
    sizes = np.array([25, 0, 40, 3, 30, 18])
    labels = np.repeat(np.arange(6), sizes)
    tokens = rng.integers(1, 4, len(labels))
    arms = build_arms(rng.integers(0, 256, (len(labels), 16), dtype=np.uint8), labels, tokens, np.arange(6))
    rewards = rng.normal(size=6)[labels] + rng.normal(size=len(labels))
    centroids = rng.normal(size=(6, 2))
    for seed, radius in ((0, 0.0), (1, 1.5)):
        settings = how(policy=policy, grants=grants, seed=seed, max_probes=70, neighbour_radius=radius)
        opening = opening_probes(arms, 2, seed)
        result = run_bandit(
            arms, opening, rewards[opening], lambda at: rewards[at], 60, settings, arm_facts(arms, centroids)
        )
        order = np.concatenate(arms.seeded_positions(seed, PROBE_SALT))
        ground = Ground(sizes, tokens[order][None], rewards[order][None, None], centroids[None])
        found = simulate(Fixed(ground), settings, [seed], budget_share=60 / tokens.sum(), opening=2)
        assert found.granted[0].tolist() == result.granted_tokens.tolist()
        assert found.probes[0] == len(opening) + len(result.probed)


@pytest.mark.parametrize("policy", ["knowledge_gradient", "thompson_variance", "epsilon_greedy", "exp3", "quad_ucb"])
def test_a_seed_gets_what_it_gets_alone(policy: str) -> None:
    together = simulate(SMALL, how(policy=policy), range(5))
    for seed in (0, 4):
        alone = simulate(SMALL, how(policy=policy), [seed])
        assert alone.granted[0].tolist() == together.granted[seed].tolist()
        assert alone.share[0] == pytest.approx(together.share[seed])
        assert alone.probes[0] == together.probes[seed]


def test_runs_cut_into_parts_are_the_runs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from winnow.selection.simulate import engine

    whole = simulate(SMALL, how(policy="knowledge_gradient"), range(6))
    monkeypatch.setattr(engine, "CELLS", 2 * whole.pool)
    parts = simulate(SMALL, how(policy="knowledge_gradient"), range(6))
    assert parts.granted.tolist() == whole.granted.tolist()
    np.testing.assert_allclose(parts.share_at(100), whole.share_at(100))


@pytest.mark.parametrize("policy", policy_names())
def test_probes_and_grants_keep_to_their_budgets(policy: str) -> None:
    found = simulate(SMALL, how(policy=policy, max_probes=90), range(8), budget_share=0.25)
    sizes = SMALL.sizes()
    assert (found.probes <= 90).all()
    assert (found.granted.sum(axis=1) == round(0.25 * sizes.sum())).all()
    assert (found.granted <= sizes).all()
    assert (found.share <= 1 + 1e-9).all() and (np.abs(found.share_documents) < np.abs(found.share)).all()


def test_masses_of_a_small_ground_worked_by_hand() -> None:
    # arm 0: rewards 5, 1 (2 tokens each); arm 1: 2, 2 (1 token each); arm 2: 0 (4 tokens). Mean (10+2+4+0)/10 = 1.6
    ground = Ground(
        np.array([2, 2, 1]),
        np.array([[2, 2, 1, 1, 4]]),
        np.array([[[5.0, 1.0, 2.0, 2.0, 0.0]]]),
        scores=np.array([[0.1, 0.9, 0.5, 0.4, 0.3]]),
    )
    judge = Judge.of(ground)
    np.testing.assert_allclose(judge.means, [[1.4, 0.4, -1.6]])
    budget = np.array([3])
    assert judge.best_arms(budget).tolist() == [[3, 0, 0]]
    assert judge.mass(np.array([[3, 0, 0]]))[0] == pytest.approx(3 * 1.4)
    assert judge.best_documents(budget)[0] == pytest.approx(2 * 3.4 + 1 * 0.4)
    by_score = Judge.of(ground, within="score")
    # the predictor puts the second document of arm 0 first: its 2 tokens at -0.6, then one of the best
    assert by_score.mass(np.array([[3, 0, 0]]))[0] == pytest.approx(2 * -0.6 + 1 * 3.4)
    taken = by_score.mass(np.array([[1, 1, 0]]), before=np.array([[2, 0, 0]]))
    assert taken[0] == pytest.approx(3.4 + 0.4)


def test_a_policy_that_sees_every_document_finds_all_that_arms_have() -> None:
    world = Planted(arms=6, documents=20, within=0.3)
    found = simulate(world, how(policy="round_robin", grants="final", max_probes=10_000), range(4))
    assert (found.probes == 120).all()
    np.testing.assert_allclose(found.share, 1.0)


def test_sharing_by_size_finds_what_random_finds() -> None:
    world = Planted(arms=10, documents=50)
    found = simulate(world, how(policy="proportional"), range(20), opening=0)
    assert (found.probes == 0).all()
    np.testing.assert_allclose(found.share, 0.0, atol=0.02)


def test_the_better_predictor_finds_more_inside_the_arms() -> None:
    shares = []
    for correlation in (0.3, 0.9):
        world = Planted(arms=8, documents=40, between=0.2, within=1.0, prediction=correlation)
        # half of each arm would do: with blocks everywhere the rule inside matters
        shares.append(simulate(world, how(policy="proportional"), range(12), opening=0, within="score"))
    assert shares[0].share_documents.mean() + 0.2 < shares[1].share_documents.mean()


def test_curves_count_probes_up_and_read_out_at_any_number() -> None:
    found = simulate(SMALL, how(policy="round_robin", grants="final", max_probes=200), range(6))
    assert (np.diff(found.curve_probes, axis=0) >= 0).all()
    assert found.share_at(0).tolist() == [0] * 6
    assert found.share_at(200).mean() > found.share_at(40).mean()
    assert found.probes_to(2.0, [50, 100]) is None
    assert found.probes_to(-5.0, [100, 50]) == 50


def test_a_replay_probes_the_same_documents_in_another_order_a_seed() -> None:
    rng = np.random.default_rng(0)
    arm_of, rewards = rng.integers(0, 5, 60), rng.normal(size=60)
    ground = Replay(arm_of, rng.integers(1, 9, 60), rewards, 6).draw(np.array([3, 4]))
    assert ground.sizes.tolist() == np.bincount(arm_of, minlength=6).tolist()
    assert ground.rewards[0, 0].tolist() != ground.rewards[1, 0].tolist()
    for run in range(2):
        for arm in range(6):
            mine = ground.rewards[run, 0, ground.starts[arm] : ground.starts[arm + 1]]
            assert sorted(mine.tolist()) == sorted(rewards[arm_of == arm].tolist())


def test_planted_worlds_have_the_moments_they_promise() -> None:
    world = Planted(arms=200, documents=60, between=0.6, within=0.8, tail=5, explained=0.5, stages=3, speed=0.3)
    ground = world.draw(np.arange(20))
    means = ground.sums(ground.rewards[:, 0]) / ground.sizes
    assert ground.rewards[:, 0].var() == pytest.approx(1.0, abs=0.08)
    assert means.std() == pytest.approx(np.sqrt(0.36 + 0.64 / 60), abs=0.04)
    later = ground.sums(ground.rewards[:, 1]) / ground.sizes
    kept = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(means, later, strict=True)])
    assert kept == pytest.approx(np.sqrt(0.7), abs=0.05)
    assert later.std() == pytest.approx(means.std(), abs=0.04)


def test_a_switch_moves_its_share_of_the_arms_once() -> None:
    world = Planted(arms=400, documents=4, within=0.0, stages=5, drift="switch", speed=0.25)
    rewards = world.draw(np.array([1])).rewards[0]
    moved = [(rewards[stage] != rewards[stage - 1]).mean() for stage in range(1, 5)]
    assert moved[0] == moved[1] == moved[3] == 0 and moved[2] == pytest.approx(0.25, abs=0.06)


def test_regret_is_what_the_oracle_has_more_and_falls_with_the_probes() -> None:
    world = Planted(arms=20, documents=60, stages=6)
    settings = how(policy="knowledge_gradient", policy_options={"tolerance": 0.0})
    few, many = (simulate_stages(world, how(**{**vars(settings), "max_probes": n}), range(20)) for n in (90, 600))
    for found, limit in ((few, 90), (many, 600)):
        assert found.regret.shape == (20, 6) and (found.regret > -1e-9).all()
        assert (found.probes.sum(axis=1) <= limit).all()
    assert many.regret.mean() < 0.6 * few.regret.mean()
    assert few.share.mean() < many.share.mean() < 1


def test_a_fresh_start_every_stage_does_not_depend_on_the_stages_before_it_but_keeping_does() -> None:
    world = Planted(arms=20, documents=60, stages=4, speed=1.0)
    settings = how(policy="greedy", grants="final", max_probes=400)
    kept, fresh = (simulate_stages(world, settings, range(20), carry=carry) for carry in ("keep", "nothing"))
    # every stage has new means: what was kept misleads
    assert fresh.regret[:, 1:].mean() < 0.8 * kept.regret[:, 1:].mean()


def test_openings_that_take_more_than_all_probes_are_an_error() -> None:
    with pytest.raises(UserError, match="openings take 36"):
        simulate_stages(SMALL, how(max_probes=30), [0])


def test_an_unknown_carry_is_an_error() -> None:
    with pytest.raises(UserError, match="carry"):
        simulate_stages(SMALL, HOW, [0], carry="all")


def test_scores_correlate_with_rewards_inside_and_between_arms_as_promised() -> None:
    world = Planted(arms=300, documents=40, prediction=0.6, arm_prediction=0.4)
    ground = world.draw(np.arange(10))
    assert ground.scores is not None
    rewards, facts = ground.rewards[:, 0], ground.facts()
    assert facts.features is not None
    means = ground.sums(rewards) / ground.sizes
    between = [np.corrcoef(a, b)[0, 1] for a, b in zip(means, facts.features[..., 0], strict=True)]
    inside = [
        np.corrcoef(
            rewards[run] - np.repeat(means[run], ground.sizes),
            ground.scores[run] - np.repeat(facts.features[run, :, 0], ground.sizes),
        )[0, 1]
        for run in range(10)
    ]
    assert np.mean(inside) == pytest.approx(0.6, abs=0.02)
    assert np.mean(between) == pytest.approx(0.4, abs=0.06)
