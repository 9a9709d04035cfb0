"""Semantic duplicates: two published rules against slow exact twins, free of order, blocks and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.config import Semantic
from winnow.dedup import semantic
from winnow.dedup.semantic import (
    EPSILONS,
    SemanticDuplicates,
    find_prototypes,
    find_semantic_duplicates,
    semantic_version,
)
from winnow.dedup.semantic_clusters import SemanticClusters, cluster_documents, planned_clusters
from winnow.errors import UserError

DIMENSION = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def some_ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 256, (count, 16), dtype=np.uint8)


def families(seed: int, topics: int = 12, members: int = 9, spread: float = 0.25) -> np.ndarray:
    """Return vectors in families that range from equal to barely related; a few are bitwise copies."""
    draw = np.random.default_rng(seed)
    middles = draw.normal(size=(topics, DIMENSION))
    noise = draw.normal(size=(topics, members, DIMENSION)) * np.geomspace(0.005, 4 * spread, members)[None, :, None]
    vectors = unit((middles[:, None] + noise).reshape(-1, DIMENSION))
    vectors[5::17] = vectors[4::17][: len(vectors[5::17])]
    return vectors


def clustered(vectors: np.ndarray, seed: int = 0, **options: int) -> SemanticClusters:
    return cluster_documents(some_ids(len(vectors), seed), vectors, **options)


@dataclass
class Twin:
    """What the rules say, document by document over the dense cosine matrix in float64."""

    keeper: list[int]
    nearest_similarity: list[float]


def twin(clusters: SemanticClusters, epsilon: float, variant: str) -> Twin:
    count, threshold = len(clusters.ids), 1.0 - epsilon
    exact = clusters.vectors.astype(np.float64)
    cosine = np.minimum(np.cumsum(exact[:, None] * exact[None, :], axis=2)[:, :, -1], 1.0)
    same = (clusters.vectors[:, None] == clusters.vectors[None, :]).all(axis=2)
    cosine[same] = 1.0
    keeper, nearest = list(range(count)), [float("nan")] * count
    for cluster in range(clusters.count):
        walk = sorted(
            np.flatnonzero(clusters.cluster == cluster).tolist(),
            key=lambda at: (clusters.priority[at], -clusters.distance[at], clusters.ids[at].tobytes()),
        )
        for place, document in enumerate(walk):
            earlier = walk[:place]
            if earlier:
                nearest[document] = max(cosine[document, other] for other in earlier)
            if variant == "paper":
                for other in earlier:
                    if keeper[other] == other and cosine[document, other] > threshold:
                        keeper[document] = other
                        break
            elif earlier and nearest[document] > threshold:
                closest = next(other for other in earlier if cosine[document, other] == nearest[document])
                keeper[document] = keeper[closest]
    return Twin(keeper, nearest)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    epsilon=st.sampled_from([0.001, 0.02, 0.05, 0.17, 0.3, 0.6]),
    variant=st.sampled_from(["paper", "code"]),
    clusters=st.sampled_from([1, 4]),
)
def test_both_variants_decide_as_their_slow_twins(seed: int, epsilon: float, variant: str, clusters: int) -> None:
    made = clustered(families(seed), seed, clusters=clusters)
    found, expected = find_semantic_duplicates(made, epsilon, variant), twin(made, epsilon, variant)
    assert found.keeper.tolist() == expected.keeper
    np.testing.assert_allclose(found.nearest_similarity, expected.nearest_similarity, atol=1e-9)
    exact = made.vectors.astype(np.float64)
    np.testing.assert_allclose(found.similarity, np.einsum("nd,nd->n", exact, exact[found.keeper]), atol=1e-6)


def test_small_blocks_decide_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = clustered(families(3))
    whole = find_semantic_duplicates(made, 0.1)
    monkeypatch.setattr(semantic, "BLOCK", 7)
    pieces = find_semantic_duplicates(made, 0.1)
    assert answers(pieces) == answers(whole)


def answers(found: SemanticDuplicates) -> dict[str, object]:
    """Return every decision by document, whatever the order of the documents."""
    ids = [row.tobytes() for row in found.clusters.ids]
    rows = zip(
        ids,
        (ids[at] for at in found.keeper),
        (ids[at] for at in found.component),
        found.similarity.tolist(),
        found.group_size.tolist(),
        np.nan_to_num(found.nearest_similarity, nan=-1).tolist(),
        found.clusters.distance.tolist(),
        strict=True,
    )
    return {"rows": sorted(rows), "counted": found.counted}


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_order_of_the_documents_changes_no_bit(variant: str) -> None:
    vectors, ids = families(5, topics=20), some_ids(180)
    priority = np.random.default_rng(2).integers(0, 2, 180)
    order = np.random.default_rng(1).permutation(180)
    straight = cluster_documents(ids, vectors, priority, clusters=3, max_cluster=60)
    shuffled = cluster_documents(ids[order], vectors[order], priority[order], clusters=3, max_cluster=60)
    one, other = (find_semantic_duplicates(made, 0.08, variant) for made in (straight, shuffled))
    assert answers(one) == answers(other)
    dropped = [
        {made.clusters.ids[at].tobytes() for at in find_prototypes(made, 0.5, clusters=2)[0]} for made in (one, other)
    ]
    assert dropped[0] == dropped[1]


def test_the_paper_keeps_the_farthest_from_the_centroid_in_every_group() -> None:
    made = clustered(families(7), clusters=2)
    found = find_semantic_duplicates(made, 0.1)
    assert len(found.removed) > 20
    assert (made.distance[found.keeper] >= made.distance).all()
    assert (found.similarity[found.removed] > 0.9).all()
    assert (made.cluster[found.keeper] == made.cluster).all()
    assert (found.keeper[found.keeper] == found.keeper).all()


def chain(step: float, length: int) -> np.ndarray:
    """Return vectors on a circle, ``step`` radians apart, so that only neighbours are alike."""
    angles = step * np.arange(length)
    return unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_where_similarity_chains_the_code_removes_more_and_its_keeper_may_be_far() -> None:
    vectors = np.concatenate([chain(0.1, 9), unit(np.array([[-1.0, 0.0]]))])
    made = clustered(vectors, clusters=1)
    paper, code = (find_semantic_duplicates(made, 0.006, variant) for variant in ("paper", "code"))
    assert set(paper.removed) < set(code.removed)
    assert (paper.similarity[paper.removed] > 0.994).all()
    assert code.similarity.min() < 0.994
    assert len(set(code.component[:9].tolist())) == 1
    assert code.component[9] == code.keeper[9] == 9
    assert code.grouped.tolist() == list(range(9))
    assert sorted(code.group_size[code.kept].tolist()) == [1, 4, 5]  # from both ends of the chain to its middle


def test_the_code_removes_all_that_the_paper_removes() -> None:
    made = clustered(families(11), clusters=2)
    for epsilon in EPSILONS:
        paper, code = (find_semantic_duplicates(made, epsilon, variant) for variant in ("paper", "code"))
        assert set(paper.removed) <= set(code.removed)


def test_a_preferred_source_is_kept_before_the_farthest() -> None:
    vectors = families(13)
    plain = find_semantic_duplicates(clustered(vectors, clusters=1), 0.05)
    duplicate = int(plain.removed[0])
    priority = np.ones(len(vectors), np.int64)
    priority[duplicate] = 0
    preferred = cluster_documents(some_ids(len(vectors)), vectors, priority, clusters=1)
    assert duplicate in find_semantic_duplicates(preferred, 0.05).kept


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_sweep_of_one_pass_is_what_each_epsilon_keeps(variant: str) -> None:
    found = find_semantic_duplicates(clustered(families(17), clusters=2), 0.033, variant)
    table = found.sweep()
    rows = {(row["variant"], row["epsilon"]): row for row in table.to_pylist()}
    assert set(rows) == {(name, epsilon) for name in ("paper", "code") for epsilon in (*EPSILONS, 0.033)}
    for epsilon in (0.001, 0.033, 0.1, 0.3):
        again = found.rethreshold(epsilon)
        assert again.epsilon == epsilon and again.variant == variant
        assert rows[variant, epsilon]["kept"] == len(again.kept)
        assert found.kept_share(epsilon) == len(again.kept) / len(found.keeper) == again.kept_share()
    assert found.kept_share(0.0421) == found.rethreshold(0.0421).kept_share()
    assert found.kept_share(0.001) > found.kept_share(0.3)


def test_kept_and_removed_are_all_documents() -> None:
    found = find_semantic_duplicates(clustered(families(19)), 0.1)
    assert sorted([*found.kept, *found.removed]) == list(range(len(found.keeper)))
    assert found.kept_share() == len(found.kept) / len(found.keeper)


def test_examples_stand_on_both_sides_of_the_threshold_nearest_first() -> None:
    found = find_semantic_duplicates(clustered(families(23)), 0.1)
    shown = found.nearest_similarity[found.near_threshold(3)]
    every = found.nearest_similarity[~np.isnan(found.nearest_similarity)]
    assert shown[:3].tolist() == sorted(every[every > 0.9].tolist())[:3]
    assert shown[3:].tolist() == sorted(every[every <= 0.9].tolist(), reverse=True)[:3]


def test_planted_duplicates_are_found_and_strangers_are_kept() -> None:
    draw = np.random.default_rng(0)
    strangers = unit(draw.normal(size=(2_000, 64)))
    planted = unit(strangers[:300] + 0.02 * draw.normal(size=(300, 64)))  # cosine about 0.987
    vectors = np.concatenate([strangers, planted])
    found = find_semantic_duplicates(clustered(vectors, clusters=8), 0.05)
    pairs = [at for at in range(300) if found.keeper[at] == found.keeper[2_000 + at]]
    assert len(pairs) >= 290  # the rest fell into two clusters
    assert set(found.removed) <= {*range(300), *range(2_000, 2_300)}


# -- clusters ---------------------------------------------------------------------------------------------------------


def test_the_number_of_clusters_follows_the_number_of_documents() -> None:
    assert [planned_clusters(n) for n in (0, 1, 5_000, 5_001, 1_000_000)] == [1, 1, 1, 2, 200]


def test_a_cluster_that_is_too_large_is_split_until_it_is_not() -> None:
    vectors = families(29, topics=30, members=10)
    made = clustered(vectors, clusters=1, max_cluster=40)
    assert made.largest <= 40 + np.count_nonzero(made.original != np.arange(len(vectors)))
    assert max(len(walk) for walk in made.walks()) <= 40
    assert made.count == len(made.walks())


def test_a_template_of_many_equal_vectors_costs_one_document_and_leaves_one() -> None:
    vectors = np.repeat(unit(np.random.default_rng(0).normal(size=(3, 8))), 4_000, axis=0)
    made = clustered(vectors, clusters=2, max_cluster=100)
    assert sum(len(walk) for walk in made.walks()) == 3
    found = find_semantic_duplicates(made, 0.001)
    assert len(found.kept) == 3
    assert found.group_size.tolist() == [4_000] * 12_000
    smallest = [min(range(at, at + 4_000), key=lambda place: made.ids[place].tobytes()) for at in (0, 4_000, 8_000)]
    assert found.kept.tolist() == smallest
    assert found.kept_share(0.3) <= found.kept_share(0.001) == 3 / 12_000


def test_vectors_that_k_means_cannot_part_stay_together() -> None:
    base = unit(np.ones((1, 16)))
    nearly = np.repeat(base, 60, axis=0)
    nearly[np.arange(60), np.arange(60) % 16] += np.float32(2e-7) * (1 + np.arange(60, dtype=np.float32) // 16)
    found = find_semantic_duplicates(clustered(nearly, clusters=1, max_cluster=5), 0.001)
    assert len(found.kept) <= found.clusters.count


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_documents_are_no_special_case(count: int) -> None:
    vectors = unit(np.arange(1, 1 + 8 * count, dtype=float).reshape(count, 8)) if count else np.zeros((0, 8), "f4")
    found = find_semantic_duplicates(clustered(vectors), 0.05)
    assert len(found.kept) == min(count, 1)
    assert found.sweep().num_rows == 2 * len(EPSILONS)
    assert found.kept_share() == (1 / count if count else 1.0)
    assert len(find_prototypes(found, 0.5)[0]) == 0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((3, 4), 1.0, np.float32), "row 0 has length 2"),
        (np.full((3, 4), np.nan, np.float32), "row 0 has length nan"),
        (np.zeros((2, 4), np.float32), "3 documents"),
        (np.full((3, 4), 0.5), "float64"),
    ],
)
def test_vectors_that_are_not_unit_rows_are_refused(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_documents(some_ids(3), vectors)


def test_an_impossible_setting_is_refused() -> None:
    made = clustered(families(0))
    for call in (
        lambda: find_semantic_duplicates(made, 0.0),
        lambda: find_semantic_duplicates(made, 0.1, "papers"),
        lambda: find_semantic_duplicates(made, 0.1).kept_share(1.5),
        lambda: find_prototypes(find_semantic_duplicates(made, 0.1), 0.0),
    ):
        with pytest.raises(UserError, match="semantic duplicates"):
            call()


# -- the second step of D4 ---------------------------------------------------------------------------------------------


def test_prototypes_are_the_kept_documents_nearest_to_their_new_centroids() -> None:
    found = find_semantic_duplicates(clustered(families(31)), 0.05)
    dropped, distance = find_prototypes(found, 0.7, clusters=4)
    kept = set(found.kept.tolist())
    assert set(dropped.tolist()) <= kept
    assert len(kept) - len(dropped) == ceil(0.7 * len(kept))
    left = sorted(kept - set(dropped.tolist()))
    assert distance[dropped].max() <= distance[left].min()
    assert np.isnan(distance[found.removed]).all()
    assert len(find_prototypes(found, 1.0)[0]) == 0


def test_the_version_names_what_is_found_and_not_what_is_done_with_it() -> None:
    version = semantic_version(Semantic())
    assert semantic_version(Semantic(enabled=False, filter=True)) == version
    assert semantic_version(Semantic(epsilon=0.06)) != version != semantic_version(Semantic(variant="code"))


THREADS = """
import hashlib, sys
import numpy as np
from winnow.dedup.semantic import find_semantic_duplicates
from winnow.dedup.semantic_clusters import cluster_documents
draw = np.random.default_rng(0)
vectors = draw.normal(size=(400, 384)).repeat(6, axis=0) + 0.3 * draw.normal(size=(2400, 384))
vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
ids = draw.integers(0, 256, (2400, 16), dtype=np.uint8)
found = find_semantic_duplicates(cluster_documents(ids, vectors, clusters=3), 0.1)
sums = [found.keeper, found.similarity, found.nearest_similarity, found.component, found.clusters.distance]
print(len(found.removed), hashlib.sha256(b"".join(column.tobytes() for column in sums)).hexdigest())
"""


@pytest.mark.slow
def test_one_thread_and_two_find_the_same() -> None:
    said = []
    for threads in ("1", "2"):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONHASHSEED": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout)
    assert said[0] == said[1]
    assert int(said[0].split()[0]) > 1_000
