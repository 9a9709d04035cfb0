import dataclasses

import numpy as np
import pytest
import torch
from attribution_models import build_llama, mean_loss, own_gradients, random_docs

from winnow.attribution.capture import capturing
from winnow.attribution.curvature import fit_curvature
from winnow.attribution.estimators import make_estimator
from winnow.attribution.kronecker import LayerCurvature
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.attribution.self_influence import self_influence
from winnow.errors import UserError

SCOPE = "attention"
DOCS = random_docs(8)
QUERIES = Queries(random_docs(3, seed=9))


def _run(*seeds, **facts):
    checkpoints = tuple(RunCheckpoint(str(seed), lambda seed=seed: build_llama(seed), **facts) for seed in seeds)
    return TrainingRun(DOCS, checkpoints)


def _own(model, docs, names):
    own = [own_gradients(model, doc) for doc in docs]
    return {name: torch.stack([one[f"{name}.weight"].double() for one in own]) for name in names}


def _sites(model, scope=SCOPE):
    with capturing(model, scope) as capture:
        return capture.sites


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


def test_datainf_equals_its_formula_by_explicit_sums():
    model = build_llama()
    sites = _sites(model)
    docs, queries = _own(model, DOCS, sites), _own(model, QUERIES.tokens, sites)
    expected = np.zeros((3, 8))
    for name in sites:
        g, v = docs[name].flatten(1), queries[name].flatten(1)
        floor = 0.1 * float(g.square().mean())
        for q in range(3):
            r = torch.zeros_like(g[0])
            for n in range(8):
                r += (v[q] - (v[q] @ g[n]) / (floor + g[n] @ g[n]) * g[n]) / (8 * floor)
            expected[q] += (g @ r).numpy()
    _close(make_estimator("datainf").fit(_run(0), Settings(SCOPE)).score(QUERIES), expected)


def test_datainf_of_one_document_is_the_exact_inverse_of_its_fisher():
    run = dataclasses.replace(_run(0), documents=DOCS[:1])
    datainf = make_estimator("datainf").fit(run, Settings(SCOPE)).score(QUERIES)
    fisher = make_estimator("fisher").fit(run, Settings(SCOPE, options={"by_site": 1})).score(QUERIES)
    _close(datainf, fisher)


def test_grad_cos_is_the_cosine_over_all_sites():
    model = build_llama()
    sites = _sites(model, "blocks")
    docs, queries = (
        torch.cat([value.flatten(1) for value in _own(model, asked, sites).values()], dim=1)
        for asked in (DOCS, QUERIES.tokens)
    )
    expected = torch.nn.functional.cosine_similarity(queries[:, None], docs[None], dim=2).numpy()
    _close(make_estimator("grad_cos").fit(_run(0), Settings()).score(QUERIES), expected)


def test_tracin_sums_the_products_of_checkpoints_by_learning_rate_and_steps():
    run = TrainingRun(
        DOCS,
        (
            RunCheckpoint("a", lambda: build_llama(0), 0.1, 5),
            RunCheckpoint("b", lambda: build_llama(1), 0.01, 7),
        ),
    )
    expected = sum(
        weight * make_estimator("grad_dot").fit(_run(seed), Settings()).score(QUERIES)
        for seed, weight in ((0, 0.1 * 5), (1, 0.01 * 7))
    )
    _close(make_estimator("tracin").fit(run, Settings()).score(QUERIES), expected)


def test_quad_corrected_is_the_cosine_with_the_inverse_curvature_product_and_projecting_to_all_changes_nothing():
    model, run = build_llama(), _run(0)
    sites = _sites(model)
    with capturing(model, SCOPE) as capture:
        curvature = fit_curvature(capture, DOCS, 64)
    docs, queries = _own(model, DOCS, sites), _own(model, QUERIES.tokens, sites)
    rows = torch.cat([docs[name].flatten(1) for name in sites], dim=1)
    asked = [curvature.layers[name].inverse_product(queries[name], 0.1).flatten(1) for name in sites]
    expected = torch.nn.functional.cosine_similarity(torch.cat(asked, dim=1)[:, None], rows[None], dim=2).numpy()
    estimator = make_estimator("quad_corrected")
    _close(estimator.fit(run, Settings(SCOPE)).score(QUERIES), expected)
    _close(estimator.fit(run, Settings(SCOPE, projection=16)).score(QUERIES), expected)
    projected = estimator.fit(run, Settings(SCOPE, projection=8)).score(QUERIES)
    assert np.abs(projected).max() <= 1.0 and not np.allclose(projected, expected, rtol=1e-3)


def test_kfac_divides_by_the_product_of_the_factors_eigenvalues():
    torch.manual_seed(0)
    q_s, q_a = (torch.linalg.qr(torch.randn(size, size))[0] for size in (4, 3))
    s_values, a_values = torch.rand(4) + 0.1, torch.rand(3) + 0.1
    layer = LayerCurvature(q_a, q_s, torch.rand(4, 3), a_values, s_values)
    s, a = (q.double() @ torch.diag(v.double()) @ q.double().T for q, v in ((q_s, s_values), (q_a, a_values)))
    direction = torch.randn(4, 3, dtype=torch.float64)
    dense = torch.kron(s, a)
    damped = dense + 0.1 * dense.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    expected = torch.linalg.solve(damped, direction.flatten()).view(4, 3)
    torch.testing.assert_close(layer.inverse_product(direction, 0.1, kfac=True), expected, rtol=1e-5, atol=1e-6)


def test_a_ridge_regressions_influence_is_the_exact_slope_of_leaving_one_out():
    # y = w x with squared loss: A = E[x x^T] and S = 1, so K-FAC with damping ridge is the exact Hessian.
    generator = np.random.default_rng(0)
    x, y, ridge = generator.normal(size=(20, 4)), generator.normal(size=20), 0.3
    x_q, y_q = generator.normal(size=4), 0.7

    def fitted(weights):
        return np.linalg.solve((x * weights[:, None]).T @ x / 20 + ridge * np.eye(4), (x * weights[:, None]).T @ y / 20)

    def query_loss(w):
        return 0.5 * (x_q @ w - y_q) ** 2

    w = fitted(np.ones(20))
    values, q_a = np.linalg.eigh(x.T @ x / 20)
    as_tensor = torch.from_numpy
    layer = LayerCurvature(as_tensor(q_a), None, as_tensor(values[None]), as_tensor(values), torch.ones(1))
    query = as_tensor((x_q @ w - y_q) * x_q)[None]
    direction = layer.inverse_product(query, ridge / values.mean(), kfac=True)[0].numpy()
    influence = ((x @ w - y)[:, None] * x) @ direction
    slopes = []
    for index in range(20):
        losses = []
        for weight in (1.0 - 1e-4, 1.0 + 1e-4):
            weights = np.ones(20)
            weights[index] = weight
            losses.append(query_loss(fitted(weights)))
        slopes.append((losses[0] - losses[1]) / 2e-4 * 20)  # positive = the document lowers the query's loss
    np.testing.assert_allclose(influence, slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("scope", ["all", "embeddings+head", "norms", "attention+bias"])
def test_the_eigenvalues_of_every_kind_of_site_are_its_own_gradients_second_moments_along_its_bases(scope):
    model = build_llama(tied=scope == "embeddings+head")
    with capturing(model, scope) as capture:
        curvature = fit_curvature(capture, DOCS, 64, labels="text")
        sites = capture.sites
    parameters = {name: value.shape for name, value in model.named_parameters()}
    total = {name: torch.zeros(site.shape, dtype=torch.float64) for name, site in sites.items()}
    for doc in DOCS:
        own = own_gradients(model, doc)
        tensors = {name: own.get(name, torch.zeros(shape)).double() for name, shape in parameters.items()}
        for name, site in sites.items():
            total[name] += curvature.layers[name].rotate(site.matrix(tensors)).square() / len(DOCS)
    for name, layer in curvature.layers.items():
        torch.testing.assert_close(layer.eigenvalues.double(), total[name], rtol=2e-3, atol=1e-9)
        if sites[name].kind in ("embedding", "tied", "norm"):
            assert float(layer.kfac_eigenvalues().sum()) == pytest.approx(float(layer.eigenvalues.sum()), rel=1e-3)


def test_kfac_of_a_layer_is_the_dense_inverse_of_its_own_factors_on_documents_of_unequal_lengths():
    model, name, docs = build_llama(), "model.layers.0.mlp.gate_proj", random_docs(6, low=3, high=60)
    kept = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, given, output: kept.append((given[0][0].detach().double(), output))
    )
    a, s, positions = 0.0, 0.0, 0
    for doc in docs:
        loss = mean_loss(model, doc)
        inputs, output = kept.pop()
        count = len(doc) - 1
        slopes = torch.autograd.grad(loss, output)[0][0].double() * count  # of the summed loss
        a, s, positions = a + inputs.T @ inputs, s + slopes.T @ slopes, positions + count
    handle.remove()
    dense = torch.kron(s / positions, a / positions) / (positions / len(docs))
    damped = dense + 0.1 * dense.diagonal().mean() * torch.eye(len(dense), dtype=torch.float64)
    direction = torch.randn(24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with capturing(model, "mlp") as capture:
        layer = fit_curvature(capture, docs, 64, labels="text").layers[name]
    found = layer.inverse_product(direction, 0.1, kfac=True)
    expected = torch.linalg.solve(damped, direction.flatten()).view(24, 16)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["ekfac", "kfac"])
def test_without_damping_directions_of_no_curvature_give_nothing(name):
    run = dataclasses.replace(_run(0), documents=DOCS[:2])
    scores = make_estimator(name).fit(run, Settings("embeddings", damping=0.0)).score(QUERIES)
    assert np.isfinite(scores).all() and scores.any()
    layer = LayerCurvature(None, None, torch.tensor([[0.0, 2.0]]), torch.tensor([0.0, 2.0]), torch.ones(1))
    inverse = layer.inverse_eigenvalues(0.0, kfac=name == "kfac")
    assert inverse.tolist() == [[0.0, 0.5]]


def test_a_gain_has_its_exact_fisher():
    model = build_llama()
    with capturing(model, "norms") as capture:
        curvature = fit_curvature(capture, DOCS, 64, labels="text")
    name = "model.norm"
    own = torch.stack([own_gradients(model, doc)[f"{name}.weight"].double() for doc in DOCS])
    dense = own.T @ own / len(DOCS)
    damped = dense + 0.1 * dense.diagonal().mean() * torch.eye(16, dtype=torch.float64)
    expected = torch.linalg.solve(damped, own[0])
    found = curvature.layers[name].inverse_product(own[:1, None], 0.1)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_self_influence_is_the_squared_norm_or_its_curvature_form():
    model = build_llama()
    sites = _sites(model)
    docs = _own(model, DOCS, sites)
    with capturing(model, SCOPE) as capture:
        curvature = fit_curvature(capture, DOCS, 64)
    short = [*DOCS, np.array([3])]
    _close(self_influence(model, short, SCOPE)[:8], sum(g.square().sum(dim=(1, 2)) for g in docs.values()).numpy())
    layers = curvature.layers
    expected = sum((layers[name].inverse_product(g, 0.1) * g).sum(dim=(1, 2)) for name, g in docs.items()).numpy()
    found = self_influence(model, short, SCOPE, curvature=curvature, damping=0.1)
    _close(found[:8], expected)
    assert np.isnan(found[8])
    rows = make_estimator("self_influence_ekfac").fit(_run(0), Settings(SCOPE)).score(QUERIES)
    assert np.array_equal(rows, np.tile(found[:8], (3, 1)))
    with pytest.raises(UserError, match="the curvature has no layer"):
        self_influence(model, DOCS, "mlp", curvature=curvature)


def test_another_damping_without_fitting_anew_gives_the_same_scores():
    run = _run(0)
    for name in ("ekfac", "quad_corrected", "fisher", "datainf", "logra", "trak"):
        fitted = make_estimator(name).fit(run, Settings(SCOPE, damping=0.1))
        anew = make_estimator(name).fit(run, Settings(SCOPE, damping=2.0)).score(QUERIES)
        changed = fitted.damped(2.0).score(QUERIES)
        assert np.array_equal(changed, anew) and not np.array_equal(fitted.score(QUERIES), anew), name


def test_a_fisher_of_a_sample_scores_every_document():
    run = _run(0)
    whole = make_estimator("fisher").fit(run, Settings(SCOPE, damping=1.0))
    sampled = make_estimator("fisher").fit(run, Settings(SCOPE, damping=1.0, options={"sample": 5})).score(QUERIES)
    assert sampled.shape == (3, 8) and np.isfinite(sampled).all()
    assert not np.allclose(sampled, whole.score(QUERIES))
    with pytest.raises(UserError, match="positive"):
        make_estimator("fisher").fit(run, Settings(SCOPE, damping=0.0))


def test_the_empirical_fisher_is_an_option_of_its_methods():
    run = _run(0)
    model = build_llama()
    with capturing(model, SCOPE) as capture:
        curvature = fit_curvature(capture, DOCS, 64, labels="text")
    expected = self_influence(model, DOCS, SCOPE, curvature=curvature)
    found = make_estimator("self_influence_ekfac").fit(run, Settings(SCOPE, options={"empirical": 1})).score(QUERIES)
    assert np.array_equal(found[0], expected)
    fitted = make_estimator("ekfac").fit(run, Settings(SCOPE, options={"empirical": 1}))
    assert fitted.context.curvature.labels == "text"
