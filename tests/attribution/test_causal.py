"""Only causal language models are attributed."""

from __future__ import annotations

import pytest
import torch
from attribution_models import VOCABULARY, build_gpt2, build_llama, random_docs
from transformers import AutoModelForCausalLM, BertConfig, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from winnow.attribution.causal import require_causal
from winnow.attribution.influence import GradientInfluence
from winnow.errors import UserError

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(is_decoder: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, is_decoder=is_decoder, **SIZES)
    return AutoModelForCausalLM.from_config(config)


def gpt2_config() -> GPT2Config:
    return GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32)


def test_a_model_that_sees_later_tokens_is_refused_though_it_loads_as_a_causal_one():
    with pytest.raises(UserError, match="BertLMHeadModel predicts a token from the ones after it too"):
        require_causal(bert(is_decoder=False))


@pytest.mark.parametrize("make", [build_llama, lambda: bert(is_decoder=True), lambda: GPT2LMHeadModel(gpt2_config())])
def test_a_causal_model_passes_and_keeps_its_mode(make):
    model = make().train()
    require_causal(model)
    assert model.training


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: GPT2ForSequenceClassification(gpt2_config()), "GPT2ForSequenceClassification"),
        (lambda: build_llama().model, "LlamaModel gives no logits"),
        (lambda: torch.nn.Linear(2, 2), "Linear has no input embedding"),
    ],
)
def test_a_model_without_a_prediction_for_every_token_is_refused(make, told):
    with pytest.raises(UserError, match=f"{told}.*AutoModelForCausalLM"):
        require_causal(make())


def test_broken_weights_are_no_matter_of_causality():
    model = build_llama()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.nan
    require_causal(model)


def test_influence_is_not_fitted_to_a_model_that_is_not_causal_nor_to_an_empty_reference():
    docs = random_docs(3, low=6, high=20)
    with pytest.raises(UserError, match="predicts a token from the ones after it too"):
        GradientInfluence.fit(bert(is_decoder=False), docs, method="grad_dot")
    with pytest.raises(UserError, match="reference"):
        GradientInfluence.fit(build_llama(), [], method="grad_dot")
    with pytest.raises(UserError, match="none of the 1 reference documents has a finite loss"):
        GradientInfluence.fit(build_llama(), [docs[0][:1]], method="grad_dot")


def test_a_context_shorter_than_the_probe_is_no_matter():
    require_causal(build_gpt2(context=4))
