import numpy as np
import pytest
import torch
from attribution_models import build_llama, own_gradients, random_docs
from transformers import GPT2Config, GPT2LMHeadModel

from winnow.attribution.batching import batches
from winnow.attribution.capture import capturing, linear_sites
from winnow.errors import UserError


def _layer_gradients(model, docs, scope):
    """Per-document gradients rebuilt from captured inputs and output gradients."""
    found = {}
    with capturing(model, scope) as capture:
        for batch in batches(docs, 64, batch_tokens=512):
            captured = capture.run(batch)
            for name in captured.inputs:
                products = torch.einsum("bto,bti->boi", captured.gradients[name], captured.inputs[name])
                for row, index in enumerate(batch.rows.tolist()):
                    found[name, index] = products[row]
    return found


def test_captured_gradients_equal_autograd_of_each_document_for_every_linear_layer(llama):
    docs = random_docs(9)
    found = _layer_gradients(llama, docs, "all")
    names = {name for name, _ in found}
    assert len(names) == 2 * 7 + 1
    assert {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj", "lm_head"} <= names
    for index, doc in enumerate(docs):
        own = own_gradients(llama, doc)
        for name in names:
            torch.testing.assert_close(found[name, index], own[f"{name}.weight"], rtol=1e-4, atol=1e-6)


def test_gpt2_conv1d_gradients_equal_autograd_transposed():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2)).eval()
    docs = random_docs(4)
    found = _layer_gradients(model, docs, "blocks")
    assert len({name for name, _ in found}) == 2 * 4
    for index, doc in enumerate(docs):
        own = own_gradients(model, doc)
        for name, place in found:
            if place == index:
                torch.testing.assert_close(found[name, index], own[f"{name}.weight"].T, rtol=1e-4, atol=1e-6)


def test_scopes_name_the_layers_that_they_say(llama):
    assert len(linear_sites(llama, "blocks")) == 14
    assert {name.rsplit(".", 1)[1] for name in linear_sites(llama, "attention")} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }
    assert {name.rsplit(".", 1)[1] for name in linear_sites(llama, "mlp")} == {"gate_proj", "up_proj", "down_proj"}
    assert list(linear_sites(llama, "head")) == ["lm_head"]
    assert len(linear_sites(llama, r"layers\.1\..*_proj")) == 7
    with pytest.raises(UserError, match="matches no linear layer"):
        linear_sites(llama, "nothing")


def test_capturing_leaves_the_model_as_it_was():
    model = build_llama().train()
    model.set_attn_implementation("sdpa")
    with capturing(model, "blocks") as capture:
        assert model.config._attn_implementation == "eager"
        for batch in batches(random_docs(2), 64):
            capture.run(batch)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_document_with_a_broken_token_is_marked_and_leaves_no_trace_in_its_batch(llama):
    with torch.no_grad():
        llama.get_input_embeddings().weight[7] = float("nan")
    sound = [np.where(doc == 7, 8, doc) for doc in random_docs(3, low=10, high=20)]
    docs = [sound[0], np.array([3, 7, 5, 6]), *sound[1:]]
    with capturing(llama, "blocks") as capture:
        [batch] = batches(docs, 64)
        captured = capture.run(batch)
    assert captured.usable.tolist() == [True, False, True, True]
    assert not captured.mask[1].any()
    for tensors in (captured.inputs, captured.gradients):
        assert all(bool(torch.isfinite(tensor).all()) and not tensor[1].any() for tensor in tensors.values())


def test_sampled_labels_follow_the_model_and_their_loss_matches_its_entropy(llama):
    doc = np.array([5, 9, 11])
    docs = [doc] * 400
    generator = np.random.default_rng(0)
    losses = []
    with capturing(llama, "head") as capture:
        for batch in batches(docs, 64):
            losses += capture.run(batch, generator.random(batch.inputs.shape)).losses.tolist()
    with torch.no_grad():
        logits = llama(input_ids=torch.tensor([[5, 9]])).logits[0].double()
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert np.mean(losses) == pytest.approx(float(entropy), abs=4 * np.std(losses) / 20)
