from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attribution_models import build_llama, random_docs

from winnow.attribution import directional
from winnow.attribution.adamw import AdamW
from winnow.attribution.capture import capturing
from winnow.attribution.curvature import fit_curvature
from winnow.attribution.directional import query_gradients, score_along
from winnow.attribution.estimators import make_estimator
from winnow.attribution.estimators.source import FittedSource, Segment, segment_factors
from winnow.attribution.kronecker import Curvature, LayerCurvature
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.errors import UserError

SCOPE = "attention"
DOCS = random_docs(8)
QUERIES = Queries(random_docs(2, seed=9))


def _run(rate, optimizer=None):
    return TrainingRun(
        DOCS, tuple(RunCheckpoint(str(s), lambda s=s: build_llama(s), rate, 10, optimizer) for s in (0, 1))
    )


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_segment_factors_have_their_limits():
    curvature = torch.tensor([0.0, 1e-12, 1.0, 4.0], dtype=torch.float64)
    inner, outer = segment_factors(curvature, 1e-9)
    torch.testing.assert_close(inner, torch.full((4,), 1e-9, dtype=torch.float64), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(outer, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0.0)
    inner, outer = segment_factors(curvature, 1e9)
    torch.testing.assert_close(inner[2:], 1.0 / curvature[2:])
    assert float(inner[0]) == 1e9 and not outer[2:].any()


def test_small_steps_give_the_sum_of_tracin():
    rate = 1e-9
    found = make_estimator("source").fit(_run(rate), Settings(SCOPE, options={"segments": 2})).score(QUERIES)
    gradients = query_gradients(build_llama(1), QUERIES.tokens, SCOPE)
    expected = sum(rate * 10 * score_along(build_llama(s), DOCS, gradients, SCOPE).influence for s in (0, 1)) / 8
    _close(found, expected)


def test_large_steps_leave_the_inverse_curvature_product_of_the_last_segment():
    found = make_estimator("source").fit(_run(1e30), Settings(SCOPE, options={"segments": 2})).score(QUERIES)
    model = build_llama(1)
    with capturing(model, SCOPE) as capture:
        curvature = fit_curvature(capture, DOCS, 64)
    positions = curvature.positions / curvature.documents
    directions = query_gradients(model, QUERIES.tokens, SCOPE)
    for name, layer in curvature.layers.items():
        directions[name] = (layer.inverse_product(directions[name], 0.0) / positions).float()
    _close(found, score_along(model, DOCS, directions, SCOPE).influence / 8)


def test_one_segment_averages_its_checkpoints_gradients():
    rate = 1e-9
    found = make_estimator("source").fit(_run(rate), Settings(SCOPE, options={"segments": 1})).score(QUERIES)
    gradients = query_gradients(build_llama(1), QUERIES.tokens, SCOPE)
    mean = np.mean([score_along(build_llama(s), DOCS, gradients, SCOPE).influence for s in (0, 1)], axis=0)
    _close(found, rate * 20 * mean / 8)


def test_adams_second_moments_scale_the_rate_unless_asked_not_to():
    model = build_llama()
    state = {
        name: {"exp_avg_sq": torch.full_like(value, 0.25), "step": 1000} for name, value in model.named_parameters()
    }
    run = _run(1e-9, state)
    plain = make_estimator("source").fit(run, Settings(SCOPE, options={"sgd": 1, "momentum": 0.5})).score(QUERIES)
    scaled = make_estimator("source").fit(run, Settings(SCOPE)).score(QUERIES)
    _close(scaled, plain)  # 1 / sqrt(0.25) = 1 / (1 - 0.5)
    young = {name: entry | {"step": 1} for name, entry in state.items()}
    recorded = [replace(one, optimizer=young, adamw=AdamW(1e-9, (0.9, 0.75))) for one in run.checkpoints]
    found = make_estimator("source").fit(replace(run, checkpoints=tuple(recorded)), Settings(SCOPE)).score(QUERIES)
    _close(2.0 * found, plain)  # the bias corrected: sqrt(0.25 / (1 - 0.75)) = 1


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(UserError, match="momentum"):
        make_estimator("source").fit(_run(0.1), Settings(SCOPE, options={"momentum": 1.0}))
    with pytest.raises(UserError, match="segments"):
        make_estimator("source").fit(_run(0.1), Settings(SCOPE, options={"segments": 0}))


def test_two_segments_equal_an_explicitly_unrolled_descent_on_a_quadratic(monkeypatch):
    # Segment l descends w^T H_l w / 2 + sum_i m_i <b_il, w> / N; the slope in m_i of -<q, w> at the end is the score.
    generator = torch.Generator().manual_seed(0)
    count, rate, steps = 4, 1e-3, (700, 1100)
    query = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    gradients = torch.randn(3, count, 6, generator=generator, dtype=torch.float64)  # by checkpoint
    sides = [
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for n in (2, 3) for _ in "ab"
    ]
    values = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64) * 3.0  # e K s is 0 to 3.3
    values[0, 0, 0] = 0.0
    weights = torch.ones(count, dtype=torch.float64, requires_grad=True)
    w, of_segment = torch.ones(6, dtype=torch.float64), ((0, 1), (2,))
    for part in (0, 1):
        basis = torch.kron(sides[part], sides[2 + part])
        hessian = basis @ torch.diag(values[part].flatten()) @ basis.T
        push = weights @ gradients[list(of_segment[part])].mean(dim=0) / count
        for _ in range(steps[part]):
            w = w - rate * (hessian @ w + push)
    expected = np.stack([-torch.autograd.grad(q @ w, weights, retain_graph=True)[0].numpy() for q in query])

    def products(model, documents, directions, scope):
        return SimpleNamespace(influence=(directions["layer"].double().flatten(1) @ gradients[model].T).numpy())

    monkeypatch.setattr(directional, "query_gradients", lambda *given: {"layer": query.view(2, 2, 3).float()})
    monkeypatch.setattr(directional, "score_along", products)
    checkpoints = [RunCheckpoint(str(place), lambda place=place: place, rate) for place in range(3)]
    segments = []
    for part in (0, 1):
        # Four positions a document: the curvature measured is a quarter of the mean loss's.
        layer = LayerCurvature(sides[2 + part].float(), sides[part].float(), (values[part] / 4.0).float())
        curvature = Curvature({"layer": layer}, 2, 0, "sampled", 0, positions=8)
        members = tuple(checkpoints[place] for place in of_segment[part])
        segments.append(Segment(members, curvature, {"layer": rate * steps[part]}))
    fitted = FittedSource(TrainingRun([DOCS[0]] * count, tuple(checkpoints)), "blocks", tuple(segments))
    found = fitted.score(QUERIES)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3 * np.abs(expected).max())
