import dataclasses

import numpy as np
import pytest
import torch
from attribution_models import build_llama, own_gradients, random_docs
from transformers import GPT2Config, GPT2LMHeadModel

from winnow.attribution.projected import Making, projected_gradients, store_gradients
from winnow.attribution.projection import Layout, Projection
from winnow.attribution.sites import find_sites
from winnow.errors import UserError


def _own_matrices(model, doc, scope):
    gradients = own_gradients(model, doc)
    return {name: site.matrix(gradients) for name, site in find_sites(model, scope).items()}


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (3, 40), (1, 9)])
def test_the_projected_dot_product_is_unbiased_for_unequal_shapes(shape):
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=shape), generator.normal(size=shape) + 0.5
    dots = []
    for seed in range(3000):
        projection = Projection(4, seed)
        first, second = projection.matrix("site", "left", shape[0]), projection.matrix("site", "right", shape[1])
        dots.append(float(((first @ left @ second.T) * (first @ right @ second.T)).sum()))
    truth = float((left * right).sum())
    assert abs(np.mean(dots) - truth) < 4 * np.std(dots) / np.sqrt(len(dots))
    assert np.std(dots) > 0.1


def test_a_side_that_fits_is_not_projected_and_shapes_say_so():
    projection = Projection(8, 1)
    assert np.array_equal(projection.matrix("a", "left", 8), np.eye(8))
    assert np.array_equal(projection.matrix("a", "right", 3), np.eye(3))
    assert projection.shape((100, 3)) == (8, 3) and Projection(0).shape((100, 3)) == (100, 3)
    matrix = projection.matrix("a", "left", 50)
    assert set(np.unique(matrix).tolist()) == {np.float32(-1 / np.sqrt(8)), np.float32(1 / np.sqrt(8))}
    np.testing.assert_allclose((matrix**2).sum(axis=0), 1.0, rtol=1e-6)


def test_matrices_depend_on_seed_name_and_side_only():
    one = Projection(4, 1).matrix("a", "left", 32)
    assert np.array_equal(one, Projection(4, 1).matrix("a", "left", 32))
    for other in (
        Projection(4, 2).matrix("a", "left", 32),
        Projection(4, 1).matrix("b", "left", 32),
        Projection(4, 1).matrix("a", "right", 32),
    ):
        assert not np.array_equal(one, other)
    # Stored gradients of earlier runs stay readable only while these bits stay.
    assert "".join("+" if value > 0 else "-" for value in one[0]) == "--+--++++++--+--++-++-+-++++++++"


def test_layout_lays_the_sites_end_to_end():
    layout = Layout({"a": (2, 3), "b": (1, 4)})
    assert layout.width == 10
    assert layout.blocks == {"a": slice(0, 6), "b": slice(6, 10)}


def test_a_negative_projection_is_a_mistake():
    with pytest.raises(UserError, match="projection -1"):
        Projection(-1)


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
def test_rows_are_the_projected_gradients_of_each_document_for_all_parameters(family):
    if family == "gpt2":
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2)).eval()
    else:
        model = build_llama(tied=family == "llama_tied")
    docs, projection = random_docs(4), Projection(6, 3)
    found = projected_gradients(model, docs, Making("all", projection))
    plain = projected_gradients(model, docs, Making("all"))
    assert found.usable.all()
    assert plain.layout.width >= sum(parameter.numel() for parameter in model.parameters())
    for row, doc in enumerate(docs):
        for name, matrix in _own_matrices(model, doc, "all").items():
            left, right = projection.sides(name, tuple(matrix.shape))
            wanted = left @ matrix @ right.T
            got = found.values[row, found.layout.blocks[name]].view(wanted.shape)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                plain.values[row, plain.layout.blocks[name]].view(matrix.shape), matrix, rtol=1e-4, atol=1e-5
            )


def test_scales_and_transforms_come_before_the_projection(llama):
    docs, projection = random_docs(3), Projection(5, 0)
    sites = find_sites(llama, "attention")
    scales = {
        name: (torch.arange(1.0, site.shape[0] + 1), torch.arange(2.0, site.shape[1] + 2))
        for name, site in sites.items()
    }
    scaled = projected_gradients(llama, docs, Making("attention", projection, scales=scales))
    full = projected_gradients(llama, docs, Making("attention", scales=scales))
    signs = projected_gradients(
        llama, docs, Making("attention", projection, transform=lambda name, part, value: value.sign())
    )
    for row, doc in enumerate(docs):
        for name, matrix in _own_matrices(llama, doc, "attention").items():
            left, right = projection.sides(name, tuple(matrix.shape))
            divided = matrix / scales[name][0][:, None] / scales[name][1]
            for rows, wanted in (
                (scaled, left @ divided @ right.T),
                (full, divided),
                (signs, left @ matrix.sign() @ right.T),
            ):
                got = rows.values[row, rows.layout.blocks[name]].view(wanted.shape)
                torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_more_rows_than_memory_has_room_for_are_mapped_from_a_file(llama, monkeypatch):
    docs, making = random_docs(5), Making("attention", Projection(4))
    held = projected_gradients(llama, docs, making)
    monkeypatch.setattr("winnow.attribution.projected.IN_MEMORY", 10)
    assert torch.equal(projected_gradients(llama, docs, making).values, held.values)


def test_a_row_has_the_same_bits_in_any_company_and_broken_documents_have_none(llama):
    docs = random_docs(12)
    making = Making("all", Projection(4))
    together = projected_gradients(llama, docs, making)
    alone = projected_gradients(llama, docs[5:6], making)
    assert torch.equal(together.values[5], alone.values[0])
    with torch.no_grad():
        llama.get_input_embeddings().weight[7] = float("nan")
    mixed = [np.where(docs[0] == 7, 8, docs[0]), np.array([3, 7, 5]), np.array([2])]
    found = projected_gradients(llama, mixed, making)
    assert found.usable.tolist() == [True, False, False]
    assert "loss" in found.reasons[1] and "two tokens" in found.reasons[2]
    assert not found.values[1:].any() and found.values[0].any()


def test_rows_of_mixed_precision_are_near_and_a_store_does_not_mix_the_two(llama, tmp_path):
    docs, exact = random_docs(6), Making("blocks", Projection(4))
    mixed = dataclasses.replace(exact, dtype="bfloat16")
    wanted, found = projected_gradients(llama, docs, exact), projected_gradients(llama, docs, mixed)
    error = (found.values - wanted.values).norm() / wanted.values.norm()
    assert found.usable.all() and 0 < error < 0.05
    assert torch.equal(projected_gradients(llama, docs[2:3], mixed).values[0], found.values[2])
    store_gradients(tmp_path / "s", llama, docs, mixed)
    with pytest.raises(UserError, match="another precision"):
        store_gradients(tmp_path / "s", llama, docs, exact)


def test_the_margin_rows_are_gradients_of_the_summed_log_odds(llama):
    docs = random_docs(4, seed=2)
    found = projected_gradients(llama, docs, Making("blocks", objective="margin"))
    for row, doc in enumerate(docs):
        ids = torch.from_numpy(doc)[None]
        llama.zero_grad()
        logits = llama(input_ids=ids[:, :-1]).logits[0]
        p = torch.softmax(logits, dim=-1).gather(1, ids[0, 1:, None])[:, 0]
        torch.log(p / (1 - p)).sum().backward()
        own = {name: value.grad.clone() for name, value in llama.named_parameters() if value.grad is not None}
        for name, site in find_sites(llama, "blocks").items():
            wanted = -site.matrix(own).flatten()
            torch.testing.assert_close(found.values[row, found.layout.blocks[name]], wanted, rtol=1e-3, atol=1e-4)
        assert found.doubts[row] == pytest.approx((1 - p).mean().item(), rel=1e-5)
        assert found.losses[row] == pytest.approx(-p.log().mean().item(), rel=1e-5)
