import numpy as np
import pytest
import torch
from attribution_models import build_family, build_gpt2, build_llama, build_neox, own_gradients, random_docs
from transformers import LlamaConfig, LlamaForCausalLM

from winnow.attribution.batching import batches, packed_batches
from winnow.attribution.capture import capturing
from winnow.attribution.sites import find_sites
from winnow.errors import UserError

BUILDERS = {
    "llama": build_llama,
    "tied llama": lambda: build_llama(tied=True),
    "gpt2": build_gpt2,
    "neox": build_neox,
}


def _captured(model, docs, scope="all", cut=batches, **options):
    """Every document's gradient by site, rebuilt from one backward pass a batch."""
    found = [{} for _ in docs]
    with capturing(model, scope, **options) as capture:
        for batch in cut(docs, 64, batch_tokens=512):
            captured = capture.run(batch)
            for name, gradients in captured.sites.items():
                values = gradients.per_example()
                for row, index in enumerate(batch.rows.tolist()):
                    found[index][name] = values[row]
    return found


def _worst(model, docs, found, scope="all"):
    """The largest relative error of any site's gradient against ordinary autograd of the document alone.

    Sites whose gradient vanishes (queries and keys of one position) are measured against the whole gradient.
    """
    sites = find_sites(model, scope)
    worst = 0.0
    for doc, gradients in zip(docs, found, strict=True):
        own = own_gradients(model, doc)
        least = 1e-2 * max(float(value.norm()) for value in own.values())
        for name, value in gradients.items():
            expected = sites[name].matrix(own).double()
            worst = max(worst, float((value.double() - expected).norm() / expected.norm().clamp(min=least)))
    return worst


@pytest.mark.parametrize("cut", [batches, packed_batches])
@pytest.mark.parametrize("family", BUILDERS)
def test_every_parameters_gradient_equals_backward_of_the_document_alone(family, cut):
    model = BUILDERS[family]()
    docs = [*random_docs(6), np.array([1, 2]), np.array([5, 5, 5, 5])]
    found = _captured(model, docs, cut=cut)
    assert all(len(gradients) == len(found[0]) for gradients in found)
    assert _worst(model, docs, found) < 1e-5


@pytest.mark.parametrize("cut", [batches, packed_batches])
@pytest.mark.parametrize(
    ("family", "more"),
    [("qwen3", {"head_dim": 12, "tie_word_embeddings": False}), ("gemma2", {"head_dim": 8}), ("phi", {})],
)
def test_gains_of_heads_capped_logits_and_parallel_blocks_are_captured_too(family, more, cut):
    model = build_family(family, **more)
    docs = [*random_docs(3), np.array([1, 2])]
    found = _captured(model, docs, cut=cut)
    if family == "qwen3":
        assert found[0]["model.layers.1.self_attn.k_norm"].shape == (1, 12)
    assert {name for site in find_sites(model, "all").values() for name in site.parameters} == set(
        dict(model.named_parameters())
    )
    assert _worst(model, docs, found) < 1e-5


def test_experts_in_one_tensor_are_refused_by_name_and_the_rest_is_captured():
    model = build_family("mixtral", num_local_experts=4, num_experts_per_tok=2)
    for scope in ("blocks", "mlp+head", "all"):
        with pytest.raises(UserError, match=r"mlp\.experts\.\w+ of Mixtral.* use scope attention"):
            find_sites(model, scope)
    docs, scope = random_docs(3), "attention+embeddings+head+norms"
    assert _worst(model, docs, _captured(model, docs, scope), scope) < 1e-5


def test_packed_windows_hold_several_documents_and_lose_none():
    docs = random_docs(30)
    packed = list(packed_batches(docs, 64, batch_tokens=512))
    assert sorted(np.concatenate([batch.rows for batch in packed]).tolist()) == list(range(30))
    assert sum(len(batch.inputs) for batch in packed) < 25
    assert sum(batch.inputs.size for batch in packed) < sum(batch.inputs.size for batch in batches(docs, 64))


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_a_document_in_a_packed_window_does_not_feel_its_neighbours(family):
    model, docs = BUILDERS[family](), random_docs(4, low=8, high=12)
    other = [docs[0], *random_docs(3, seed=5, low=8, high=12)]
    ours, theirs = (_captured(model, some, cut=packed_batches)[0] for some in (docs, other))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-7)


def test_padding_and_the_size_of_batches_do_not_change_a_gradient(llama):
    docs = random_docs(5, low=10, high=30)
    together = _captured(llama, docs)
    for index, doc in enumerate(docs):
        for height in (1, 3):
            [alone] = _captured(llama, [doc], cut=lambda d, c, h=height, **_: batches(d, c, batch_tokens=32 * h))
            for name, value in alone.items():
                torch.testing.assert_close(value, together[index][name], rtol=1e-5, atol=1e-7)


def test_captured_gradients_are_equal_to_the_bit_in_any_company(llama):
    docs = random_docs(7, low=10, high=30)
    whole, turned = _captured(llama, docs), _captured(llama, [docs[4], docs[1]])
    assert all(torch.equal(value, turned[0][name]) for name, value in whole[4].items())
    assert all(torch.equal(value, turned[1][name]) for name, value in whole[1].items())


@pytest.mark.parametrize("family", BUILDERS)
def test_mixed_precision_keeps_gradients_within_its_rounding(family):
    model, docs = BUILDERS[family](), random_docs(3)
    exact, mixed = _captured(model, docs), _captured(model, docs, dtype="bfloat16")
    for one, other in zip(exact, mixed, strict=True):
        size = sum(float(value.square().sum()) for value in one.values())
        error = sum(float((other[name] - value).square().sum()) for name, value in one.items())
        assert 0 < error < (0.05**2) * size
        assert all(value.dtype == torch.float32 for value in other.values())


def test_a_token_that_the_embedding_pads_with_has_no_embedding_gradient():
    model = build_llama()
    model.model.embed_tokens.padding_idx = 5
    docs = [np.array([5, 9, 5, 11])]
    found = _captured(model, docs, "embeddings")
    assert not found[0]["model.embed_tokens"][5].any()
    torch.testing.assert_close(
        found[0]["model.embed_tokens"], own_gradients(model, docs[0])["model.embed_tokens.weight"]
    )


def test_capturing_leaves_the_model_as_it_was():
    model = build_llama().train()
    model.set_attn_implementation("eager")
    with capturing(model, "all") as capture:
        for batch in batches(random_docs(2), 64):
            capture.run(batch)
    assert model.training and model.config._attn_implementation == "eager"
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("scope", ["blocks", "all"])
def test_a_document_with_a_broken_token_is_marked_and_leaves_no_trace_in_its_batch(llama, scope):
    sound = [np.where(doc == 7, 8, doc) for doc in random_docs(3, low=10, high=20)]
    docs = [sound[0], np.array([3, 7, 5, 6]), *sound[1:]]
    alone = _captured(llama, sound, scope)
    with torch.no_grad():
        llama.get_input_embeddings().weight[7] = float("nan")
    with capturing(llama, scope) as capture:
        [batch] = batches(docs, 64)
        captured = capture.run(batch)
    assert captured.usable.tolist() == [True, False, True, True]
    assert not captured.mask[1].any()
    for name, gradients in captured.sites.items():
        values = gradients.per_example()
        assert bool(torch.isfinite(values).all()) and not values[1].any()
        for row, index in ((0, 0), (2, 1), (3, 2)):
            torch.testing.assert_close(values[row], alone[index][name], rtol=1e-5, atol=1e-7)


def test_inputs_and_output_gradients_of_linear_layers_are_zero_where_nothing_is_predicted(llama):
    with capturing(llama, "blocks") as capture:
        [batch] = batches(random_docs(3, low=10, high=30), 64)
        captured = capture.run(batch)
    hidden = torch.from_numpy(batch.weights == 0)
    assert torch.equal(captured.mask, ~hidden) and len(captured.inputs) == 14
    for tensors in (captured.inputs, captured.gradients):
        assert not any(bool(tensor[hidden].any()) for tensor in tensors.values())
    inputs = captured.inputs
    assert inputs["model.layers.0.self_attn.q_proj"] is inputs["model.layers.0.self_attn.k_proj"]


def test_streaming_frees_what_a_site_saw_before_the_next_one_comes(llama):
    import weakref

    seen, alive = [], []
    with capturing(llama, "mlp") as capture:
        [batch] = batches(random_docs(3, low=10, high=30), 64)

        def visit(site, gradients):
            alive.append(sum(one() is not None for one in seen))
            seen.append(weakref.ref(gradients.gradients))

        losses = capture.stream(batch, visit)
        assert torch.equal(losses, capture.run(batch).losses)
    assert len(seen) == 6 and max(alive) <= 1


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


def test_a_model_that_sees_later_tokens_and_a_layer_without_a_part_are_refused(llama):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    with pytest.raises(UserError, match="no causal language model"), capturing(BertForMaskedLM(config).eval(), ".*"):
        pass
    llama.model.layers[0].spare = torch.nn.Linear(4, 4)
    with capturing(llama, "blocks") as capture, pytest.raises(UserError, match="spare takes no part in the loss"):
        capture.run(next(batches(random_docs(1), 64)))


def _dynamic_llama(context):
    """Rotary positions that change for a whole batch as soon as one row is longer than the context."""
    torch.manual_seed(0)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=64,
        max_position_embeddings=context,
        rope_parameters=rope,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("context", [5, 40, 48])
@pytest.mark.parametrize("build", [lambda context: build_gpt2(context=context), _dynamic_llama])
def test_padding_never_passes_a_context_that_is_no_bucket(build, context):
    model, docs = build(context), random_docs(4, low=context // 2, high=context + 5)
    expected = [own_gradients(model, doc[:context]) for doc in docs]
    with capturing(model, "attention") as capture:
        for batch in batches(docs, context):
            captured = capture.run(batch)
            for row, index in enumerate(batch.rows.tolist()):
                for name, site in capture.sites.items():
                    found = captured.sites[name].per_example()[row]
                    torch.testing.assert_close(found, site.matrix(expected[index]), rtol=1e-3, atol=1e-5)
