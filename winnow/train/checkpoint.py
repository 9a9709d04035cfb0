"""States of the model on disk: ordinary Hugging Face checkpoints that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.durable import sync
from winnow.errors import UserError
from winnow.forward import no_progress_bars
from winnow.identity import canonical_json
from winnow.train.tokenizer import has_tokenizer, load_tokenizer, write_tokenizer
from winnow.train.weights import safetensors_problem, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from winnow.train.loop import AdamWState

STATE = "winnow.json"
TRAINER = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded state of the model; ``optimizer_state`` is None for one that was saved without."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    optimizer_state: AdamWState | None
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizer_state: AdamWState | None,
    state: Mapping[str, Any],
) -> None:
    """Write a checkpoint that ``AutoModelForCausalLM`` reads, with AdamW's moments and ``winnow.json``.

    ``state`` is JSON: step, tokens, manifest, parent, ``optimizer`` (its settings and place in the schedule, see
    :meth:`winnow.train.loop.TrainSettings.record`) and what else the run knows. Everything is written to a hidden
    sibling folder, ``winnow.json`` last, and renamed into place: a killed save leaves no checkpoint. An existing folder
    is replaced. Raises UserError when the tokenizer does not fit the model.
    """
    _check_vocabulary(folder, model, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        part.mkdir()
        with no_progress_bars():
            model.save_pretrained(str(part), safe_serialization=True)
        write_tokenizer(tokenizer, part)
        if optimizer_state is not None:
            _save_optimizer(part / OPTIMIZER, optimizer_state)
        (part / STATE).write_text(canonical_json(dict(state)) + "\n", encoding="utf-8")
        _flush(part)
        old = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        if folder.exists():
            folder.replace(old)
        part.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_checkpoint(folder: Path, dtype: str = "float32", attention: str = "sdpa") -> Checkpoint:
    """Load a checkpoint for the CPU, ours or any ordinary Hugging Face one, from safetensors and without remote code.

    ``dtype`` is that of the weights, ``attention`` "sdpa" or "eager" (which attribution needs for its hooks). Raises
    UserError when the folder is incomplete, has pickled weights only, or the tokenizer does not fit the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if reason := problem(folder):
        raise UserError(f"{folder}: {reason}")
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, attn_implementation=attention
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder}: the model cannot be loaded ({str(error).strip().splitlines()[0]}); give a checkpoint "
            "of a causal language model that transformers knows, without code of its own"
        ) from error
    model = model.to(getattr(torch, dtype)).eval()
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(folder, model, tokenizer)
    return Checkpoint(model, tokenizer, load_optimizer(folder), read_state(folder))


def is_complete(folder: Path) -> bool:
    """Return whether a folder is a whole checkpoint: configuration, a tokenizer, all shards in full length.

    Hidden folders, where saves are under way, are not. Reads no weights. Raises UserError for a checkpoint with pickled
    weights only, which will never become one that is loaded.
    """
    if not weight_files(folder) and (pickles := sorted(folder.glob("pytorch_model*.bin"))):
        raise UserError(
            f"{folder}: the weights are pickled ({pickles[0].name}), which can run code when loaded; "
            "save the model again with save_pretrained(safe_serialization=True)"
        )
    return problem(folder) is None


def problem(folder: Path) -> str | None:
    """Return what keeps a folder from being a checkpoint, with its mend, or None."""
    if folder.name.startswith("."):
        return "a hidden folder is a save under way; give the finished checkpoint"
    if not (folder / "config.json").is_file():
        return "there is no config.json; give a folder written by save_pretrained()"
    files = weight_files(folder)
    if not files:
        if any(folder.glob("pytorch_model*.bin")):
            return "the weights are pickled; save the model again with save_pretrained(safe_serialization=True)"
        return "there is no model.safetensors; give a folder written by save_pretrained()"
    for file in files:
        if reason := safetensors_problem(file):
            return f"{file.name} {reason}; wait until the save or copy has finished, or save the checkpoint again"
    if not has_tokenizer(folder):
        return "there is no tokenizer; save the tokenizer into the same folder with save_pretrained()"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's training state: ``winnow.json``, or what a Hugging Face trainer noted, or nothing.

    That trainer notes the step, and with every line of its log the learning rate, which is 0 at a schedule's end: the
    last one that moved anything is taken. Raises UserError for a file that is no such record.
    """
    path = next((folder / name for name in (STATE, TRAINER) if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        told = dict(json.loads(path.read_text(encoding="utf-8")))
        if path.name == STATE:
            return told
        rates = [rate for line in told.get("log_history") or () if (rate := line.get("learning_rate"))]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a record of a training ({error}); mend or remove it") from error
    known = {"optimizer": {"learning_rate": rates[-1]}} if rates else {}
    return {"step": told.get("global_step"), **known}


def load_optimizer(folder: Path) -> AdamWState | None:
    """Return the AdamW moments saved with a checkpoint, float32 by parameter name, or None."""
    from safetensors import safe_open

    from winnow.train.loop import AdamWState

    if not (folder / OPTIMIZER).is_file():
        return None
    with safe_open(str(folder / OPTIMIZER), framework="pt") as file:
        moments: dict[str, dict[str, Any]] = {"exp_avg": {}, "exp_avg_sq": {}}
        for key in file.keys():  # noqa: SIM118 -- not a dictionary
            moment, name = key.split(".", 1)
            moments[moment][name] = file.get_tensor(key)
        return AdamWState(int(file.metadata()["step"]), moments["exp_avg"], moments["exp_avg_sq"])


def _save_optimizer(path: Path, state: AdamWState) -> None:
    from safetensors.torch import save_file

    tensors = {f"exp_avg.{name}": tensor.contiguous() for name, tensor in state.exp_avg.items()}
    tensors |= {f"exp_avg_sq.{name}": tensor.contiguous() for name, tensor in state.exp_avg_sq.items()}
    # One entry only: safetensors writes several in an order of chance.
    save_file(tensors, str(path), metadata={"step": str(state.step)})


def _check_vocabulary(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = len(embeddings.weight)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {highest} but the model only {rows} embeddings; "
            "put the tokenizer the model was trained with beside it"
        )


def _flush(folder: Path) -> None:
    """Force a folder's files to disk, so that a rename never outlives what it names."""
    for path in _files(folder):
        sync(path)
    with contextlib.suppress(OSError):  # not every system opens a folder
        sync(folder)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
