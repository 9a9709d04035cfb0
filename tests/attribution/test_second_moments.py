import numpy as np
import pytest
import torch
from attribution_models import build_llama, own_gradients, random_docs
from transformers import GPT2Config, GPT2LMHeadModel

from winnow.attribution.capture import capturing
from winnow.attribution.estimators import Context, make_directional
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.attribution.second_moments import (
    adam_second_moments,
    damped_quotient,
    gradient_second_moments,
    rank_one,
)
from winnow.attribution.sites import find_sites
from winnow.errors import UserError


def _state(model, **keys):
    torch.manual_seed(0)
    return {
        name: {"exp_avg_sq": torch.rand_like(value), "step": 3.0, **keys} for name, value in model.named_parameters()
    }


def test_adams_moment_is_corrected_for_its_bias_and_turned_as_the_gradient_is():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=1, n_head=2))
    state = _state(model)
    found = adam_second_moments(find_sites(model, "blocks+bias"), state, beta2=0.9)["transformer.h.0.attn.c_attn"]
    weight, bias = (state[f"transformer.h.0.attn.c_attn.{part}"]["exp_avg_sq"] for part in ("weight", "bias"))
    expected = torch.cat([weight.T, bias[:, None]], dim=1).double() / (1 - 0.9**3)
    assert found.shape == (48, 17)
    torch.testing.assert_close(found, expected)


def test_a_parameter_without_a_moment_is_named():
    model = build_llama()
    with pytest.raises(UserError, match="no exp_avg_sq of model"):
        adam_second_moments(find_sites(model, "attention"), {})


@pytest.mark.parametrize("rows, columns", [("row_var", "col_var"), ("exp_avg_sq_row", "exp_avg_sq_col")])
def test_an_adafactor_state_gives_its_product_of_rank_one(rows, columns):
    model = build_llama()
    r, c = torch.rand(16), torch.rand(16)
    name = "model.layers.0.self_attn.q_proj"
    state = _state(model) | {f"{name}.weight": {rows: r[:, None] if rows == "row_var" else r, columns: c}}
    found = adam_second_moments(find_sites(model, "attention"), state)[name]
    torch.testing.assert_close(found, torch.outer(r, c).double() / r.mean(), check_dtype=False)


def test_rank_one_is_exact_for_a_product_and_keeps_row_and_column_means():
    torch.manual_seed(0)
    product = torch.outer(torch.rand(4), torch.rand(3)).double()
    rows, columns = rank_one(product)
    torch.testing.assert_close(torch.outer(rows, columns), product)
    any_moment = torch.rand(4, 3, dtype=torch.float64)
    rows, columns = rank_one(any_moment)
    torch.testing.assert_close(torch.outer(rows, columns).mean(dim=1), any_moment.mean(dim=1))
    torch.testing.assert_close(torch.outer(rows, columns).mean(dim=0), any_moment.mean(dim=0))
    assert not torch.outer(*rank_one(torch.zeros(4, 3))).any()


def test_measured_moments_are_means_of_squared_gradients():
    model, docs = build_llama(), random_docs(5)
    with capturing(model, "mlp") as capture:
        found = gradient_second_moments(capture, docs, 64)
        turned = gradient_second_moments(capture, docs[::-1], 64)
    own = [own_gradients(model, doc) for doc in docs]
    for name, value in found.items():
        expected = torch.stack([one[f"{name}.weight"].double().square() for one in own]).mean(dim=0)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-12)
        assert torch.equal(value, turned[name])


def test_adafactor_dot_equals_adam_dot_where_the_moment_has_rank_one():
    torch.manual_seed(0)
    moment = {"a": torch.outer(torch.rand(4), torch.rand(3)).double()}
    gradients = {"a": torch.randn(2, 4, 3, dtype=torch.float64)}
    context = Context(0.1, second_moments=moment)
    adam = make_directional("adam_dot").precondition(gradients, context)["a"]
    torch.testing.assert_close(make_directional("adafactor_dot").precondition(gradients, context)["a"], adam)


def test_a_quotient_of_zero_divisors_is_zero_and_what_is_broken_stays_so():
    gradient = torch.tensor([[1.0, 2.0, 3.0], [torch.nan, 4.0, 0.0]])
    denominator = torch.tensor([[0.0, 4.0, 8.0], [0.0, 0.0, 1e-30]])
    found = damped_quotient(gradient, denominator, 0.0)
    expected = torch.tensor([[0.0, 0.5, 0.375], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)
    torch.testing.assert_close(damped_quotient(gradient, denominator, 0.5)[0], torch.tensor([1.0, 0.4, 1 / 3]).double())
    assert not damped_quotient(torch.ones(2, 3), torch.zeros(2, 3), 0.1).any()


@pytest.mark.parametrize("name", ["adam_dot", "adam_fisher", "adafactor_dot"])
def test_weights_without_a_second_moment_have_no_direction(name):
    moments = {"moved": torch.tensor([[0.0, 0.0], [4.0, 1.0]]), "still": torch.zeros(2, 2)}
    gradients = {layer: torch.ones(1, 2, 2, dtype=torch.float64) for layer in moments}
    found = make_directional(name).precondition(gradients, Context(0.0, second_moments=moments))
    assert not found["moved"][0, 0].any() and (found["moved"][0, 1] > 0).all()
    assert torch.isfinite(found["moved"]).all() and not found["still"].any()


def test_beta2_is_an_option_of_what_reads_second_moments():
    model, docs = build_llama(), random_docs(3)
    run = TrainingRun(docs, (RunCheckpoint("last", lambda: model, optimizer=_state(model)),))
    usual, other = (
        make_directional("adam_dot").fit(run, Settings(options=options)).score(Queries(docs[:1]))
        for options in ({}, {"beta2": 0.5})
    )
    np.testing.assert_allclose(other, usual * np.sqrt((1 - 0.5**3) / (1 - 0.95**3)), rtol=1e-4)
