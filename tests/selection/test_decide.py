import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.identity import digest_ids
from winnow.selection import Arms, build_arms, check_budget, decide, random_control
from winnow.selection.decide import BELOW_CUT, NOT_GRANTED, OVER_BUDGET


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def ledger(*rows: tuple[int, int, int]) -> pa.Table:
    numbers, clusters, tokens = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table({"round": list(numbers), "cluster": list(clusters), "tokens_granted": list(tokens)})


def small() -> Arms:
    return build_arms(ids(6), np.array([1, 1, 1, 2, 2, 3]), np.array([10, 10, 10, 10, 10, 10]))


def test_the_best_documents_of_granted_clusters_are_taken_and_every_candidate_has_a_reason() -> None:
    made = decide(small(), ledger((1, 1, 10), (2, 2, 10), (3, 1, 10)), np.array([1.0, 3, 2, 5, 4, 9]), 30, seed=0)
    assert made.selected.tolist() == [False, True, True, True, False, False]
    assert made.rank.tolist() == [3, 1, 2, 1, 2, 1]
    assert made.reasons == [
        BELOW_CUT,
        "selected: cluster 1, granted in round 1, rank 1",
        "selected: cluster 1, granted in round 3, rank 2",
        "selected: cluster 2, granted in round 2, rank 1",
        BELOW_CUT,
        NOT_GRANTED,
    ]
    assert sorted(made.order[made.selected].tolist()) == [0, 1, 2]
    assert made.order[~made.selected].tolist() == [-1, -1, -1]
    assert made.tokens == 30


def test_a_document_that_does_not_fit_is_skipped_and_smaller_ones_still_taken() -> None:
    arms = build_arms(ids(4), np.zeros(4, dtype=int), np.array([10, 50, 10, 10]))
    made = decide(arms, ledger((1, 0, 25)), np.array([4.0, 3, 2, 1]), 25, seed=0)
    assert made.selected.tolist() == [True, False, True, False]
    assert made.reasons[1] == OVER_BUDGET and made.reasons[3] == BELOW_CUT


def test_what_whole_documents_leave_of_the_grants_goes_to_granted_clusters() -> None:
    arms = build_arms(ids(4), np.array([0, 0, 1, 1]), np.array([10, 10, 10, 10]))
    made = decide(arms, ledger((1, 0, 15), (1, 1, 15)), np.array([1.0, 2, 9, 3]), 30, seed=0)
    assert made.selected.tolist() == [False, True, True, True]
    assert "fills" in made.reasons[3]


def test_grants_beyond_the_budget_are_cut_and_said_so() -> None:
    made = decide(small(), ledger((1, 1, 30), (1, 2, 20)), np.array([3.0, 2, 1, 2, 1, 0]), 30, seed=0)
    assert made.selected.tolist() == [True, True, True, False, False, False]
    assert made.reasons[3:] == [OVER_BUDGET, OVER_BUDGET, NOT_GRANTED]


def test_equal_scores_go_by_doc_id_and_unscored_documents_come_last() -> None:
    arms = build_arms(ids(5), np.zeros(5, dtype=int), np.full(5, 10))
    made = decide(arms, ledger((1, 0, 20)), np.array([1.0, 1, 1, np.nan, 1]), 20, seed=0)
    smallest = sorted([0, 1, 2, 4], key=lambda i: arms.doc_ids[i].tobytes())[:2]
    assert set(np.flatnonzero(made.selected)) == set(smallest)
    assert made.rank[3] == 5


def test_without_scores_the_order_is_random_by_seed() -> None:
    arms = build_arms(ids(200), np.zeros(200, dtype=int), np.full(200, 10))
    first, again, other = (decide(arms, ledger((1, 0, 500)), None, 500, seed) for seed in (0, 0, 1))
    assert first.positions.tolist() == again.positions.tolist()
    assert set(first.positions.tolist()) != set(other.positions.tolist())
    assert first.table().column("score").null_count == 200


def test_a_mixture_bounds_every_source_and_fills_it_from_other_clusters() -> None:
    arms = build_arms(ids(8), np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.full(8, 10))
    sources = np.array(["web", "web", "web", "web", "books", "books", "books", "books"])
    made = decide(arms, ledger((1, 0, 40)), np.arange(8.0), 40, 0, sources, {"web": 20, "books": 20})
    assert made.selected.tolist() == [False, False, True, True, False, False, True, True]
    assert made.reasons[7] == "selected: cluster 1, fills the quota of source books, rank 1"
    assert made.reasons[0] == OVER_BUDGET


def test_mixture_tokens_that_do_not_sum_to_the_budget_are_an_error() -> None:
    with pytest.raises(UserError, match="mixture"):
        decide(small(), ledger(), None, 30, 0, np.full(6, "web"), {"web": 20})


def test_a_ledger_of_another_clustering_is_an_error() -> None:
    with pytest.raises(UserError, match="cluster 77"):
        decide(small(), ledger((1, 77, 10)), None, 10, 0)


def test_the_table_names_every_candidate_and_leaves_the_order_of_rejected_ones_null() -> None:
    table = decide(small(), ledger((1, 2, 20)), None, 20, seed=0).table()
    assert table.num_rows == 6 and table.schema.field("doc_id").type == pa.uuid()
    assert table.column("order").null_count == 4
    assert table.column("verdict").to_pylist().count("selected") == 2


def test_the_budget_must_be_positive_and_within_the_pool() -> None:
    check_budget(10, 10)
    with pytest.raises(UserError, match=r"1,000,000.*has 12 tokens"):
        check_budget(1_000_000, 12)
    with pytest.raises(UserError, match="at least 1"):
        check_budget(0, 12)


def test_random_control_is_a_seeded_set_that_does_not_depend_on_order() -> None:
    documents, tokens = ids(300), np.random.default_rng(1).integers(1, 50, 300)
    shuffle = np.random.default_rng(2).permutation(300)
    one = random_control(documents, tokens, 2000, seed=4)
    two = random_control(documents[shuffle], tokens[shuffle], 2000, seed=4)
    assert one.digest == two.digest == digest_ids(documents[one.selected])
    assert (one.selected[shuffle] == two.selected).all()
    assert one.tokens == tokens[one.selected].sum() <= 2000
    assert one.digest != random_control(documents, tokens, 2000, seed=5).digest


def test_random_control_draws_every_document_equally_often() -> None:
    documents, tokens = ids(40), np.full(40, 10)
    drawn = np.sum([random_control(documents, tokens, 200, seed).selected for seed in range(400)], axis=0)
    assert drawn.sum() == 400 * 20
    assert np.abs(drawn - 200).max() < 5 * 10  # five standard deviations of Binomial(400, 1/2)


pools = st.tuples(st.integers(1, 60), st.integers(1, 5), st.integers(0, 9999), st.booleans(), st.booleans())


@settings(max_examples=80, deadline=None)
@given(pools, st.data())
def test_the_budget_is_never_exceeded_and_used_up_to_the_smallest_document_left(
    pool: tuple[int, int, int, bool, bool], data: st.DataObject
) -> None:
    count, clusters, seed, scored, mixed = pool
    rng = np.random.default_rng(seed)
    arms = build_arms(ids(count, seed), rng.integers(0, clusters, count), rng.integers(1, 30, count))
    budget = data.draw(st.integers(1, arms.pool_tokens))
    rows, left = [], budget
    for number, arm in enumerate(rng.permutation(len(arms))):  # grants that cover the budget, as the bandit's do
        share = min(left, int(arms.arm_tokens()[arm]))
        rows += [
            (number, int(arms.clusters[arm]), share // 2),
            (number + 9, int(arms.clusters[arm]), share - share // 2),
        ]
        left -= share
    scores = rng.integers(0, 4, count).astype(float) if scored else None
    sources = rng.choice(["a", "b"], count) if mixed else None
    quota = {"a": budget // 3, "b": budget - budget // 3} if mixed else None
    made = decide(arms, ledger(*rows), scores, budget, 1, sources, quota)
    control = random_control(arms.doc_ids, arms.tokens, budget, 1, sources, quota)
    for selected in (made.selected, control.selected):
        if sources is None or quota is None:
            assert arms.tokens[selected].sum() <= budget
            continue
        for name, limit in quota.items():
            here = sources == name
            used = arms.tokens[selected & here].sum()
            assert used <= limit
            assert not (~selected & here & (arms.tokens <= limit - used)).any()
    granted = np.isin(arms.clusters[arms.arm_of], [cluster for _, cluster, tokens in rows if tokens])
    if sources is None:
        rest = arms.tokens[~made.selected & granted]
        assert not len(rest) or budget - made.tokens < rest.min()
        assert not (made.selected & ~granted).any()
    assert [reason.startswith("selected") for reason in made.reasons] == made.selected.tolist()
    assert sorted(made.order[made.selected].tolist()) == list(range(int(made.selected.sum())))

    shuffle = rng.permutation(count)
    other = build_arms(arms.doc_ids[shuffle], arms.clusters[arms.arm_of][shuffle], arms.tokens[shuffle])
    moved = decide(
        other,
        ledger(*rows),
        None if scores is None else scores[shuffle],
        budget,
        1,
        None if sources is None else sources[shuffle],
        quota,
    )
    assert moved.reasons == [made.reasons[i] for i in shuffle]
    assert moved.order.tolist() == made.order[shuffle].tolist()
