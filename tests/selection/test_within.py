"""Methods that rank documents by a key: small cases by hand, samplers by what they must draw on average."""

import numpy as np
import pyarrow as pa
import pytest

from winnow.selection import Arms, build_arms, decide
from winnow.selection.within import Candidates, Keyed, gumbels, make_within, unit, within_names


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def pool(count: int, clusters: int = 1, scores: np.ndarray | None = None, **more: object) -> Candidates:
    arms = build_arms(ids(count), np.arange(count) % clusters, np.full(count, 10))
    return Candidates(arms, 0, scores, **more)


def keys(name: str, candidates: Candidates, **options: object) -> np.ndarray:
    method = make_within(name, options)
    assert isinstance(method, Keyed)
    method.require(candidates)
    return method.keys(candidates)


def granted(arms: Arms, tokens: int) -> pa.Table:
    return pa.table({"round": [1] * len(arms), "cluster": arms.clusters, "tokens_granted": [tokens] * len(arms)})


KEYED = {name for name in within_names() if isinstance(make_within(name), Keyed)}


@pytest.mark.parametrize("name", within_names())
def test_what_is_taken_does_not_depend_on_the_order_of_the_documents(name: str) -> None:
    count, rng = 120, np.random.default_rng(5)
    documents, clusters, tokens = ids(count), rng.integers(0, 3, count), rng.integers(1, 20, count)
    scores = np.where(rng.random(count) < 0.1, np.nan, rng.integers(0, 5, count).astype(float))
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    vectors[60:] = vectors[:60]  # twins
    sources, consumed = rng.choice(["a", "b"], count), rng.random(count) < 0.1
    made = []
    for order in (np.arange(count), rng.permutation(count)):
        arms = build_arms(documents[order], clusters[order], tokens[order], consumed=consumed[order])
        found = decide(
            arms, granted(arms, 100), scores[order], 300, 3, sources[order], None, make_within(name), vectors[order]
        )
        made.append([column[np.argsort(order)] for column in (found.repeats, found.rank, found.order, found.weights)])
        assert not (found.selected & ~arms.available).any()
        assert found.tokens <= 300
    for one, two in zip(*made, strict=True):
        assert one.tolist() == two.tolist()
    assert made[0][0].sum() > 10


def test_the_label_names_the_options() -> None:
    assert make_within("top_k").label == "top_k"
    assert make_within("gumbel_top_k", {"temperature": 1}).label == "gumbel_top_k(temperature=1, standardize=True)"


def test_a_gumbel_number_is_the_double_logarithm_of_a_uniform_one() -> None:
    assert gumbels(np.array([np.exp(-1.0), np.exp(-np.exp(1.0))])) == pytest.approx([0.0, -1.0])
    assert (
        0 < unit(np.array([0, 2**64 - 1], dtype=np.uint64)).min() < unit(np.array([2**64 - 1], dtype=np.uint64))[0] < 1
    )


def test_both_gumbel_samplers_by_hand() -> None:
    candidates = pool(3, scores=np.array([1.0, 2.0, np.nan]))
    noise = gumbels(candidates.uniforms("within"))
    book = keys("gumbel_top_k", candidates, temperature=0.5, standardize=False)
    mates = keys("gumbel_top_k_mates", candidates, temperature=0.5, standardize=False)
    assert book[:2] == pytest.approx([2 + noise[0], 4 + noise[1]])
    # The release takes the smallest of change / temperature + G; a change is the score with its sign turned.
    released = np.array([-1.0, -2.0]) / 0.5 + noise[:2]
    assert mates[:2] == pytest.approx(-released)
    assert np.isnan(book[2]) and np.isnan(mates[2])
    standardized = keys("gumbel_top_k", candidates, temperature=0.5)
    assert standardized[:2] == pytest.approx([-1 / 0.5 + noise[0], 1 / 0.5 + noise[1]])


def test_gumbel_picks_have_the_means_known_of_them() -> None:
    # Changes of deviation 0.6, temperature 0.5, 20% taken: hard top-k -0.84, as released -0.65, textbook -0.53.
    count = 60_000
    changes = np.random.default_rng(1).normal(0, 0.6, count)
    candidates = pool(count, scores=-changes)
    for name, mean in (("gumbel_top_k", -0.53), ("gumbel_top_k_mates", -0.65), ("top_k", -0.84)):
        options = {} if name == "top_k" else {"standardize": False}
        found = keys(name, candidates, **options)
        picked = changes[np.argsort(-found)[: count // 5]]
        assert picked.mean() == pytest.approx(mean, abs=0.015)


def test_the_first_pick_of_gumbel_top_k_is_a_softmax_draw() -> None:
    scores, temperature = np.array([0.0, 1.0, 2.0]), 0.8
    arms, wins = pool(3).arms, np.zeros(3)
    method = make_within("gumbel_top_k", {"temperature": temperature, "standardize": False})
    for seed in range(3_000):
        wins[np.argmax(method.keys(Candidates(arms, seed, scores)))] += 1
    expected = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    assert wins / 3_000 == pytest.approx(expected, abs=0.03)


def test_a_threshold_admits_by_value_or_by_the_pool_s_quantile() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    candidates = pool(5, scores=scores)
    by_value = make_within("threshold", {"by": "value", "value": 0.3})
    half = make_within("threshold", {"quantile": 0.5})
    assert isinstance(by_value, Keyed) and isinstance(half, Keyed)
    assert by_value.admitted(candidates).tolist() == [False, False, True, True, False]
    assert half.admitted(candidates).tolist() == [False, False, True, True, False]
    made = decide(candidates.arms, granted(candidates.arms, 50), scores, 50, 0, within=by_value)
    assert made.selected.tolist() == [False, False, True, True, False]  # the budget stays unfilled
    assert made.reasons[0] == "not admitted"


def test_random_takes_no_notice_of_scores_and_differs_by_seed() -> None:
    arms = pool(50).arms
    one, two = (keys("random", Candidates(arms, 0, scores)) for scores in (None, np.arange(50.0)))
    assert one.tolist() == two.tolist()
    assert one.tolist() != keys("random", Candidates(arms, 1)).tolist()


@pytest.mark.parametrize("taken", [5, 10, 25, 49])
def test_strata_by_score_give_documents_in_proportion_within_one(taken: int) -> None:
    scores = np.random.default_rng(0).normal(size=100)
    candidates = pool(100, clusters=2, scores=scores)
    found = keys("stratified", candidates, strata=5)
    for arm in range(2):
        members = candidates.arms.members(arm)
        picked = members[np.argsort(-found[members], kind="stable")[:taken]]
        band = np.argsort(np.argsort(-scores[members])) // 10
        counts = np.bincount(band[np.isin(members, picked)], minlength=5)
        assert counts.sum() == taken and np.abs(counts - taken / 5).max() < 1


def test_strata_by_source_keep_the_shares_of_the_arm_and_its_best_documents() -> None:
    sources = np.array(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    scores = np.arange(100.0)
    candidates = pool(100, scores=scores, sources=sources)
    found = keys("stratified", candidates, by="source", order="score")
    picked = np.argsort(-found, kind="stable")[:20]
    assert [int((sources[picked] == name).sum()) for name in "abc"] == [12, 6, 2]
    assert sorted(picked) == [*range(48, 60), *range(84, 90), 98, 99]


def test_sensitivity_is_a_cluster_s_value_plus_the_distance_from_its_centre() -> None:
    # Two clusters of two: mean |score| 3 and 1; squared distances from the centres 1, 1 and 4, 4.
    arms = build_arms(ids(4), np.array([0, 0, 1, 1]), np.full(4, 10))
    vectors = np.array([[0.0, 0], [2, 0], [10, 0], [10, 4]], np.float32)
    candidates = Candidates(arms, 0, np.array([-4.0, 2, 1, np.nan]), vectors)
    method = make_within("sensitivity", {"distance_weight": 0.25})
    expected = 0.75 * np.array([3, 3, 1, 1]) / 8 + 0.25 * np.array([1, 1, 4, 4]) / 10
    assert method.probabilities(candidates) == pytest.approx(expected)
    pooled = Candidates(build_arms(ids(4), np.zeros(4, int), np.full(4, 10)), 0, candidates.scores, vectors,
                        clusters=np.array([0, 0, 1, 1]))  # fmt: skip
    assert method.probabilities(pooled) == pytest.approx(expected)
    alone = Candidates(arms, 0, None, vectors)
    assert method.probabilities(alone) == pytest.approx(np.array([1, 1, 4, 4]) / 10)


def test_weights_of_sensitivity_sampling_are_the_threshold_over_p_and_sums_come_out_unbiased() -> None:
    rng = np.random.default_rng(0)
    vectors, values = rng.normal(size=(40, 3)).astype(np.float32), rng.gamma(2.0, size=40)
    arms = build_arms(ids(40), np.zeros(40, int), np.full(40, 10))
    method, totals = make_within("sensitivity"), []
    for seed in range(400):
        made = decide(arms, granted(arms, 120), values, 120, seed, within=method, vectors=vectors)
        assert made.selected.sum() == 12
        totals.append((made.weights * values)[made.selected].sum())
        if seed == 0:
            candidates = Candidates(arms, seed, values, vectors)
            priority = method.probabilities(candidates) / candidates.uniforms("within")
            cut = np.sort(priority)[-13]
            p = method.probabilities(candidates)[made.selected]
            assert made.weights[made.selected] == pytest.approx(np.maximum(1, cut / p))
    error = np.std(totals) / np.sqrt(len(totals))
    assert abs(np.mean(totals) - values.sum()) < 4 * error
