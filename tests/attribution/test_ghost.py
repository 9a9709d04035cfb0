import numpy as np
import pytest
import torch
from attribution_models import build_gpt2, build_llama, build_neox, random_docs

from winnow.attribution import ghost
from winnow.attribution.batching import batches, packed_batches
from winnow.attribution.capture import capturing
from winnow.attribution.ghost import LinearGradients

BUILDERS = {"tied llama": lambda: build_llama(tied=True), "gpt2": build_gpt2, "neox": build_neox}


def _sites(model, docs, cut=batches):
    with capturing(model, "all") as capture:
        [batch] = cut(docs, 64, batch_tokens=2048)
        return capture.run(batch).sites


@pytest.fixture(params=BUILDERS)
def two_batches(request):
    """Two batches of another length, as gradients by site; the second packed."""
    model = BUILDERS[request.param]()
    one = _sites(model, random_docs(5, low=10, high=30))
    other = _sites(model, random_docs(4, seed=1, low=12, high=20), packed_batches)
    return [(one[name], other[name]) for name in one]


def _close(found, expected):
    scale = float(expected.abs().max())
    assert found.dtype == torch.float64 or found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("buffer", [1 << 24, 300])
def test_products_without_gradients_equal_products_of_formed_gradients(two_batches, buffer, monkeypatch):
    monkeypatch.setattr(ghost, "BUFFER", buffer)
    generator = torch.Generator().manual_seed(0)
    for one, other in two_batches:
        left, right = one.per_example().double(), other.per_example().double()
        height, width = one.site.shape
        directions = torch.randn(3, height, width, generator=generator)
        rows, columns = torch.randn(4, height, generator=generator), torch.randn(2, width, generator=generator)
        _close(one.norms(), left.square().sum(dim=(1, 2)))
        _close(one.total(), left.sum(dim=0))
        _close(one.dots(other), torch.einsum("boi,coi->bc", left, right))
        _close(one.dots(one), torch.einsum("boi,coi->bc", left, left))
        for count in (1, 3):
            _close(one.along(directions[:count]), torch.einsum("boi,qoi->bq", left, directions[:count].double()))
        _close(one.project(rows, columns), rows.double() @ left @ columns.double().T)


def test_both_forms_of_norms_and_dots_of_a_linear_layer_agree(two_batches):
    for one, other in two_batches:
        if isinstance(one, LinearGradients):
            assert isinstance(other, LinearGradients)
            _close(ghost.ghost_dots(one, other), super(LinearGradients, one).dots(other))
            _close(ghost.ghost_norms(one), super(LinearGradients, one).norms())


def test_a_wide_embedding_is_gathered_and_a_narrow_one_formed_to_the_same_products(two_batches):
    lookups = [one for one, _ in two_batches if one.site.kind == "embedding"]
    for one in lookups:
        directions = torch.randn(3, *one.site.shape, generator=torch.Generator().manual_seed(0))
        assert one.site.shape[0] <= one.tokens.numel()  # so that along() formed it
        few = type(one)(one.site, one.tokens[:1], one.gradients[:1])
        assert one.site.shape[0] > few.tokens.numel()
        torch.testing.assert_close(few.along(directions), one.along(directions)[:1], rtol=1e-5, atol=1e-7)


def test_products_of_mixed_precision_stay_within_its_rounding(llama):
    docs = random_docs(6)
    with capturing(llama, "all", dtype="bfloat16") as capture:
        batch = next(batches(docs, 64))
        sites = capture.run(batch).sites
    for gradients in sites.values():
        directions = torch.randn(8, *gradients.site.shape, generator=torch.Generator().manual_seed(0))
        exact = gradients.along(directions)
        rounded = gradients.along(directions.bfloat16())
        assert rounded.dtype == torch.float64
        assert float((rounded - exact).norm()) <= 2**-7 * float(exact.norm()) + 1e-12


def test_rows_left_out_are_zero_and_broken_rows_are_found(two_batches):
    for one, _ in two_batches:
        keep = torch.tensor([True, False, True, True, False] + [True] * (len(one) - 5))
        kept = one.kept(keep)
        values, before = kept.per_example(), one.per_example()
        assert not values[~keep].any() and torch.equal(values[keep], before[keep])
        assert bool(one.finite().all())
    broken = np.array([False] * 5)
    broken[2] = True
    linear = next(one for one, _ in two_batches if isinstance(one, LinearGradients))
    gradients = linear.gradients.clone()
    gradients[2, 0, 0] = float("inf")
    found = type(linear)(linear.site, linear.inputs, gradients).finite()[:5]
    assert np.array_equal(~found.numpy(), broken)
