"""Keepers against the rule in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.keepers import assign_keepers
from winnow.errors import UserError


def naive_keepers(ids, edges, similarity, priority, characters):
    """The rule as it reads: per component, walk by priority, join the first kept neighbour."""
    neighbours: dict[int, dict[int, float]] = {i: {} for i in range(len(ids))}
    for (a, b), s in zip(edges, similarity, strict=True):
        neighbours[a][b] = neighbours[b][a] = s
    component, keeper, similar = {}, {}, {}
    for start in range(len(ids)):
        if start in component:
            continue
        members, todo = set(), [start]
        while todo:
            one = todo.pop()
            if one not in members:
                members.add(one)
                todo += neighbours[one]
        smallest = min(members, key=lambda i: bytes(ids[i]))
        kept: list[int] = []
        for one in sorted(members, key=lambda i: (priority[i], -len(neighbours[i]), -characters[i], bytes(ids[i]))):
            component[one] = smallest
            keeper[one] = next((other for other in kept if other in neighbours[one]), one)
            similar[one] = neighbours[one].get(keeper[one], 1.0)
            if keeper[one] == one:
                kept.append(one)
    size = {k: sum(1 for one in keeper.values() if one == k) for k in keeper.values()}
    every = range(len(ids))
    return (
        [component[i] for i in every],
        [keeper[i] for i in every],
        [similar[i] for i in every],
        [size[keeper[i]] for i in every],
    )


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    numbers = draw(st.lists(st.integers(0, 2**128 - 1), min_size=count, max_size=count, unique=True))
    ids = np.array([list(number.to_bytes(16, "big")) for number in numbers], np.uint8)
    place = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(place, place).filter(lambda p: p[0] < p[1]), unique=True, max_size=30))
    similarity = draw(st.lists(st.floats(0.8, 1), min_size=len(pairs), max_size=len(pairs)))
    few = st.integers(0, 2)  # ties are the interesting case
    priority = np.array(draw(st.lists(few, min_size=count, max_size=count)), np.int32)
    characters = np.array(draw(st.lists(few, min_size=count, max_size=count)), np.int64)
    return ids, np.array(pairs, np.int64).reshape(-1, 2), np.array(similarity), priority, characters


@given(graph=graphs())
@settings(max_examples=300, deadline=None)
def test_keepers_equal_the_rule_in_plain_python(graph):
    got = assign_keepers(*graph)
    component, keeper, similarity, size = naive_keepers(graph[0], graph[1].tolist(), graph[2].tolist(), *graph[3:])
    assert got.component.tolist() == component
    assert got.keeper.tolist() == keeper
    assert got.similarity.tolist() == similarity
    assert got.group_size.tolist() == size


@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_order_direction_and_repeats_of_the_input_change_nothing(graph, seed):
    ids, edges, similarity, priority, characters = graph
    rng = np.random.default_rng(seed)
    order, shuffle = rng.permutation(len(ids)), rng.permutation(len(edges))
    place = np.argsort(order)
    turned = place[edges][shuffle][:, :: rng.choice([-1, 1])]
    again = assign_keepers(
        ids[order],
        np.concatenate([turned, turned]),
        np.tile(similarity[shuffle], 2),
        priority[order],
        characters[order],
    )
    plain = assign_keepers(*graph)
    assert np.array_equal(order[again.keeper], plain.keeper[order])
    assert np.array_equal(order[again.component], plain.component[order])
    assert np.array_equal(again.similarity, plain.similarity[order])
    assert np.array_equal(again.group_size, plain.group_size[order])


@given(graph=graphs())
@settings(max_examples=150, deadline=None)
def test_duplicates_have_an_edge_to_a_keeper_that_is_kept(graph):
    got = assign_keepers(*graph)
    edges = {(a, b): s for (a, b), s in zip(graph[1].tolist(), graph[2].tolist(), strict=True)}
    for i in got.duplicates.tolist():
        keeper = int(got.keeper[i])
        assert edges[min(i, keeper), max(i, keeper)] == got.similarity[i]
        assert got.keeper[keeper] == keeper
    kept = set(range(len(graph[0]))) - set(got.duplicates.tolist())
    assert not any(a in kept and b in kept for a, b in edges)


def test_chain_is_not_closed_over_its_ends():
    ids = np.arange(5, dtype=np.uint8)[:, None].repeat(16, axis=1)
    chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    got = assign_keepers(ids, chain, np.full(4, 0.9), np.zeros(5, np.int32), np.array([9, 1, 1, 1, 9]))
    # 1, 2 and 3 have two pairs each; 1 leads by its id, takes 0 and 2; 3 takes 4.
    assert got.keeper.tolist() == [1, 1, 1, 3, 3]
    assert got.component.tolist() == [0] * 5 and got.group_size.tolist() == [3, 3, 3, 2, 2]


def test_source_priority_comes_before_everything_else():
    ids = np.arange(3, dtype=np.uint8)[:, None].repeat(16, axis=1)
    star = np.array([[0, 1], [0, 2]])
    got = assign_keepers(ids, star, np.ones(2), np.array([1, 1, 0]), np.array([99, 99, 1]))
    assert got.keeper.tolist() == [2, 1, 2]


def test_no_pairs_keep_every_document():
    got = assign_keepers(np.zeros((0, 16), np.uint8), np.zeros((0, 2), int), np.zeros(0), np.zeros(0), np.zeros(0))
    assert len(got.keeper) == 0
    ids = np.arange(3, dtype=np.uint8)[:, None].repeat(16, axis=1)
    got = assign_keepers(ids, np.zeros((0, 2), np.int32), np.zeros(0), np.zeros(3, np.int32), np.ones(3, np.int64))
    assert got.keeper.tolist() == got.component.tolist() == [0, 1, 2]
    assert got.group_size.tolist() == [1, 1, 1] and got.similarity.tolist() == [1, 1, 1]


@pytest.mark.parametrize("edge", [[0, 3], [-1, 0], [1, 1]])
def test_edges_that_join_no_two_documents_are_refused(edge):
    ids = np.arange(3, dtype=np.uint8)[:, None].repeat(16, axis=1)
    with pytest.raises(UserError, match="3 documents"):
        assign_keepers(ids, np.array([edge]), np.ones(1), np.zeros(3, np.int32), np.ones(3, np.int64))
