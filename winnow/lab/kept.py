"""A finished run and how it is kept: ``run.json`` beside ``run.safetensors`` in a folder that appears whole."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.durable import sync
from winnow.errors import UserError
from winnow.lab.measures import Cost

FACTS, ARRAYS = "run.json", "run.safetensors"


@dataclass(frozen=True, eq=False)
class RunResult:
    """What one training of the lab gave.

    ``tokens`` int64 ``[E]`` and ``losses`` float64 ``[E]``: the judging loss of the target over training, nats a token;
    ``out``: at some of these, the losses of all references and, as ``source:NAME``, of held-out documents; the last is
    at the end. ``items``: at the end, each item's loss, float64, NaN for one of a single token. ``positions`` int64
    ``[M]``: the documents chosen, in training order, as positions in the lab's pool, with their ``stages``. ``costs``
    of choosing; ``pulls`` of the bandit; ``parameters`` of the model; ``key``: the run's digest.
    """

    key: str
    preset: str
    target: str
    seed: int
    model: str
    parameters: int
    tokens: np.ndarray
    losses: np.ndarray
    out: tuple[tuple[int, dict[str, float]], ...]
    items: dict[str, np.ndarray]
    positions: np.ndarray
    stages: np.ndarray
    costs: tuple[Cost, ...]
    pulls: int

    @property
    def loss(self) -> float:
        """The judging loss at the end."""
        return float(self.losses[-1])

    @property
    def final(self) -> dict[str, float]:
        """All losses at the end, by reference and ``source:NAME``."""
        return self.out[-1][1]

    @property
    def training_flops(self) -> float:
        """Six operations a parameter and token."""
        return 6.0 * self.parameters * float(self.tokens[-1])

    def scoring_flops(self, upto: float = np.inf) -> float:
        """Operations of the choices that were made before training had read ``upto`` tokens."""
        return sum(cost.flops for cost in self.costs if cost.at_tokens < upto or cost.at_tokens == 0)

    def scoring_seconds(self) -> float:
        """Seconds of all choices."""
        return sum(cost.seconds for cost in self.costs)


def write_run(path: Path, result: RunResult) -> None:
    """Keep a run in the folder ``path``; a killed write leaves none."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        part.mkdir()
        arrays = {name: getattr(result, name) for name in ("tokens", "losses", "positions", "stages")}
        arrays |= {f"items.{name}": each for name, each in result.items.items()}
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, str(part / ARRAYS))
        facts = {
            name: getattr(result, name)
            for name in ("key", "preset", "target", "seed", "model", "parameters", "out", "pulls")
        }
        facts["costs"] = [asdict(cost) for cost in result.costs]
        (part / FACTS).write_text(json.dumps(facts, sort_keys=True) + "\n", encoding="utf-8")
        for name in (ARRAYS, FACTS):
            sync(part / name)
        if not path.exists():  # another process may have made the same run meanwhile
            part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_run(path: Path) -> RunResult | None:
    """Return the run kept in a folder, None where there is none. Raises :class:`UserError` for one that is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_dir():
        return None
    try:
        facts: dict[str, Any] = json.loads((path / FACTS).read_text(encoding="utf-8"))
        arrays = load_file(path / ARRAYS)
        facts["out"] = tuple((tokens, losses) for tokens, losses in facts["out"])
        facts["costs"] = tuple(Cost(**one) for one in facts["costs"])
        items = {name.removeprefix("items."): each for name, each in arrays.items() if name.startswith("items.")}
        facts |= {name: arrays[name] for name in ("tokens", "losses", "positions", "stages")}
        return RunResult(**facts, items=items)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: not a run of the lab ({error}); delete the folder and run again") from error


def read_runs(folder: Path) -> list[RunResult]:
    """Return every run that a lab's folder keeps, sorted by preset, target, model and seed."""
    found = [read_run(path) for path in sorted((folder / "runs").glob("[!.]*")) if path.is_dir()]
    runs = [one for one in found if one is not None]
    return sorted(runs, key=lambda one: (one.preset, one.target, one.model, one.seed, one.key))
