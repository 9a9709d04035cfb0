"""Whole trainings of a bench, kept on disk with their checkpoints and AdamW's moments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import optimizer_state
from winnow.attribution.bank import query_key
from winnow.attribution.retraining import Recipe, retrain
from winnow.attribution.run import RunCheckpoint
from winnow.errors import UserError
from winnow.identity import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERSION = "1"
_PARTS = ("weights", "exp_avg", "exp_avg_sq")


def train_run(
    folder: Path, documents: Sequence[np.ndarray], recipe: Recipe, seed: int, checkpoints: int
) -> tuple[RunCheckpoint, ...]:
    """Return the evenly spaced checkpoints of a training on all documents, trained now or read from ``folder``.

    What ``folder`` holds of other documents, another recipe, seed or number of checkpoints is trained anew.
    """
    index = folder / "run.json"
    made = {
        "version": VERSION,
        "digest": digest([asdict(recipe), seed, sorted(map(query_key, documents))]),
        "checkpoints": checkpoints,
    }
    facts = _recorded(index, made)
    if facts is None:
        folder.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)
        facts = []
        for place, stop in enumerate(retrain(recipe, documents, seed, checkpoints)):
            tensors = {f"weights.{name}": value for name, value in stop.model.state_dict().items()}
            tensors |= {f"exp_avg.{name}": value for name, value in stop.optimizer.exp_avg.items()}
            tensors |= {f"exp_avg_sq.{name}": value for name, value in stop.optimizer.exp_avg_sq.items()}
            _save(folder / f"checkpoint-{place}.safetensors", tensors)
            facts.append({"steps": stop.steps, "learning_rate": stop.learning_rate, "step": stop.optimizer.step})
        temporary = index.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**made, "stops": facts}) + "\n", encoding="utf-8")
        temporary.replace(index)
    return tuple(
        _checkpoint(folder / f"checkpoint-{place}.safetensors", recipe, one) for place, one in enumerate(facts)
    )


def _recorded(index: Path, made: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the facts of the checkpoints in a folder, None where it holds no such training."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or any(found.get(name) != value for name, value in made.items()):
        return None
    stops: list[dict[str, Any]] = found["stops"]
    return stops


def _checkpoint(path: Path, recipe: Recipe, facts: Mapping[str, Any]) -> RunCheckpoint:
    return RunCheckpoint(
        name=path.stem,
        load=partial(_load, path, recipe),
        learning_rate=facts["learning_rate"],
        steps=facts["steps"],
        optimizer=_moments(path, facts["step"]),
    )


def _load(path: Path, recipe: Recipe) -> PreTrainedModel:
    model = recipe.build(0)
    model.load_state_dict(_tensors(path)["weights"])
    return model.eval()


def _moments(path: Path, step: int) -> dict[str, dict[str, Any]]:
    parts = _tensors(path)
    return optimizer_state(step, parts["exp_avg"], parts["exp_avg_sq"])


def _tensors(path: Path) -> dict[str, dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    try:
        for key, value in load_file(path).items():
            part, _, name = key.partition(".")
            parts[part][name] = value
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: not a checkpoint of a bench ({error}); delete its folder and run again") from error
    return parts


def _save(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, temporary)
    temporary.replace(path)
