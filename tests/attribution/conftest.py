"""Fixtures of the attribution tests."""

from __future__ import annotations

import pytest
import torch
from attribution_models import build_llama, mean_loss, patterned_docs, random_docs
from transformers import LlamaForCausalLM


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny products are faster on one thread, and other tests may share the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    model = build_llama()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="session")
def warm_llama() -> tuple[LlamaForCausalLM, dict[str, dict[str, torch.Tensor]]]:
    """A model trained a little on two patterns, and the state of its AdamW by parameter name."""
    model = build_llama(seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    docs = [*patterned_docs(20, 0, 5, noise=0.3), *patterned_docs(20, 32, 6, noise=0.3), *random_docs(20, 7)]
    for step in range(60):
        loss = torch.stack([mean_loss(model, docs[(step * 8 + row) % len(docs)]) for row in range(8)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    state = {name: dict(optimizer.state[value]) for name, value in model.named_parameters()}
    return model.eval(), state
