"""Tiny seeded models and token arrays for attribution tests."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

VOCABULARY = 64


def build_llama(seed: int = 0, context: int = 64, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=VOCABULARY,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def build_gpt2(seed: int = 0, context: int = 64) -> GPT2LMHeadModel:
    """Fused c_attn in Conv1D layers, learned positions, a tied head."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=context,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _with_biases(GPT2LMHeadModel(config)).eval()


def build_neox(seed: int = 0, context: int = 64) -> GPTNeoXForCausalLM:
    """Fused query_key_value with bias, rotary positions, a head of its own."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=context,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _with_biases(GPTNeoXForCausalLM(config)).eval()


def build_family(family: str, seed: int = 0, **more: int | bool) -> torch.nn.Module:
    """Two small layers of any family that transformers knows by that name, with gains and biases that are not trivial.

    qwen3 has one gain for every head of queries and keys, gemma2 gains of 1 + weight and capped logits, phi biases
    everywhere and one norm for both halves of a block, mixtral experts in one tensor.
    """
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = AutoConfig.for_model(family, **sizes, **heads, initializer_range=0.2, **more)
    return _with_biases(AutoModelForCausalLM.from_config(config, attn_implementation="eager")).eval()


def _with_biases(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh models have gains of one and biases of zero, behind which mistakes hide."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return model


def random_docs(count: int, seed: int = 0, low: int = 5, high: int = 60) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, generator.integers(low, high)) for _ in range(count)]


def patterned_docs(count: int, start: int, seed: int, noise: float = 0.1) -> list[np.ndarray]:
    """Documents that count upwards within their own quarter of the vocabulary, with a little noise."""
    generator = np.random.default_rng(seed)
    docs = []
    for _ in range(count):
        steps = start + (generator.integers(0, 16) + np.arange(generator.integers(20, 40))) % 16
        noisy = generator.random(len(steps)) < noise
        docs.append(np.where(noisy, generator.integers(0, VOCABULARY, len(steps)), steps))
    return docs


def mean_loss(model: torch.nn.Module, doc: np.ndarray) -> torch.Tensor:
    """The plain definition: mean cross-entropy of one unpadded document."""
    ids = torch.from_numpy(np.array(doc, dtype=np.int64))[None]
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])


def own_gradients(model: torch.nn.Module, doc: np.ndarray) -> dict[str, torch.Tensor]:
    """One document's gradient by ordinary autograd, by parameter name."""
    model.zero_grad()
    mean_loss(model, doc).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
