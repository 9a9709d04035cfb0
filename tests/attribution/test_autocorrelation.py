import numpy as np
import pytest
import torch

from winnow.attribution.autocorrelation import Factor, autocorrelations, load_spectra, powered, save_spectra
from winnow.attribution.projected import ProjectedGradients
from winnow.attribution.projection import Layout
from winnow.errors import UserError


def _rows(count, unusable=()):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 5 + 30, generator=generator)
    values[list(unusable)] = 0.0
    reasons = tuple("broken" if row in unusable else None for row in range(count))
    return ProjectedGradients(Layout({"a": (5, 1), "b": (6, 5)}), values, np.zeros(count), reasons, np.ones(count))


@pytest.mark.parametrize("count", [12, 400])
@pytest.mark.parametrize("exponent", [-1.0, -0.5])
def test_powers_equal_an_explicit_inverse_however_many_rows_there_are(count, exponent):
    rows = _rows(count, unusable=(3, 4))
    blocks = rows.layout.blocks
    found = autocorrelations(rows, blocks)
    assert isinstance(found["b"].held, Factor) == (count < 30) and isinstance(found["a"].held, torch.Tensor)
    spectra = {name: one.spectrum() for name, one in found.items()}
    asked = torch.randn(4, 35, generator=torch.Generator().manual_seed(1))
    got = powered(asked, spectra, blocks, exponent, 0.3)
    for name, columns in blocks.items():
        values = rows.values[:, columns].double().numpy()
        matrix = values.T @ values / (count - 2)
        eigenvalues, vectors = np.linalg.eigh(matrix + 0.3 * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))
        wanted = asked[:, columns].double().numpy() @ (vectors * eigenvalues**exponent) @ vectors.T
        np.testing.assert_allclose(got[:, columns].numpy(), wanted, rtol=1e-4, atol=1e-5)
        form = spectra[name].form(asked[:, columns], exponent, 0.3).numpy()
        np.testing.assert_allclose(form, (wanted * asked[:, columns].double().numpy()).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("counts", [(4, 6), (4, 50), (50, 60)])
def test_a_mixture_is_the_weighted_sum_of_both(counts):
    one, other = (autocorrelations(_rows(count), {"b": slice(5, 35)})["b"] for count in counts)
    wanted = 0.3 * one.matrix() + 0.7 * other.matrix()
    mixed = one.mixed(other, 0.3)
    torch.testing.assert_close(mixed.matrix(), wanted, rtol=1e-5, atol=1e-6)
    asked = torch.randn(3, 30, dtype=torch.float64)
    torch.testing.assert_close(mixed.spectrum().power(asked, 1.0, 0.0), asked @ wanted, rtol=1e-4, atol=1e-4)


def test_without_damping_it_is_the_pseudo_inverse_and_without_gradients_it_is_zero():
    rows = _rows(12)
    spectrum = autocorrelations(rows, {"b": slice(5, 35)})["b"].spectrum()
    values = rows.values[:, 5:].double()
    asked = torch.randn(3, 30, dtype=torch.float64)
    wanted = asked @ torch.linalg.pinv(values.T @ values / 12, hermitian=True)
    torch.testing.assert_close(spectrum.power(asked, -1.0, 0.0), wanted, rtol=1e-4, atol=1e-5)
    empty = ProjectedGradients(Layout({"a": (2, 2)}), torch.zeros(3, 4), np.zeros(3), (None,) * 3, np.ones(3))
    nothing = autocorrelations(empty, {"a": slice(0, 4)})["a"].spectrum()
    assert not nothing.power(torch.ones(2, 4), -0.5, 0.1).any() and not nothing.form(torch.ones(2, 4), -1.0, 0.1).any()


def test_spectra_that_stand_alone_are_kept_and_read_to_the_bit(tmp_path):
    few, many = (_rows(count) for count in (12, 400))
    path = tmp_path / "spectra.safetensors"
    save_spectra({name: one.spectrum() for name, one in autocorrelations(few, few.layout.blocks).items()}, path)
    assert not path.exists()  # one leans on its rows
    spectra = {name: one.spectrum() for name, one in autocorrelations(many, many.layout.blocks).items()}
    save_spectra(spectra, path)
    read, asked = load_spectra(path), torch.ones(2, 35)
    assert [item.name for item in tmp_path.iterdir()] == [path.name] and set(read) == set(spectra)
    blocks = many.layout.blocks
    assert torch.equal(powered(asked, read, blocks, -1.0, 0.1), powered(asked, spectra, blocks, -1.0, 0.1))
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="delete this file"):
        load_spectra(path)
