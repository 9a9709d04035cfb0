import numpy as np
import pytest
from simulated_runs import effects, planted_runs, true_curve

from winnow.attribution.simulate.additive import fit_additive
from winnow.attribution.simulate.featurised import Features, fit_featurised
from winnow.attribution.simulate.judging import judge
from winnow.attribution.simulate.linear import fit_linear
from winnow.attribution.simulate.runs import read_batches, read_manifest
from winnow.errors import UserError


def test_planted_multiplications_and_additions_are_recovered():
    a, b = effects(3, 10)
    simulator = fit_linear(planted_runs(a, b, runs=12), count=10)
    # Rates of the runs average to one, so that a whole step there is one here.
    found_a = simulator.multiplicative[:, :-1] + simulator.multiplicative[:, -1:]
    found_b = simulator.additive[:, :-1] + simulator.additive[:, -1:]
    np.testing.assert_allclose(found_a, a, atol=2e-3)
    np.testing.assert_allclose(found_b, b, atol=1e-2)
    losses = np.array([5.0, 4.0, 3.5])
    np.testing.assert_allclose(simulator.influence(losses), -(a * losses[:, None] + b), atol=2e-3)


def test_the_curve_of_an_order_never_run_is_predicted():
    a, b = effects(2, 12, seed=1)
    simulator = fit_linear(planted_runs(a, b, runs=12), count=12)
    reading = read_manifest(np.arange(11, -1, -1), np.full(12, 30), context=16, batch_windows=1)
    predicted = simulator.simulate(reading, np.array([6.0, 6.0]))
    np.testing.assert_allclose(predicted, true_curve(reading, a, b), atol=0.02)


def test_losses_that_saturate_are_predicted_by_factors_and_not_by_sums():
    a, b = effects(4, 10, seed=2)
    runs, held = planted_runs(a, b, runs=12, steps=80), planted_runs(a, b, runs=5, steps=80)
    linear = fit_linear(runs, 10)
    additive = fit_additive(runs, -(a * 4.5 + b))
    start = np.full(4, 6.0)
    with_factors = judge([linear.simulate(run.reading, start) for run in held], held)
    with_sums = judge([additive.simulate(run.reading, start) for run in held], held)
    assert with_factors.curve_error < 0.1 * with_sums.curve_error
    assert with_factors.final_rank > 0.9 and with_factors.query_rank > 0.9


def test_a_document_that_no_run_has_read_does_what_documents_do_on_average():
    a, b = effects(2, 10, seed=3)
    fresh = np.concatenate([a, np.zeros((2, 1))], axis=1), np.concatenate([b, np.zeros((2, 1))], axis=1)
    runs = planted_runs(a, b, runs=10)
    simulator = fit_linear(runs, count=11)
    assert fresh[0].shape == (2, 11)
    assert np.abs(simulator.multiplicative[:, 10]).max() < 1e-6 and np.abs(simulator.additive[:, 10]).max() < 1e-5
    assert (simulator.influence(np.full(2, 5.0))[:, 10] > 0).all()


def _embedded(documents, queries, seed=0):
    """Embeddings of five dimensions and effects that are bilinear in them, and a similarity beside."""
    generator = np.random.default_rng(seed)
    e, f = generator.normal(size=(documents, 5)), generator.normal(size=(queries, 5))
    other = generator.random((queries, documents))
    use = 0.04 + 0.006 * (f @ generator.normal(size=(5, 5)) @ e.T) / 5 + 0.02 * other
    return Features.of(e, f, other), -use, 3.0 * use


def test_effects_bilinear_in_embeddings_are_recovered_for_documents_and_queries_never_seen():
    features, a, b = _embedded(60, 24)
    known = Features(features.documents[:40], features.queries[:16], features.similarities[:16, :40])
    simulator = fit_featurised(planted_runs(a[:16, :40], b[:16, :40], runs=10), known, components=5)
    reading = read_batches(list(np.random.default_rng(3).permuted(np.arange(40, 60)).reshape(5, 4)) * 8)
    predicted = simulator.simulate(reading, np.full(24, 6.0), features)
    truth = true_curve(reading, a, b)
    assert np.abs(predicted - truth)[:, 16:].max() < 0.05
    assert truth[0, 0] - truth[-1].mean() > 1.0
    influence = simulator.influence(features, np.full(24, 5.0))
    assert np.corrcoef(influence[16:, 40:].ravel(), -(a * 5.0 + b)[16:, 40:].ravel())[0, 1] > 0.99


def test_the_closed_form_is_the_ridge_solution_over_all_pairs_written_out():
    features, a, b = _embedded(8, 3)
    runs = planted_runs(a, b, runs=3, steps=12)
    simulator = fit_featurised(runs, features, components=5)
    e, f = simulator._reduced(features.documents), simulator._reduced(features.queries)
    rows, targets = [], []
    for run in runs:
        for step in range(run.reading.steps):
            members, weights = run.reading.weights(step)
            for query in range(3):
                level = run.losses[step, query] - simulator.center
                plain = np.concatenate([np.outer(weights / simulator.rate @ e[members], f[query]).ravel()])
                alike = weights / simulator.rate @ features.similarities[query, members]
                rows.append(np.concatenate([level * plain, plain, level * alike, alike]))
                targets.append(run.losses[step + 1, query] - run.losses[step, query])
    design, target = np.array(rows), np.array(targets)
    scale = np.sqrt((design**2).sum(axis=0))
    shrunk = np.full(design.shape[1], simulator.penalty)
    shrunk[[35, 71]] = 1e-9
    gram = (design / scale).T @ (design / scale) + np.diag(shrunk)
    solution = np.linalg.solve(gram, (design / scale).T @ target) / scale
    np.testing.assert_allclose(simulator.bilinear.ravel(), solution[:72], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(simulator.similarity.ravel(), solution[72:], rtol=1e-3, atol=1e-7)


def test_measuring_every_few_steps_is_enough():
    a, b = effects(3, 8, seed=4)
    simulator = fit_linear(planted_runs(a, b, runs=24, every=4), count=8)
    held = planted_runs(a, b, runs=4)
    found = judge([simulator.simulate(run.reading, run.losses[0]) for run in held], held)
    assert found.curve_error < 0.01 and found.final_rank > 0.7


def test_too_few_runs_or_other_queries_are_refused():
    runs = planted_runs(*effects(2, 6), runs=2, steps=5)
    others = planted_runs(*effects(3, 6), runs=2, steps=5)
    with pytest.raises(UserError, match="two at least"):
        fit_linear(runs[:1], 6)
    with pytest.raises(UserError, match="different queries"):
        fit_linear([runs[0], others[0]], 6)
    with pytest.raises(UserError, match="give the same"):
        fit_featurised(runs, Features.of(np.ones((6, 2)), np.ones((3, 2))))
    with pytest.raises(UserError, match="held-out"):
        judge([], [])
