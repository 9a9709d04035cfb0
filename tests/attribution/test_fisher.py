import numpy as np
import pytest
import torch
from attribution_models import build_llama, own_gradients, random_docs

from winnow.attribution.directional import query_gradients
from winnow.attribution.fisher import EmpiricalFisher
from winnow.attribution.gradient_sums import GradientSums
from winnow.errors import UserError

SCOPE = "attention"


def _rows(model, docs, names):
    """Every document's own gradient as a flat float64 row, by site."""
    own = [own_gradients(model, doc) for doc in docs]
    return {name: torch.stack([one[f"{name}.weight"].double().flatten() for one in own]) for name in names}


def _fitted(by_site, monkeypatch=None):
    model, docs = build_llama(), random_docs(7)
    return model, docs, EmpiricalFisher.fit(model, docs, SCOPE, by_site=by_site)


@pytest.mark.parametrize("by_site", [False, True])
@pytest.mark.parametrize("damping", [0.1, 100.0])
def test_scores_equal_those_of_the_dense_inverse(by_site, damping):
    model, docs, fisher = _fitted(by_site)
    queries = query_gradients(model, random_docs(3, seed=9), SCOPE)
    rows = _rows(model, docs, queries)
    blocks = [[name] for name in rows] if by_site else [list(rows)]
    expected = 0.0
    for names in blocks:
        g = torch.cat([rows[name] for name in names], dim=1)
        q = torch.cat([queries[name].double().flatten(1) for name in names], dim=1)
        dense = g.T @ g / len(docs)
        damped = dense + damping * dense.diagonal().mean() * torch.eye(len(dense), dtype=torch.float64)
        expected = expected + (q @ torch.linalg.solve(damped, g.T)).numpy()
    np.testing.assert_allclose(fisher.scores(queries, damping), expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("by_site", [False, True])
def test_the_direction_gives_the_same_scores_as_the_kernel(by_site):
    model, docs, fisher = _fitted(by_site)
    queries = query_gradients(model, random_docs(3, seed=9), SCOPE)
    scores = fisher.scores(queries, 0.1)
    products, _ = GradientSums(model, docs, SCOPE).products(fisher.directions(queries, 0.1))
    np.testing.assert_allclose(sum(products.values()).numpy(), scores, rtol=1e-6, atol=1e-9 * np.abs(scores).max())


def test_the_kernel_does_not_depend_on_how_many_gradients_are_held(monkeypatch):
    _, _, whole = _fitted(False)
    monkeypatch.setattr("winnow.attribution.fisher.HELD_BYTES", 1)
    _, _, one_by_one = _fitted(False)
    torch.testing.assert_close(one_by_one.kernels[""], whole.kernels[""], rtol=1e-12, atol=0.0)


def test_a_document_that_cannot_be_used_changes_no_other_score():
    model, docs, fisher = _fitted(False)
    queries = query_gradients(model, random_docs(2, seed=9), SCOPE)
    with_short = EmpiricalFisher.fit(model, [*docs, np.array([3])], SCOPE)
    assert with_short.usable.tolist() == [True] * 7 + [False]
    np.testing.assert_allclose(with_short.scores(queries, 0.1)[:, :7], fisher.scores(queries, 0.1), rtol=1e-9)
    with pytest.raises(UserError, match="none of the 1 documents"):
        EmpiricalFisher.fit(model, [np.array([3])], SCOPE)


def test_weighted_sums_equal_explicit_sums():
    model, docs = build_llama(), random_docs(5)
    gradients = query_gradients(model, docs, "mlp")
    weights = {name: torch.randn(2, 5, dtype=torch.float64) for name in gradients}
    sums = GradientSums(model, docs, "mlp").weighted_sums(weights)
    for name, value in gradients.items():
        expected = torch.einsum("qn,noi->qoi", weights[name], value.double())
        torch.testing.assert_close(sums[name], expected, rtol=1e-9, atol=1e-12)
