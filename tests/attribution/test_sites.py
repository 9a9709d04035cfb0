import pytest
import torch
from attribution_models import build_gpt2, build_llama, build_neox
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from winnow.attribution.sites import find_sites
from winnow.errors import UserError


def _kinds(model, scope):
    return {name: site.kind for name, site in find_sites(model, scope).items()}


def test_scopes_name_the_layers_that_they_say(llama):
    assert len(find_sites(llama, "blocks")) == 14
    ends = {name.rsplit(".", 1)[1] for name in find_sites(llama, "attention")}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert {name.rsplit(".", 1)[1] for name in find_sites(llama, "mlp")} == {"gate_proj", "up_proj", "down_proj"}
    assert _kinds(llama, "head") == {"lm_head": "head"}
    assert _kinds(llama, "embeddings") == {"model.embed_tokens": "embedding"}
    assert set(_kinds(llama, "norms").values()) == {"norm"} and len(find_sites(llama, "norms")) == 5
    assert len(find_sites(llama, "blocks+head")) == 15
    assert len(find_sites(llama, r"layers\.1\..*_proj")) == 7


def test_fused_projections_and_learned_positions_are_sites():
    sites = find_sites(build_gpt2(), "all")
    assert sites["transformer.h.0.attn.c_attn"].shape == (48, 17)
    assert sites["transformer.wpe"].kind == "embedding" and sites["transformer.wpe"].shape == (64, 16)
    assert "gpt_neox.layers.1.attention.query_key_value" in find_sites(build_neox(), "attention")
    assert len(find_sites(build_neox(), "blocks")) == 8


@pytest.mark.parametrize("scope", ["head", "embeddings", "all"])
def test_a_tied_weight_is_one_site_whichever_use_is_asked_for(scope):
    tied = [site for site in find_sites(build_llama(tied=True), scope).values() if site.kind == "tied"]
    assert [site.parameters for site in tied] == [("model.embed_tokens.weight",)]


@pytest.mark.parametrize("build", [build_llama, build_gpt2, build_neox])
def test_all_holds_every_parameter_once_and_matrices_split_into_the_parameters_again(build):
    model = build()
    sites = find_sites(model, "all")
    values = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    parts = [site.split(site.matrix(values)) for site in sites.values()]
    assert all(site.matrix(values).shape == site.shape for site in sites.values())
    assert sorted(name for part in parts for name in part) == sorted(values)
    assert all(torch.equal(value, values[name]) for part in parts for name, value in part.items())


def test_biases_count_where_the_scope_says_so():
    model = build_neox()
    narrow, wide = (find_sites(model, scope)["gpt_neox.layers.0.mlp.dense_h_to_4h"] for scope in ("mlp", "mlp+bias"))
    assert narrow.shape == (32, 16) and not narrow.bias
    assert wide.shape == (32, 17) and wide.bias
    assert find_sites(model, "mlp", bias=True)["gpt_neox.layers.0.mlp.dense_h_to_4h"].bias


def test_an_unknown_scope_or_an_unknown_kind_of_parameter_is_named(llama):
    with pytest.raises(UserError, match="matches no layer"):
        find_sites(llama, "nothing")
    with pytest.raises(UserError, match="not a regular expression"):
        find_sites(llama, "(")

    class Scaled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    llama.model.layers[0].mlp.up_proj = Scaled(16, 24, bias=False)
    assert len(find_sites(llama, "blocks")) == 13
    with pytest.raises(UserError, match=r"mlp\.up_proj\.weight of LlamaForCausalLM belongs to no layer"):
        find_sites(llama, "all")


def test_a_parameter_with_a_use_that_is_not_captured_is_refused():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=16,
        vocab_size=64,
        max_position_embeddings=32,
    )
    scaled = Gemma3ForCausalLM(config)  # its embedding multiplies the tied weight, which is known
    assert _kinds(scaled, "head") == {"model.embed_tokens": "tied"} and len(find_sites(scaled, "blocks")) == 7
    scaled.model.embed_tokens.__class__ = type("Odd", (torch.nn.Embedding,), {"forward": lambda self, ids: None})
    with pytest.raises(UserError, match=r"embed_tokens\.weight of Gemma3ForCausalLM is shared by .* and lm_head"):
        find_sites(scaled, "head")
    llama = build_llama()
    layers = llama.model.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj\.weight .* is shared by .*layers\.1\.mlp\.up_proj"):
        find_sites(llama, "mlp")
    assert len(find_sites(llama, "attention")) == 8
