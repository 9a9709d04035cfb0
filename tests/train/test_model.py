import pytest
import torch

from winnow.errors import UserError
from winnow.train.model import ModelConfig, build_model, count_parameters


def test_the_default_model_has_at_most_a_million_parameters():
    model = build_model(ModelConfig(), seed=0)
    assert model.config._attn_implementation == "sdpa"
    assert count_parameters(model) == ModelConfig().parameters == 967_808


@pytest.mark.parametrize("tie", [True, False])
def test_the_formula_counts_what_the_model_has(tie):
    config = ModelConfig(vocab=300, hidden=32, layers=3, heads=2, intermediate=48, context=64, tie_embeddings=tie)
    assert count_parameters(build_model(config, seed=0)) == config.parameters


def test_the_seed_decides_the_weights_and_the_global_random_state_stays():
    config = ModelConfig(vocab=300, hidden=32, layers=1, heads=2, intermediate=48)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = build_model(config, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = build_model(config, seed=1).state_dict(), build_model(config, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_impossible_sizes_are_user_errors():
    with pytest.raises(UserError, match="set hidden to a multiple of 8"):
        build_model(ModelConfig(hidden=130), seed=0)
    with pytest.raises(UserError, match="layers = 0"):
        build_model(ModelConfig(layers=0), seed=0)
