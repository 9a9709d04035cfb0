import numpy as np
import pytest

from winnow.attribution.bank import SubsetBank, query_key
from winnow.attribution.estimators import make_estimator
from winnow.attribution.lds import lds
from winnow.attribution.ridge import PENALTIES, fit_ridge
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.errors import UserError

QUERIES = [np.array([1, 2, 3]), np.array([4, 5, 6]), np.array([7, 8])]


def planted_bank(subsets, documents=20, noise=0.02, seed=0):
    """A bank whose losses are linear in membership but for the noise, and the weights behind it."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(len(QUERIES), documents)) * (generator.random((len(QUERIES), documents)) < 0.4)
    masks = np.argsort(generator.random((subsets, documents)), axis=1) < documents // 2
    losses = 5.0 - masks @ weights.T + noise * generator.normal(size=(subsets, len(QUERIES)))
    return SubsetBank(masks, losses[:, None, :], tuple(map(query_key, QUERIES)), "planted"), weights


def run_with(bank):
    return TrainingRun([np.array([1, 2])] * 20, (RunCheckpoint("none", lambda: None),), bank=bank)


@pytest.mark.parametrize("name", ["datamodel", "datamodel_lasso"])
def test_planted_weights_are_recovered_and_rank_other_subsets(name):
    bank, weights = planted_bank(200)
    fitted = make_estimator(name).fit(run_with(bank.take(np.arange(120))), Settings())
    scores = fitted.score(Queries(QUERIES[::-1]))[::-1]
    # Subsets are of one size: a constant on all documents cannot be seen.
    gap = (scores - scores.mean(axis=1, keepdims=True)) - (weights - weights.mean(axis=1, keepdims=True))
    assert np.abs(gap).max() < 0.1
    judges = bank.take(np.arange(120, 200))
    assert lds(scores, judges.masks, judges.losses).mean > 0.98


def test_noise_is_not_fitted():
    generator = np.random.default_rng(5)
    found = fit_ridge(generator.normal(size=(40, 60)), generator.normal(size=(40, 3)))
    assert found.explained < 0.15 and np.abs(found.weights).max() < 0.1


def test_the_chosen_penalty_is_that_of_leaving_rows_out_one_by_one():
    generator = np.random.default_rng(3)
    features = generator.normal(size=(12, 5))
    targets = features @ generator.normal(size=(5, 2)) + generator.normal(size=(12, 2))
    found = fit_ridge(features, targets)

    def left_out(penalty):
        error = np.zeros(2)
        for row in range(12):
            rest = np.arange(12) != row
            x, y = features[rest], targets[rest]
            mean = x.mean(axis=0)
            weights = np.linalg.solve((x - mean).T @ (x - mean) + penalty * np.eye(5), (x - mean).T @ (y - y.mean(0)))
            error += (targets[row] - y.mean(axis=0) - (features[row] - mean) @ weights) ** 2
        return (error / 12 / targets.var(axis=0)).mean()

    square = np.linalg.svd(features - features.mean(axis=0), compute_uv=False) ** 2
    errors = [left_out(penalty) for penalty in PENALTIES * square.mean()]
    # Leaving a row out also moves the mean, so the shortcut is exact to the order of 1/M only.
    assert abs(int(np.argmin(errors)) - int(np.argmin(np.abs(PENALTIES * square.mean() - found.penalty)))) <= 1
    assert 1.0 - found.explained == pytest.approx(min(errors), rel=0.1)


def test_a_run_without_a_bank_and_a_query_that_it_does_not_know_are_refused():
    bank, _ = planted_bank(8)
    with pytest.raises(UserError, match="bank"):
        make_estimator("datamodel").fit(run_with(None), Settings())
    with pytest.raises(UserError, match="no losses"):
        make_estimator("datamodel").fit(run_with(bank), Settings()).score(Queries([np.array([9, 9])]))


@pytest.mark.parametrize("rows", [8, 30])
def test_rows_centred_by_group_and_sparse_features_give_what_dense_normal_equations_do(rows):
    from scipy.sparse import csr_array

    generator = np.random.default_rng(rows)
    features = generator.normal(size=(rows, 12)) * (generator.random((rows, 12)) < 0.4)
    groups = np.arange(rows) % 3
    targets = features @ generator.normal(size=(12, 2)) + 5.0 * groups[:, None] + 0.1 * generator.normal(size=(rows, 2))
    found, sparse = fit_ridge(features, targets, groups), fit_ridge(csr_array(features), targets, groups)
    np.testing.assert_allclose(sparse.weights, found.weights, rtol=1e-8, atol=1e-10)
    x, y = (
        one - np.stack([one[groups == part].mean(axis=0) for part in range(3)])[groups] for one in (features, targets)
    )
    direct = np.linalg.solve(x.T @ x + found.penalty * np.eye(12), x.T @ y)
    np.testing.assert_allclose(found.weights, direct, rtol=1e-6, atol=1e-8)
