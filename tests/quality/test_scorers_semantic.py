"""SemDeDup and D4 as scores, on vectors whose duplicates are known."""

from __future__ import annotations

import numpy as np
import pytest

from winnow.quality.scorers import Documents, ScorerContext, make_scorer


@pytest.fixture(scope="module")
def documents() -> Documents:
    """Sixty directions; of the first ten there are two more, turned a little."""
    draw = np.random.default_rng(0)
    base = draw.normal(size=(60, 24))
    copies = np.concatenate([base[:10] + 0.05 * draw.normal(size=(10, 24)) for _ in range(2)])
    vectors = np.concatenate([base, copies])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = draw.integers(0, 256, (80, 16), dtype=np.uint8)
    return Documents(ids, vectors=vectors.astype(np.float32))


def score(documents: Documents, name: str, options: dict, seed: int = 0) -> np.ndarray:
    return make_scorer(name, options).fit(ScorerContext(seed=seed)).score(documents).values


def reversed_documents(documents: Documents) -> Documents:
    return Documents(documents.doc_ids[::-1].copy(), vectors=documents.vectors[::-1].copy())


@pytest.mark.parametrize("name", ["semdedup", "d4"])
def test_of_each_group_one_document_is_kept_and_the_order_given_changes_nothing(documents, name: str) -> None:
    options = {"epsilon": 0.1, "kept": 0.0}
    values = score(documents, name, options)
    kept = values >= 0
    assert kept.sum() == 60 and kept[10:60].all()
    assert all(kept[[place, 60 + place, 70 + place]].sum() == 1 for place in range(10))
    assert np.array_equal(score(reversed_documents(documents), name, options)[::-1], values)


def test_what_semdedup_removes_ranks_by_how_little_it_is_a_duplicate(documents) -> None:
    values = score(documents, "semdedup", {"epsilon": 0.1})
    removed = np.flatnonzero(values < 0)
    vectors = documents.vectors.astype(np.float64)
    cosines = vectors @ vectors.T - 2.0 * np.eye(80)
    for place in removed:
        group = [other for other in (place % 10 + np.array([0, 60, 70])) if other != place]
        greatest = cosines[place, group]
        assert min(abs(0.9 - values[place] - value) for value in greatest) < 1e-6


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.6])
def test_what_is_kept_is_what_the_released_rule_keeps_where_similarity_chains(documents, epsilon: float) -> None:
    from winnow.dedup.semantic import find_semantic_duplicates
    from winnow.dedup.semantic_clusters import cluster_documents

    found = find_semantic_duplicates(cluster_documents(documents.doc_ids, documents.vectors), epsilon, "code")
    values = score(documents, "semdedup", {"epsilon": epsilon})
    assert np.flatnonzero(values >= 0).tolist() == found.kept.tolist()


def test_what_semdedup_keeps_comes_in_an_order_of_the_seed(documents) -> None:
    first, second = (score(documents, "semdedup", {"epsilon": 0.1}, seed) for seed in (1, 2))
    kept = (first >= 0) & (second >= 0)
    assert (first[kept] < 1).all() and abs(np.corrcoef(first[kept], second[kept])[0, 1]) < 0.5


@pytest.mark.parametrize("name", ["semdedup", "d4"])
def test_a_share_to_keep_sets_the_threshold(documents, name: str) -> None:
    assert (score(documents, name, {"kept": 0.9}) >= 0).sum() == 72
    assert (score(documents, name, {"kept": 1.0}) >= 0).all()


def test_d4_prefers_what_is_far_from_the_centroids_of_what_is_left(documents) -> None:
    from winnow.embed.clusters import assign, fit_centroids

    values = score(documents, "d4", {"epsilon": 0.1, "kept": 0.0})
    kept = np.flatnonzero(values >= 0)
    _, distance = assign(documents.vectors[kept], fit_centroids(documents.vectors[kept], 1, 0))
    assert values[kept] == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("name", ["semdedup", "d4"])
def test_no_documents_are_no_error_and_one_is_kept(documents, name: str) -> None:
    assert len(score(Documents(documents.doc_ids[:0], vectors=documents.vectors[:0]), name, {})) == 0
    assert score(Documents(documents.doc_ids[:1], vectors=documents.vectors[:1]), name, {})[0] >= 0
