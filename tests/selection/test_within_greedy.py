"""Methods that take documents one after another, each against its slow twin and a case by hand."""

import numpy as np
import pytest

from winnow.identity import seeded_keys
from winnow.selection import build_arms
from winnow.selection.greedy import Similarities, lazy_greedy
from winnow.selection.within import Candidates, Greedy, Taken, gumbels, make_within, unit


def made(vectors: np.ndarray, scores: np.ndarray | None = None, tokens: np.ndarray | None = None) -> Candidates:
    """Return candidates of one arm whose doc_ids rise with their positions."""
    count = len(vectors)
    ids = np.zeros((count, 16), np.uint8)
    ids[:, 0], ids[:, 1] = np.arange(count) // 256, np.arange(count) % 256
    costs = np.full(count, 10) if tokens is None else tokens
    return Candidates(build_arms(ids, np.zeros(count, int), costs), 0, scores, np.asarray(vectors, np.float32))


def take(name: str, candidates: Candidates, tokens: int, **options: object) -> Taken:
    method = make_within(name, options)
    assert isinstance(method, Greedy)
    method.require(candidates)
    taken = method.take(candidates, candidates.arms.members(0), tokens)
    assert (candidates.arms.tokens[taken.positions] * taken.repeats).sum() <= tokens
    assert len(set(taken.positions.tolist())) == len(taken.positions)
    return taken


def rows(candidates: Candidates) -> np.ndarray:
    vectors = np.asarray(candidates.vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def greedy_twin(value, tokens: np.ndarray, budget: int) -> list[int]:
    """Take the document that makes ``value(set)`` largest, as long as that grows; ties to the smaller position."""
    taken: list[int] = []
    while True:
        left = budget - tokens[taken].sum()
        gains = {
            i: round(value([*taken, i]) - value(taken), 9)
            for i in range(len(tokens))
            if i not in taken and tokens[i] <= left
        }
        if not gains or max(gains.values()) <= 0:
            return taken
        taken.append(max(gains, key=lambda i: (gains[i], -i)))


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_facility_location_takes_what_plain_greedy_takes(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, 3))
    vectors[20:25] = vectors[:5]  # twins tie
    candidates = made(vectors, rng.normal(size=40), rng.integers(1, 20, 40))
    near = np.maximum(rows(candidates) @ rows(candidates).T, 0)
    ranks = np.argsort(np.argsort(candidates.scores)) + 1

    def value(chosen: list[int]) -> float:
        served = near[:, chosen].max(axis=1).mean() if chosen else 0.0
        return (1 - weight) * served + weight * ranks[chosen].sum() / 40**2

    expected = greedy_twin(value, candidates.arms.tokens, 150)
    assert take("facility_location", candidates, 150, score_weight=weight).positions.tolist() == expected


def test_facility_location_by_hand_takes_the_middle_of_the_crowd_then_the_outlier() -> None:
    angles = np.deg2rad([0, 10, 20, 120])
    candidates = made(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert take("facility_location", candidates, 20).positions.tolist() == [1, 3]
    assert take("facility_location", candidates, 5).positions.tolist() == []


def test_columns_computed_as_they_are_asked_for_give_the_same_as_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = made(np.random.default_rng(0).normal(size=(300, 8)))
    whole = take("facility_location", candidates, 800).positions.tolist()
    monkeypatch.setattr("winnow.selection.greedy.TABLE", 0)
    assert take("facility_location", candidates, 800).positions.tolist() == whole
    assert len(whole) == 80


def test_a_large_arm_is_served_by_documents_drawn_of_it() -> None:
    candidates = made(np.random.default_rng(0).normal(size=(200, 4)))
    assert Similarities(candidates, candidates.arms.members(0), 50).ground == 50
    taken = take("facility_location", candidates, 300, ground=50).positions
    near = np.maximum(rows(candidates) @ rows(candidates).T, 0)
    arbitrary = [near[:, np.random.default_rng(seed).permutation(200)[:30]].max(axis=1).mean() for seed in range(20)]
    assert near[:, taken].max(axis=1).mean() > max(arbitrary)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coverage_takes_what_plain_greedy_takes_and_stops_when_all_is_covered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = made(rng.normal(size=(40, 3)), None, rng.integers(1, 20, 40))
    within = rows(candidates) @ rows(candidates).T >= 0.8

    def value(chosen: list[int]) -> float:
        return float(within[:, chosen].any(axis=1).mean())

    for budget in (60, 10_000):
        expected = greedy_twin(value, candidates.arms.tokens, budget)
        assert take("coverage", candidates, budget, similarity=0.8).positions.tolist() == expected
    assert value(expected) == 1.0


def test_lazy_greedy_of_nothing_takes_nothing() -> None:
    assert lazy_greedy(lambda some: np.zeros(len(some)), lambda _: None, np.zeros(0, np.int64), 10).tolist() == []


def test_relational_weights_by_hand() -> None:
    # s = 3, 2.5, 2: the first is taken by its score. cos with it: 0.8 and 0, so with alpha = beta = 1
    # theta = (1 - 0.8) 2.5 = 0.5 and (1 - 0) 2 = 2; then the sum over two: 0.8 + 0.6 = 1.4 over 2.
    candidates = made(np.array([[1, 0], [0.8, 0.6], [0, 1]]), np.array([3.0, 2.5, 2.0]))
    assert take("relational", candidates, 30).positions.tolist() == [0, 2, 1]
    # With beta = 4 a relation counts a quarter: (1 - 0.2) 2.5 = 2.0 ties with 2.0, and the smaller doc_id goes first.
    assert take("relational", candidates, 30, beta=4).positions.tolist() == [0, 1, 2]
    # alpha = -1 turns the sign of what comes after the first: the least negative is the related one, -0.5 against -2.
    assert take("relational", candidates, 30, alpha=-1).positions.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.7, 2.5)])
def test_relational_takes_what_its_formula_says_one_after_another(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=50)
    scores[7] = np.nan
    candidates = made(rng.normal(size=(50, 6)), scores, rng.integers(1, 20, 50))
    cosine, tokens, left, taken = rows(candidates) @ rows(candidates).T, candidates.arms.tokens, 200, []
    while True:
        theta = {}
        for i in set(range(50)) - set(taken) - {7}:
            if tokens[i] <= left:
                related = sum(cosine[j, i] for j in taken)
                theta[i] = (alpha - alpha / (beta * len(taken)) * related if taken else 1.0) * scores[i]
        if not theta:
            break
        taken.append(max(theta, key=lambda i: theta[i]))
        left -= tokens[taken[-1]]
    assert take("relational", candidates, 200, alpha=alpha, beta=beta).positions.tolist() == taken


def test_soft_cap_draws_batches_and_lowers_what_it_drew() -> None:
    rng = np.random.default_rng(0)
    scores, tokens = rng.normal(size=30), rng.integers(1, 9, 30)
    candidates = made(rng.normal(size=(30, 2)), scores, tokens)
    z = (scores - scores.mean()) / scores.std()
    logits, drawn, left, number = z / 0.5, np.zeros(30, int), 200, 0
    while (tokens <= left).any():
        noise = gumbels(unit(seeded_keys(candidates.arms.doc_ids, 0, f"soft cap {number}")))
        fits = [i for i in range(30) if tokens[i] <= left]
        for i in sorted(fits, key=lambda i: -(logits[i] + noise[i]))[:3]:
            if tokens[i] <= left:
                drawn[i], left, logits[i] = drawn[i] + 1, left - tokens[i], logits[i] - 0.4
        number += 1
    taken = take("soft_cap", candidates, 200, penalty=0.4, temperature=0.5, batch=0.1)
    found = np.zeros(30, int)
    found[taken.positions] = taken.repeats
    assert found.tolist() == drawn.tolist()
    assert drawn.max() > 1 and (drawn * tokens).sum() == 200 - left


def test_a_larger_penalty_repeats_less() -> None:
    scores = np.random.default_rng(0).normal(size=200)
    candidates = made(np.ones((200, 1)), scores)
    most = [take("soft_cap", candidates, 1_500, penalty=penalty).repeats.max() for penalty in (0.0, 0.5, 5.0)]
    assert most[0] > most[1] > most[2]


def test_documents_of_length_zero_or_without_a_score_do_not_hold_up_soft_cap() -> None:
    candidates = made(np.ones((4, 1)), np.array([1.0, 2.0, np.nan, 3.0]), np.array([10, 10, 10, 0]))
    taken = take("soft_cap", candidates, 45)
    assert set(taken.positions.tolist()) <= {0, 1} and taken.repeats.sum() == 4
    assert take("soft_cap", made(np.ones((2, 1)), np.full(2, np.nan)), 45).positions.tolist() == []
