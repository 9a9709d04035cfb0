"""Trainings of the lab: one model a preset, target, seed and size, all from one checkpoint and on as many tokens.

A run is named by the digest of all that it depends on, and is kept when it is done: what was interrupted goes on where
it was, and what is asked for again is read. Presets of several stages choose anew with the model as it is by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.errors import UserError
from winnow.identity import digest, seeded_keys
from winnow.lab.choosing import Chosen, choose
from winnow.lab.kept import RunResult, read_run, write_run
from winnow.lab.measures import World
from winnow.lab.pool import LabPool, hold_out
from winnow.lab.states import State, state_of, warm_up
from winnow.lab.targets import Target, holding, require_apart
from winnow.presets import Preset
from winnow.train.loop import TrainSettings
from winnow.train.model import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

VERSION = "1"
STAGE_SEEDS = 7919
"""Apart from one stage to the next: a later stage draws anew."""


@dataclass(frozen=True)
class LabSettings:
    """How models are trained and measured; all presets alike.

    ``tokens`` of a run, after a warm-up on ``warm_tokens`` of random documents that no preset may choose again. The
    judging loss is taken every ``eval_tokens``, the losses out of domain at every ``out_every``-th of these and at the
    end, on ``held_out`` documents of each source. ``seed`` of warm-up and held-out documents.
    """

    tokens: int = 1_000_000
    warm_tokens: int = 300_000
    warm_lr: float = 3e-3
    lr: float = 2e-3
    batch_windows: int = 8
    eval_tokens: int = 50_000
    out_every: int = 5
    held_out: int = 24
    seed: int = 0

    def training(self, seed: int = 0) -> TrainSettings:
        """Return the settings of the runs: a constant rate, so that every point of a curve can be compared."""
        return TrainSettings(self.lr, 0, self.batch_windows, "constant", seed=seed, dtype="float32")

    def warming(self) -> TrainSettings:
        """Return the settings of the warm-up."""
        return TrainSettings(self.warm_lr, 40, self.batch_windows, "constant", seed=self.seed, dtype="float32")


@dataclass(frozen=True)
class Request:
    """A run to be made: a preset, a target and a model by name, and the seed of choice and order."""

    preset: Preset
    target: str
    seed: int = 0
    model: str = "lab"


@dataclass(frozen=True, eq=False)
class Lab:
    """A pool without its held-out documents, targets that share nothing with it, models, and a folder for the runs.

    ``held_out``: by source, token arrays of documents that nobody may choose; ``warm_rows`` int64: documents of the
    warm-up, which no preset may choose either; made by :func:`open_lab`.
    """

    pool: LabPool
    targets: dict[str, Target]
    held_out: dict[str, tuple[np.ndarray, ...]]
    warm_rows: np.ndarray
    models: dict[str, ModelConfig]
    settings: LabSettings
    folder: Path
    eos: int = 0

    def warm(self, model: str) -> State:
        """Return the checkpoint that all runs of a model size start from, made when it is first asked for."""
        settings = self.settings
        with one_thread():
            return warm_up(
                self.folder, self.pool, self.warm_rows, self._config(model), settings.warming(), settings.warm_tokens,
                self.eos,
            )  # fmt: skip

    @property
    def available(self) -> np.ndarray:
        """Which documents may be chosen, bool ``[N]``."""
        free = np.ones(len(self.pool), dtype=np.bool_)
        free[self.warm_rows] = False
        return free

    def key(self, request: Request, warm: str) -> str:
        """Return the digest of all that a run depends on; ``warm`` that of the checkpoint."""
        if request.target not in self.targets:
            raise UserError(f"lab: no reference '{request.target}'; there are {', '.join(self.targets)}")
        return digest([
            VERSION, self._inputs, request.preset.record(), request.target, request.seed, warm, asdict(self.settings),
        ])  # fmt: skip

    @cached_property
    def _inputs(self) -> list[Any]:
        held_out = {name: [len(one) for one in tokens] for name, tokens in self.held_out.items()}
        targets = {name: target.digest for name, target in self.targets.items()}
        return [self.pool.digest, targets, held_out, self.eos]

    def _config(self, model: str) -> ModelConfig:
        if model not in self.models:
            raise UserError(f"lab: no model '{model}'; there are {', '.join(self.models)}")
        return self.models[model]


def open_lab(
    pool: LabPool,
    targets: Sequence[Target],
    models: Mapping[str, ModelConfig],
    settings: LabSettings,
    folder: Path,
    eos: int = 0,
) -> Lab:
    """Set documents aside for losses out of domain and for the warm-up, and check that nothing leaks.

    Raises :class:`UserError` when a target shares text with the pool, or the pool is too small for the tokens asked.
    """
    for target in targets:
        require_apart(pool, target)
    left, drawn = hold_out(pool, settings.held_out, settings.seed)
    held = np.flatnonzero(~left)
    if len(held):
        left &= ~holding(pool, pool.texts[held].tolist())
    context = max(config.context for config in models.values())
    held_out = {
        source: tuple(tokens[:context] for tokens in pool.tokens[rows] if len(tokens) > 1)
        for source, rows in drawn.items()
    }
    pool = pool.take(left)
    order = np.argsort(seeded_keys(pool.doc_ids, settings.seed, "lab:warm-up"), kind="stable")
    upto = int(np.searchsorted(np.cumsum(pool.lengths[order]), settings.warm_tokens)) + 1
    free = int(pool.lengths[order[upto:]].sum())
    if free < settings.tokens:
        raise UserError(
            f"lab: {free:,} tokens are left to choose from, and a run reads {settings.tokens:,}; add documents or ask "
            "for fewer tokens"
        )
    return Lab(pool, {one.name: one for one in targets}, held_out, order[:upto], dict(models), settings, folder, eos)


def run(lab: Lab, request: Request) -> RunResult:
    """Return a run, made now on one thread or read from the lab's folder."""
    warm = lab.warm(request.model)
    key = lab.key(request, warm.digest)
    path = lab.folder / "runs" / key[:24]
    if (found := read_run(path)) is not None:
        return found
    with one_thread():
        result = _Training(lab, request, warm, key).run()
    write_run(path, result)
    log.info("%s on %s, seed %d: loss %.4f", result.preset, result.target, result.seed, result.losses[-1])
    return result


def run_all(
    lab: Lab,
    requests: Sequence[Request],
    workers: int = 1,
    progress: Callable[[int, int, Request, RunResult | str], None] | None = None,
) -> tuple[list[RunResult], dict[str, str]]:
    """Make or read runs, ``workers`` processes of one thread each; their number changes no bit.

    Returns the results in the order of the requests, and the messages of those that cannot be made, by name:
    a preset that fails is told, and the others go on.
    """
    for model in dict.fromkeys(request.model for request in requests):
        lab.warm(model)  # before the workers: one of them makes it, not all
    found: dict[int, RunResult] = {}
    failed: dict[str, str] = {}
    for done, (place, result) in enumerate(_made(lab, requests, workers), 1):
        request = requests[place]
        if isinstance(result, str):
            failed[f"{request.preset.name} on {request.target}, seed {request.seed}, {request.model}"] = result
        else:
            found[place] = result
        if progress is not None:
            progress(done, len(requests), request, result)
    return [found[place] for place in sorted(found)], failed


def _made(lab: Lab, requests: Sequence[Request], workers: int) -> Iterator[tuple[int, RunResult | str]]:
    if workers <= 1 or len(requests) <= 1:
        for place, request in enumerate(requests):
            yield place, _attempt(lab, request)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Spawned: a forked child of a process that has computed with threads may wait for them for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(requests)), context, _take_lab, (lab,)) as pool:
        waiting = {pool.submit(_attempt_here, request): place for place, request in enumerate(requests)}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


_lab: Lab | None = None


def _take_lab(lab: Lab) -> None:
    global _lab
    _lab = lab


def _attempt_here(request: Request) -> RunResult | str:
    if _lab is None:
        raise RuntimeError("a worker of the lab was given none")
    return _attempt(_lab, request)


def _attempt(lab: Lab, request: Request) -> RunResult | str:
    try:
        return run(lab, request)
    except UserError as error:
        return str(error)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: models this small are not faster with two, and sums round alike."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(eq=False)
class _Training:
    """One run under way."""

    lab: Lab
    request: Request
    warm: State
    key: str
    curve: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    out: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def run(self) -> RunResult:
        from winnow.train.loop import train

        lab, preset, settings = self.lab, self.request.preset, self.lab.settings
        context, total = self.warm.config.context, lab.settings.tokens // self.warm.config.context
        state, model = self.warm, self.warm.model()
        checkpoints = [state.checkpoint(settings.warming(), "warm-up")]
        available, read, costs = lab.available, 0, []
        chosen_all: list[Chosen] = []
        for stage in range(preset.stages):
            windows = (stage + 1) * total // preset.stages - stage * total // preset.stages
            world = World(
                lab.pool, lab.targets[self.request.target], tuple(checkpoints), available,
                self.request.seed + STAGE_SEEDS * stage,
            )  # fmt: skip
            chosen = choose(world, preset, windows * context)
            costs += [replace(cost, at_tokens=read) for cost in chosen.costs]
            chosen_all.append(chosen)
            packed, weights = pack_chosen(lab.pool, chosen, context, lab.eos, windows)
            rows: list[tuple[float, dict[str, float] | None]] = []
            result = train(
                model, packed, settings.training(self.request.seed), state.optimizer,
                partial(self._evaluate, rows), settings.eval_tokens,
                weights=weights, reweigh=reweighing(preset.weights),
            )  # fmt: skip
            # A later stage begins where the one before ended: its first point is there already.
            points = list(zip([tokens for tokens, _ in result.curve], rows, strict=True))[1 if stage else 0 :]
            self.curve += [read + tokens for tokens, _ in points]
            self.losses += [loss for _, (loss, _) in points]
            self.out += [(read + tokens, out) for tokens, (_, out) in points if out is not None]
            read += result.tokens
            state = state_of(model, self.warm.config, result.optimizer_state, self.warm.tokens + read, settings.lr)
            checkpoints.append(state.checkpoint(settings.training(), f"stage-{stage}"))
            if not preset.replace:
                available = available.copy()
                available[chosen.positions] = False
        measured = {name: self._loss(model, tokens) for name, tokens in self._measured().items()}
        ended = (read, {name: mean for name, (mean, _) in measured.items()})
        items = {name: each for name, (_, each) in measured.items()}
        return RunResult(
            key=self.key,
            preset=preset.name,
            target=self.request.target,
            seed=self.request.seed,
            model=self.request.model,
            parameters=self.warm.config.parameters,
            tokens=np.array(self.curve, dtype=np.int64),
            losses=np.array(self.losses),
            out=(*(one for one in self.out if one[0] < read), ended),
            items=items,
            positions=np.concatenate([one.positions for one in chosen_all]),
            stages=np.concatenate([np.full(len(one.positions), place) for place, one in enumerate(chosen_all)]),
            costs=tuple(costs),
            pulls=sum(len(one.ledger) for one in chosen_all),
        )

    def _measured(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Return what losses are taken on: the judging part of every target, and the held-out documents by source."""
        targets = {name: target.judging_tokens for name, target in self.lab.targets.items()}
        return targets | {f"source:{name}": tokens for name, tokens in self.lab.held_out.items()}

    def _evaluate(self, rows: list[tuple[float, dict[str, float] | None]], model: PreTrainedModel) -> float:
        """Note the judging loss and, now and then, the losses out of domain."""
        losses = None
        if len(rows) % self.lab.settings.out_every == 0:
            losses = {name: self._loss(model, tokens)[0] for name, tokens in self._measured().items()}
        own = (
            self._loss(model, self.lab.targets[self.request.target].judging_tokens)[0]
            if losses is None
            else (losses[self.request.target])
        )
        rows.append((own, losses))
        return own

    def _loss(self, model: PreTrainedModel, items: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        from winnow.train.evaluate import evaluate_loss

        found = evaluate_loss(model, items, self.warm.config.context, all_windows=False)
        return found.mean, found.per_item


def pack_chosen(
    pool: LabPool, chosen: Chosen, context: int, eos: int, windows: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the training windows int32 ``[windows, context]`` and their tokens' weights, None where all are 1.

    Raises :class:`UserError` when the documents do not fill the windows.
    """
    from winnow.train.batches import pack

    packed = pack(pool.tokens[chosen.positions], context, eos)[:windows]
    if len(packed) < windows or (packed[-1:] < 0).any():
        raise UserError(
            f"the choice has {chosen.tokens(pool.lengths):,} tokens, a run reads {windows * context:,}; its method "
            "within the arms admits too few documents: loosen it"
        )
    if (chosen.weights == 1.0).all():
        return packed, None
    each = np.repeat(chosen.weights, pool.lengths[chosen.positions])[: windows * context]
    return packed, each.astype(np.float32).reshape(windows, context)


def reweighing(weights: Mapping[str, Any] | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what weighs a step's windows by their own losses, from step ``from_step`` on; None where nothing does."""
    if weights is None or "strategy" not in weights:
        return None
    from winnow.quality.scorers.loss_weights import loss_weights

    steps = 0

    def reweigh(losses: np.ndarray) -> np.ndarray:
        nonlocal steps
        steps += 1
        if steps <= int(weights.get("from_step", 0)):
            return np.full(len(losses), 1.0 / max(1, len(losses)))
        return loss_weights(losses, weights["strategy"], float(weights.get("temperature", 0.4)))

    return reweigh
