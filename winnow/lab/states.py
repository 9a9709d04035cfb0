"""A state of the lab's model: weights and AdamW's memory, in one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.adamw import AdamW, optimizer_state
from winnow.attribution.run import RunCheckpoint
from winnow.errors import UserError
from winnow.identity import digest
from winnow.lab.pool import LabPool
from winnow.train.loop import AdamWState, TrainSettings, train
from winnow.train.model import ModelConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

VERSION = "1"


@dataclass(frozen=True, eq=False)
class State:
    """``weights`` float32 by parameter name, ``optimizer``, and the tokens that made them; ``lr`` of the last step."""

    config: ModelConfig
    weights: dict[str, torch.Tensor]
    optimizer: AdamWState
    tokens: int
    lr: float

    def model(self) -> PreTrainedModel:
        """Return the model, a fresh one each time."""
        from winnow.train.model import build_model

        model = build_model(self.config, 0)
        model.load_state_dict(self.weights)
        return model.eval()

    @cached_property
    def digest(self) -> str:
        """Digest of the weights, of AdamW's memory and of the model's sizes."""
        import xxhash

        hasher = xxhash.xxh3_128()
        for name, tensor in sorted(self.tensors().items()):
            hasher.update(name.encode())
            hasher.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest([VERSION, asdict(self.config), self.optimizer.step, hasher.hexdigest()])

    def checkpoint(self, settings: TrainSettings, name: str = "lab") -> RunCheckpoint:
        """Return the state as estimators of influence take it."""
        adamw = AdamW(self.lr, settings.betas, settings.epsilon, settings.weight_decay, settings.clip)
        moments = optimizer_state(self.optimizer.step, self.optimizer.exp_avg, self.optimizer.exp_avg_sq)
        return RunCheckpoint(name, self.model, self.lr, max(1, self.optimizer.step), moments, adamw)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name."""
        found = {f"weights.{name}": value for name, value in self.weights.items()}
        found |= {f"exp_avg.{name}": value for name, value in self.optimizer.exp_avg.items()}
        return found | {f"exp_avg_sq.{name}": value for name, value in self.optimizer.exp_avg_sq.items()}

    def save(self, path: Path) -> None:
        """Write the state to ``path`` whole or not at all."""
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        facts = {"config": asdict(self.config), "step": self.optimizer.step, "tokens": self.tokens, "lr": self.lr}
        tensors = {name: value.detach().contiguous().clone() for name, value in self.tensors().items()}
        save_file(tensors, str(temporary), metadata={"state": json.dumps(facts, sort_keys=True)})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read a state. Raises :class:`UserError` for a file that is none."""
        from safetensors import SafetensorError, safe_open

        parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "exp_avg": {}, "exp_avg_sq": {}}
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads(file.metadata()["state"])
                for key in file.keys():  # noqa: SIM118 -- not a dictionary
                    part, _, name = key.partition(".")
                    parts[part][name] = file.get_tensor(key)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: not a state of the lab ({error}); delete it and run again") from error
        optimizer = AdamWState(facts["step"], parts["exp_avg"], parts["exp_avg_sq"])
        return cls(ModelConfig(**facts["config"]), parts["weights"], optimizer, facts["tokens"], facts["lr"])


def state_of(model: PreTrainedModel, config: ModelConfig, optimizer: AdamWState, tokens: int, lr: float) -> State:
    """Return the state of a model in training; later steps do not change it."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return State(config, weights, optimizer, tokens, lr)


def warm_up(
    path: Path, pool: LabPool, rows: np.ndarray, config: ModelConfig, settings: TrainSettings, tokens: int, eos: int
) -> State:
    """Return the state after training on documents ``rows`` (int64 positions, in their order), made now or read.

    The file is named by what it depends on, in the folder ``path``. Raises :class:`UserError` when the documents have
    fewer than ``tokens`` tokens.
    """
    from winnow.train.batches import pack
    from winnow.train.model import build_model

    if (held := int(pool.lengths[rows].sum())) < tokens:
        raise UserError(f"lab warm-up: {tokens:,} tokens asked for, its documents have {held:,}; lower warm_tokens")
    key = digest([VERSION, asdict(config), asdict(settings), tokens, eos, pool.doc_ids[rows].tobytes().hex()])
    file = path / f"warm-{key[:16]}.safetensors"
    if file.exists():
        return State.load(file)
    windows = pack(pool.tokens[rows], config.context, eos)[: max(1, tokens // config.context)]
    model = build_model(config, settings.seed, eos)
    result = train(model, windows, settings)
    state = state_of(model, config, result.optimizer_state, result.tokens, settings.lr)
    state.save(file)
    return state
