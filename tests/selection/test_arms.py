"""Arms: who competes, what consumed documents leave, and what the arms are told to cost."""

import numpy as np
import pytest

from winnow.errors import UserError
from winnow.selection import BanditSettings, build_arms, decide, opening_probes, run_bandit
from winnow.selection.arms import arm_labels
from winnow.selection.budget import coded


def ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8)


def test_clusters_sources_or_the_whole_pool_compete() -> None:
    clusters, sources = np.array([7, 3, 7]), np.array(["web", "books", "books"])
    assert arm_labels("clusters", clusters, sources)[0].tolist() == [7, 3, 7]
    assert arm_labels("pool", clusters, sources)[0].tolist() == [0, 0, 0]
    labels, names = arm_labels("sources", clusters, sources)
    assert labels.tolist() == [1, 0, 0] and names == ["books", "web"]
    with pytest.raises(UserError, match="choose one of clusters, pool, sources"):
        arm_labels("topics", clusters, sources)


def test_consumed_documents_are_neither_probed_nor_counted() -> None:
    consumed = np.array([True, False, True, False, False])
    arms = build_arms(ids(5), np.array([0, 0, 1, 2, 2]), np.array([1, 2, 4, 8, 16]), consumed=consumed)
    assert arms.clusters.tolist() == [0, 1, 2]
    assert arms.arm_tokens().tolist() == [2, 0, 24]
    assert arms.sizes().tolist() == [1, 0, 2]
    assert arms.pool_tokens == 26
    assert [len(members) for members in arms.seeded_positions(0, "probe")] == [1, 0, 2]
    assert sorted(opening_probes(arms, 9, 0).tolist()) == [1, 3, 4]
    assert sorted(arms.members(2).tolist()) == [3, 4] and arms.members(1).tolist() == []


def test_an_arm_s_random_order_does_not_change_when_others_are_consumed() -> None:
    labels = np.arange(40) % 2
    whole = build_arms(ids(40), labels, np.ones(40, int)).seeded_positions(3, "probe")[1]
    part = build_arms(ids(40), labels, np.ones(40, int), consumed=labels == 0).seeded_positions(3, "probe")[1]
    assert part.tolist() == whole.tolist()


def test_labels_are_coded_in_the_order_of_their_names() -> None:
    names, places = coded(np.array(["b", "a", "c", "b"]))
    assert names == ["a", "b", "c"] and places.tolist() == [1, 0, 2, 1]
    assert coded(np.array([], dtype=str))[0] == []


def test_a_bandit_over_arms_with_consumed_documents_probes_and_grants_only_what_is_left() -> None:
    rng = np.random.default_rng(0)
    labels, tokens = rng.integers(0, 5, 300), rng.integers(1, 30, 300)
    consumed = (rng.random(300) < 0.4) | (labels == 3)
    arms = build_arms(ids(300), labels, tokens, consumed=consumed)
    reward, budget = rng.normal(size=300) + labels, arms.pool_tokens // 3
    opening = opening_probes(arms, 4, 0)
    settings = BanditSettings(block_tokens=40, max_probes=150)
    result = run_bandit(arms, opening, reward[opening], lambda some: reward[some], budget, settings)
    assert not consumed[result.probed].any()
    assert result.granted_tokens.sum() == budget and (result.granted_tokens <= arms.arm_tokens()).all()
    made = decide(arms, result.ledger(), reward, budget, 0)
    assert not (made.selected & consumed).any()
    assert made.words().to_pylist().count("consumed") == consumed.sum()
