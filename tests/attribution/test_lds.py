"""The linear datamodelling score, its errors and its ceiling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from winnow.attribution.lds import ceiling, compare, lds, predicted, spearman_columns
from winnow.errors import UserError

SUBSETS, DOCUMENTS, QUERIES = 24, 30, 6


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True scores [Q, N], masks [M, N] of one size, and losses [M, 2, Q] linear in them but for noise."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(QUERIES, DOCUMENTS))
    masks = np.array([generator.permutation(DOCUMENTS) < DOCUMENTS // 2 for _ in range(SUBSETS)])
    clean = -(masks @ scores.T)
    return scores, masks, clean[:, None] + generator.normal(scale=0.8, size=(SUBSETS, 2, QUERIES))


def test_the_score_is_spearman_of_summed_scores_and_negative_mean_losses(world) -> None:
    scores, masks, losses = world
    found = lds(scores, masks, losses)
    for query in range(QUERIES):
        expected = spearmanr(masks @ scores[query], -losses[:, :, query].mean(axis=1)).statistic
        assert found.per_query[query] == pytest.approx(expected)
    assert found.mean == pytest.approx(found.per_query.mean())


def test_true_scores_without_noise_have_one_and_their_negative_minus_one(world) -> None:
    scores, masks, _ = world
    losses = -(masks @ scores.T)[:, None]
    assert lds(scores, masks, losses).mean == pytest.approx(1.0)
    assert lds(-scores, masks, losses).mean == pytest.approx(-1.0)


def test_a_constant_added_to_a_querys_scores_changes_nothing(world) -> None:
    scores, masks, losses = world
    shifted = scores + 1e3 * np.arange(QUERIES)[:, None]
    assert lds(shifted, masks, losses).mean == pytest.approx(lds(scores, masks, losses).mean)


def test_a_constant_score_has_no_correlation(world) -> None:
    _, masks, losses = world
    found = lds(np.full((QUERIES, DOCUMENTS), 0.1), masks, losses)
    assert (found.mean, found.se) == (0.0, 0.0)


def test_a_missing_score_counts_as_the_mean_of_its_query(world) -> None:
    scores, masks, _ = world
    holed = scores.copy()
    holed[:, 3] = np.nan
    filled = holed.copy()
    filled[:, 3] = np.nanmean(holed, axis=1)
    np.testing.assert_allclose(predicted(holed, masks), predicted(filled, masks), atol=1e-12)


def test_ties_have_their_mean_rank() -> None:
    left, right = np.array([[1.0], [1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0], [4.0]])
    assert spearman_columns(left, right)[0] == pytest.approx(spearmanr(left[:, 0], right[:, 0]).statistic)


def test_standard_errors_shrink_with_more_subsets_and_queries() -> None:
    generator = np.random.default_rng(1)

    def errors(subsets: int, queries: int) -> float:
        scores = generator.normal(size=(queries, 40))
        masks = np.array([generator.permutation(40) < 20 for _ in range(subsets)])
        noisy = -(masks @ scores.T) + generator.normal(scale=3.0, size=(subsets, queries))
        return lds(scores, masks, noisy[:, None]).se

    assert errors(100, 32) < 0.5 * errors(12, 4)


def test_an_estimator_does_not_differ_from_itself_and_beats_a_noisier_one(world) -> None:
    scores, masks, losses = world
    same = compare(scores, scores, masks, losses)
    assert (same.mean, same.se) == (0.0, 0.0)
    worse = scores + np.random.default_rng(2).normal(scale=3.0, size=scores.shape)
    better = compare(scores, worse, masks, losses)
    assert better.mean > 0.0 and better.low > 0.0
    assert better.low <= better.mean <= better.high


def test_the_ceiling_is_the_correlation_that_the_truth_reaches() -> None:
    generator = np.random.default_rng(3)
    clean = generator.normal(size=(400, 1, 20))
    for seeds, noise in ((2, 0.7), (4, 0.7), (2, 1.5)):
        losses = clean + generator.normal(scale=noise, size=(400, seeds, 20))
        truth = spearman_columns(clean[:, 0], losses.mean(axis=1)).mean()
        assert ceiling(losses) == pytest.approx(truth, abs=0.03)


def test_a_single_seed_tells_no_ceiling_and_unrelated_seeds_have_none() -> None:
    generator = np.random.default_rng(4)
    assert np.isnan(ceiling(generator.normal(size=(8, 1, 3))))
    opposite = generator.normal(size=(8, 1, 3))
    assert ceiling(np.concatenate([opposite, -opposite], axis=1)) == 0.0


def test_scores_of_another_number_of_documents_are_refused(world) -> None:
    _, masks, losses = world
    with pytest.raises(UserError, match="do not fit subsets of 30 documents"):
        lds(np.zeros((QUERIES, 7)), masks, losses)
