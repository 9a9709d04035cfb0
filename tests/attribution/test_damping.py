import numpy as np
import pytest
from attribution_models import build_llama, random_docs

from winnow.attribution.bank import SubsetBank, query_key
from winnow.attribution.damping import against_bank, against_truth, damped_scores, sweep_damping
from winnow.attribution.estimators import make_estimator
from winnow.attribution.lds import lds
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.errors import UserError

TRUTH = np.random.default_rng(0).normal(size=(12, 40))


def _noisy(amount, seed):
    return TRUTH + amount * np.random.default_rng(seed).normal(size=TRUTH.shape)


def test_the_damping_whose_scores_are_nearest_to_the_truth_is_chosen_with_its_interval():
    scores = {1.0: _noisy(0.3, 1), 0.1: _noisy(3.0, 2), 10.0: _noisy(2.0, 3)}
    sweep = sweep_damping(scores, against_truth(TRUTH))
    assert sweep.dampings.tolist() == [0.1, 1.0, 10.0] and sweep.best == 1.0 and sweep.tied == (1.0,)
    assert sweep.interval[0] < sweep.means[1] < sweep.interval[1]
    assert sweep.held_out == pytest.approx(sweep.means[1])
    assert sweep.interval == sweep_damping(scores, against_truth(TRUTH)).interval


def test_values_that_cannot_be_told_apart_are_named_and_the_larger_of_equals_is_taken():
    same = _noisy(0.5, 1)
    sweep = sweep_damping({0.1: same, 1.0: same, 10.0: -same}, against_truth(TRUTH))
    assert sweep.best == 1.0 and sweep.tied == (0.1, 1.0)


def test_choosing_among_noise_is_not_flattered_on_the_held_out_half():
    scores = {float(place): np.random.default_rng(place).normal(size=TRUTH.shape) for place in range(1, 60)}
    sweep = sweep_damping(scores, against_truth(TRUTH))
    assert sweep.means.max() > 0.1 and sweep.held_out < sweep.means.max() / 2


def test_documents_without_a_score_do_not_count_against_the_truth():
    holed, truth = TRUTH.copy(), TRUTH.copy()
    holed[:, 3] = np.nan
    truth[:, 5] = np.nan
    np.testing.assert_allclose(against_truth(truth)(holed), 1.0)
    with pytest.raises(UserError, match="do not fit"):
        against_truth(TRUTH)(TRUTH[:, :5])


def test_the_quality_against_a_bank_is_its_lds():
    generator = np.random.default_rng(1)
    masks = np.array([generator.permutation(40) < 20 for _ in range(16)])
    queries = Queries([np.array([index, 1]) for index in range(12)])
    losses = np.repeat(-(masks.astype(float) @ TRUTH.T)[:, None, :], 2, axis=1)
    bank = SubsetBank(masks, losses, tuple(query_key(tokens) for tokens in queries.tokens), "")
    np.testing.assert_allclose(against_bank(bank, queries)(TRUTH), 1.0)
    noisy = _noisy(1.0, 4)
    assert against_bank(bank, queries)(noisy).tolist() == lds(noisy, masks, losses).per_query.tolist()


def test_scores_of_several_dampings_are_those_of_separate_fits():
    run = TrainingRun(random_docs(6), (RunCheckpoint("a", build_llama),))
    queries = Queries(random_docs(2, seed=9))
    settings = Settings("attention")
    found = damped_scores(make_estimator("ekfac"), run, settings, queries, (0.1, 10.0))
    for damping, scores in found.items():
        separate = make_estimator("ekfac").fit(run, Settings("attention", damping=damping)).score(queries)
        assert np.array_equal(scores, separate)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(UserError, match="no damping"):
        sweep_damping({}, against_truth(TRUTH))
    with pytest.raises(UserError, match="at least two"):
        sweep_damping({1.0: TRUTH[:1]}, against_truth(TRUTH[:1]))
