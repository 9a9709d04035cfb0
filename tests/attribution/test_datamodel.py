import numpy as np
import pytest

from winnow.attribution.bank import SubsetBank, query_key
from winnow.attribution.estimators import make_estimator
from winnow.attribution.estimators.datamodel import predict_left_out
from winnow.attribution.lds import lds, spearman_columns
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


def test_every_subset_is_predicted_by_a_model_that_has_not_seen_it():
    bank, _ = planted_bank(80)
    predicted = predict_left_out(bank, folds=4)
    assert spearman_columns(predicted, bank.losses[:, 0]).min() > 0.9
    broken = SubsetBank(bank.masks, bank.losses.copy(), bank.queries, bank.digest)
    broken.losses[3] += 100.0
    again = predict_left_out(broken, folds=4)
    assert np.array_equal(again[3::4], predicted[3::4]) and not np.array_equal(again[0::4], predicted[0::4])


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
