"""The small model of the demo and of proxies: an ordinary Llama of a size a CPU can train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a Llama-style decoder; the defaults have 967,808 parameters."""

    vocab: int = 2048
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 288
    context: int = 256
    tie_embeddings: bool = True

    def validate(self) -> None:
        """Raise UserError on sizes no model can have."""
        for name in ("vocab", "hidden", "layers", "heads", "intermediate", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"model {name} = {getattr(self, name)} is too small; set it to at least 1")
        if self.hidden % (2 * self.heads):
            raise UserError(
                f"model hidden = {self.hidden} does not divide into {self.heads} heads of an even size; "
                f"set hidden to a multiple of {2 * self.heads}"
            )

    @property
    def parameters(self) -> int:
        """The number of parameters, a tied output matrix counted once."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + (2 - self.tie_embeddings) * self.vocab * self.hidden


def build_model(config: ModelConfig, seed: int, eos: int = 0) -> LlamaForCausalLM:
    """Return a freshly initialised model in float32; the same configuration and seed give the same weights.

    ``eos`` is the id of the end-of-text token, recorded in the model's configuration. The global random state is left
    as it was. Raises UserError on an impossible configuration.

    Source: Touvron et al. 2023 (Llama), section 2.2: RMSNorm first, SwiGLU, rotary positions, no biases.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config.validate()
    llama = LlamaConfig(
        vocab_size=config.vocab,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=eos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(llama)


def count_parameters(model: PreTrainedModel) -> int:
    """Return the number of a model's parameters, a shared one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
