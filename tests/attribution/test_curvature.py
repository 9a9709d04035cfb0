import numpy as np
import pytest
import torch
from attribution_models import build_llama, own_gradients, random_docs

from winnow.attribution.capture import capturing
from winnow.attribution.curvature import Curvature, LayerCurvature, fit_curvature
from winnow.errors import UserError


def _orthogonal(size, seed):
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size))[0]


def test_the_inverse_product_equals_a_dense_solve_in_the_kronecker_eigenbasis():
    torch.manual_seed(0)
    q_s, q_a, eigenvalues, direction = _orthogonal(4, 1), _orthogonal(3, 2), torch.rand(4, 3), torch.randn(4, 3)
    basis = torch.kron(q_s.double(), q_a.double())  # row-major vec: vec(Q_S X Q_A^T) = (Q_S (x) Q_A) vec(X)
    dense = basis @ torch.diag(eigenvalues.double().flatten()) @ basis.T
    damped = dense + 0.1 * float(eigenvalues.double().mean()) * torch.eye(12, dtype=torch.float64)
    expected = torch.linalg.solve(damped, direction.double().flatten()).view(4, 3)
    found = LayerCurvature(q_a, q_s, eigenvalues).inverse_product(direction, 0.1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_where_gradients_are_a_kronecker_design_ekfac_is_the_exact_empirical_inverse():
    # G_n = s_o a_i e_o e_i^T over all (o, i): E[vec G vec G^T] is diagonal and equals S (x) A exactly.
    s, a = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.5])
    gradients = [torch.outer(s * torch.eye(3)[o], a * torch.eye(2)[i]) for o in range(3) for i in range(2)]
    exact = torch.stack([torch.outer(g.flatten(), g.flatten()) for g in gradients]).mean(dim=0)
    eigenvalues = torch.stack([g.square() for g in gradients]).mean(dim=0)
    torch.testing.assert_close(torch.kron(torch.diag(s**2 / 3), torch.diag(a**2 / 2)), exact)
    direction = torch.arange(6.0).view(3, 2)
    found = LayerCurvature(torch.eye(2), torch.eye(3), eigenvalues).inverse_product(direction, 1e-9)
    expected = torch.linalg.solve(exact.double(), direction.double().flatten()).view(3, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fitted_factors_equal_their_definitions_on_per_document_gradients(llama):
    docs = random_docs(6)
    with capturing(llama, "mlp") as capture:
        curvature = fit_curvature(capture, docs, 64, labels="text")
    name = "model.layers.0.mlp.gate_proj"
    layer = curvature.layers[name]
    own = torch.stack([own_gradients(llama, doc)[f"{name}.weight"] for doc in docs])
    expected = (layer.q_s.T @ own @ layer.q_a).square().mean(dim=0)
    torch.testing.assert_close(layer.eigenvalues, expected, rtol=1e-3, atol=1e-9)
    inputs = []
    handle = llama.get_submodule(name).register_forward_hook(lambda module, given, output: inputs.append(given[0][0]))
    for doc in docs:
        llama(input_ids=torch.from_numpy(doc[:-1])[None])
    handle.remove()
    stacked = torch.cat(inputs).detach().double()
    rotated = layer.q_a.double().T @ (stacked.T @ stacked / len(stacked)) @ layer.q_a.double()
    off_diagonal = rotated - torch.diag(rotated.diagonal())
    assert float(off_diagonal.abs().max()) < 1e-4 * float(rotated.diagonal().max())


def test_the_order_of_the_documents_changes_no_bit_and_the_seed_does(llama):
    docs = random_docs(12)
    with capturing(llama, "attention") as capture:
        first = fit_curvature(capture, docs, 64, seed=1)
        turned = fit_curvature(capture, docs[::-1], 64, seed=1)
        other = fit_curvature(capture, docs, 64, seed=2)
    for name, layer in first.layers.items():
        assert torch.equal(layer.eigenvalues, turned.layers[name].eigenvalues)
        assert torch.equal(layer.q_s, turned.layers[name].q_s)
        assert not torch.equal(layer.eigenvalues, other.layers[name].eigenvalues)


def test_saving_and_loading_gives_the_same_factors_and_bytes(llama, tmp_path):
    with capturing(llama, "head") as capture:
        curvature = fit_curvature(capture, [*random_docs(5), np.array([3])], 64)
    curvature.save(tmp_path / "a.safetensors")
    loaded = Curvature.load(tmp_path / "a.safetensors")
    loaded.save(tmp_path / "b.safetensors")
    assert (loaded.documents, loaded.excluded, loaded.labels) == (5, 1, "sampled")
    assert torch.equal(loaded.layers["lm_head"].q_s, curvature.layers["lm_head"].q_s)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    (tmp_path / "c").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not a curvature file"):
        Curvature.load(tmp_path / "c")


def test_without_a_usable_document_there_is_no_curvature(llama):
    with capturing(llama, "head") as capture, pytest.raises(UserError, match="none of the 1 curvature documents"):
        fit_curvature(capture, [np.array([3])], 64)


def test_a_layer_without_curvature_gives_zero_and_not_infinity():
    layer = LayerCurvature(torch.eye(2), torch.eye(3), torch.zeros(3, 2))
    assert not layer.inverse_product(torch.ones(3, 2), 0.1).any()


def test_a_document_without_finite_values_is_left_out_of_both_passes():
    model = build_llama()
    docs = [np.where(doc == 5, 6, doc) for doc in random_docs(6, low=33, high=34)]
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = torch.nan
    with capturing(model, "mlp") as capture:
        expected = fit_curvature(capture, docs, 64)
        found = fit_curvature(capture, [*docs, np.full(33, 5)], 64)
    assert (found.documents, found.excluded, found.positions) == (6, 1, expected.positions)
    for name, layer in found.layers.items():
        torch.testing.assert_close(layer.a_values, expected.layers[name].a_values, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(layer.eigenvalues.sum(), expected.layers[name].eigenvalues.sum(), rtol=1e-4, atol=0)
