import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.embed.clusters import assign, default_k, fit_centroids
from winnow.errors import UserError


def blobs(clusters: int, each: int, dimension: int = 32, noise: float = 0.1, seed: int = 0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dimension))
    vectors = np.repeat(centers / np.linalg.norm(centers, axis=1, keepdims=True), each, axis=0)
    vectors = vectors + noise * rng.normal(size=vectors.shape) / np.sqrt(dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(clusters), each)


def test_fit_does_not_depend_on_the_order_of_the_vectors():
    vectors, _ = blobs(7, 60)
    centroids = fit_centroids(vectors, 9, seed=5)
    shuffled = vectors[np.random.default_rng(1).permutation(len(vectors))]
    assert np.array_equal(fit_centroids(shuffled, 9, seed=5), centroids)
    assert centroids.shape == (9, 32) and centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert not np.array_equal(fit_centroids(vectors, 9, seed=6), centroids)


def test_more_vectors_than_the_sample_still_ignore_order():
    vectors, _ = blobs(3, 400)
    centroids = fit_centroids(vectors, 2, seed=0, iterations=5)
    assert np.array_equal(fit_centroids(vectors[::-1], 2, seed=0, iterations=5), centroids)


def test_planted_clusters_are_found():
    from sklearn.metrics import adjusted_rand_score

    vectors, truth = blobs(6, 50)
    found, distance = assign(vectors, fit_centroids(vectors, 12, seed=0))
    merged = [truth[found == c][0] for c in found]  # twelve centroids may split a blob, never join two
    assert adjusted_rand_score(truth, merged) > 0.95
    assert found.dtype == np.int32 and distance.dtype == np.float32
    assert distance.max() < 0.1


def test_assign_agrees_with_the_exact_distance_in_float64():
    vectors, _ = blobs(5, 40, noise=0.8)
    centroids = fit_centroids(vectors, 8, seed=2)
    found, distance = assign(vectors, centroids)
    exact = 1 - vectors.astype(np.float64) @ centroids.T.astype(np.float64)
    np.testing.assert_allclose(distance, exact.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(exact[np.arange(len(found)), found], exact.min(axis=1), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2499), min_size=1, max_size=1500))
def test_an_assignment_does_not_depend_on_the_other_vectors(rows):
    vectors, _ = blobs(25, 100, dimension=48, noise=1.5)
    centroids, _ = blobs(40, 1, dimension=48, seed=9)
    cluster, distance = assign(vectors, centroids)
    some_cluster, some_distance = assign(vectors[rows], centroids)
    assert np.array_equal(some_cluster, cluster[rows])
    assert np.array_equal(some_distance, distance[rows])


def test_of_equal_centroids_the_lower_index_wins():
    vectors, _ = blobs(1, 10)
    centroids = np.repeat(vectors[:1], 3, axis=0)
    assert assign(vectors, centroids)[0].tolist() == [0] * 10


def test_fewer_distinct_vectors_than_clusters_leave_clusters_empty_but_every_vector_assigned():
    vectors = np.repeat(blobs(2, 1)[0], 20, axis=0)
    centroids = fit_centroids(vectors, 5, seed=0)
    found, distance = assign(vectors, centroids)
    assert np.isfinite(centroids).all()
    assert len(np.unique(found)) <= 5 and len(np.unique(found[:20])) == 1
    assert distance.max() < 1e-3


def test_k_outside_the_number_of_vectors_is_a_user_error():
    vectors, _ = blobs(1, 4)
    for k in (0, 5):
        with pytest.raises(UserError, match="between 1 and the number of documents"):
            fit_centroids(vectors, k, seed=0)


def test_default_k_grows_with_the_documents_within_bounds():
    assert [default_k(n) for n in (0, 1, 5, 300, 6000, 10**7)] == [1, 1, 5, 8, 60, 1000]
