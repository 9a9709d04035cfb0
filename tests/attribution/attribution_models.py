"""Tiny seeded models and token arrays for attribution tests."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
