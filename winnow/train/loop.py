"""The training loop: AdamW over packed windows in the given order, repeatable to the bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from winnow.errors import UserError
from winnow.forward import resolve_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Schedule = Literal["wsd", "cosine", "constant"]


@dataclass(frozen=True)
class TrainSettings:
    """How to train; ``dtype`` is that of the matrix products, weights and moments are always float32.

    The schedule runs over ``total_steps`` (None: ``first_step`` plus the steps of this call), of which this call
    begins at ``first_step``: a run cut in two follows the schedule of the whole. After a linear warm-up of
    ``warmup_steps``, ``constant`` stays at ``lr``, ``cosine`` falls to a tenth of it, and ``wsd`` (warm-up, stable,
    decay) falls linearly to zero over the last ``decay_fraction`` of all steps.
    """

    lr: float = 3e-3
    warmup_steps: int = 20
    batch_windows: int = 4
    schedule: Schedule = "wsd"
    decay_fraction: float = 0.2
    first_step: int = 0
    total_steps: int | None = None
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0
    seed: int = 0
    dtype: str = "auto"

    def validate(self) -> None:
        """Raise UserError on settings that cannot train."""
        if not self.lr > 0:
            raise UserError(f"train lr = {self.lr} does not train; set it above 0")
        if self.batch_windows < 1:
            raise UserError(f"train batch_windows = {self.batch_windows} is too small; set it to at least 1")
        if self.schedule not in ("wsd", "cosine", "constant"):
            raise UserError(f"train schedule '{self.schedule}' is unknown; set it to wsd, cosine or constant")
        if not 0 <= self.decay_fraction <= 1:
            raise UserError(f"train decay_fraction = {self.decay_fraction} is no fraction; set it within 0 and 1")

    def record(self, steps: int, total_steps: int) -> dict[str, Any]:
        """Return what a checkpoint says of its optimizer after ``steps`` steps of this call, as JSON.

        ``learning_rate`` is that of the last step, ``schedule`` where the run stands in it.
        """
        done = self.first_step + steps
        return {
            "learning_rate": learning_rate(self, max(self.first_step, done - 1), total_steps),
            "betas": list(self.betas),
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
            "clip": self.clip,
            "schedule": {
                "name": self.schedule,
                "peak": self.lr,
                "step": done,
                "total_steps": total_steps,
                "warmup_steps": self.warmup_steps,
                "decay_fraction": self.decay_fraction,
            },
        }


@dataclass(frozen=True)
class AdamWState:
    """AdamW's memory by parameter name: steps taken, mean gradient and mean squared gradient, float32."""

    step: int
    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainResult:
    """What training did: steps and tokens read, the loss of each step, ``curve`` of (tokens, evaluated loss).

    ``optimizer``: its settings and place in the schedule at the end, see :meth:`TrainSettings.record`.
    """

    steps: int
    tokens: int
    curve: list[tuple[int, float]]
    train_losses: list[float]
    optimizer_state: AdamWState
    optimizer: dict[str, Any]
    seconds: float


def learning_rate(settings: TrainSettings, step: int, total_steps: int) -> float:
    """Return the learning rate of a step (counted from 0) of ``total_steps``.

    Source: cosine, Loshchilov and Hutter 2017, section 3; wsd, Hu et al. 2024 (MiniCPM), section 4.2.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "cosine":
        progress = (step - warmup) / max(1, total_steps - warmup)
        return settings.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress))))
    if settings.schedule == "wsd":
        decay = max(1, round(settings.decay_fraction * total_steps)) if settings.decay_fraction else 0
        return settings.lr * min(1.0, max(0.0, (total_steps - step) / (decay + 1)) if decay else 1.0)
    return settings.lr


def train(
    model: PreTrainedModel,
    windows: np.ndarray,
    settings: TrainSettings,
    optimizer_state: AdamWState | None = None,
    evaluate: Callable[[PreTrainedModel], float] | None = None,
    eval_every_tokens: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    weights: np.ndarray | None = None,
    reweigh: Callable[[np.ndarray], np.ndarray] | None = None,
) -> TrainResult:
    """Train a model in place, once over ``windows`` (int32 ``[W, context]``, -1 = nothing) in their order.

    A step reads ``batch_windows`` windows and lowers the mean loss of their predicted tokens (the first of a window is
    only read). Matrices decay, vectors do not. ``evaluate`` is called before the first step, every
    ``eval_every_tokens`` (0: not in between) and at the end. ``progress`` gets (tokens read, all tokens, tokens a
    second). With the same number of threads, a rerun gives the same bits. Weights are brought to float32.

    ``weights`` float32 ``[W, context]``, one a token of ``windows``: a step lowers the weighted mean of its losses.
    ``reweigh`` maps the mean losses of a step's windows, float64 ``[B]``, to their weights ``[B]``, at least 0 and sum
    1, held constant in the step. They do not come together.
    Raises UserError when the loss is not finite.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """
    import torch

    settings.validate()
    model.float().train()
    optimizer = _optimizer(model, settings, optimizer_state)
    size = settings.batch_windows
    steps = -(-len(windows) // size)
    total_steps = settings.total_steps or settings.first_step + steps
    total_tokens = int((windows >= 0).sum())
    autocast = resolve_dtype(settings.dtype) == "bfloat16"
    tokens, evaluated, losses = 0, 0, []
    curve = [] if evaluate is None else [(0, evaluate(model))]
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, settings.first_step + step, total_steps)
            batch = windows[step * size : (step + 1) * size]
            model.train()
            own = None if weights is None else torch.from_numpy(weights[step * size : (step + 1) * size])
            loss = _loss(model, torch.from_numpy(batch.astype(np.int64)), autocast, own, reweigh)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise UserError(f"training: the loss is {losses[-1]} at step {step}; lower lr (now {settings.lr})")
            tokens += int((batch >= 0).sum())
            if evaluate is not None and (step == steps - 1 or 0 < eval_every_tokens <= tokens - evaluated):
                curve.append((tokens, evaluate(model)))
                evaluated = tokens
            if progress is not None:
                progress(tokens, total_tokens, tokens / (time.perf_counter() - start))
    seconds = time.perf_counter() - start
    logger.info("trained %d steps on %d tokens, %.0f tokens/s", steps, tokens, tokens / max(seconds, 1e-9))
    state = _state(model, optimizer, optimizer_state)
    return TrainResult(steps, tokens, curve, losses, state, settings.record(steps, total_steps), seconds)


def _loss(
    model: PreTrainedModel,
    ids: torch.Tensor,
    autocast: bool,
    weights: torch.Tensor | None,
    reweigh: Callable[[np.ndarray], np.ndarray] | None,
) -> torch.Tensor:
    """Return the mean nats of the predicted tokens of ``ids`` int64 ``[B, context]``, 0 where there are none."""
    import torch

    labels = ids[:, 1:].flatten()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids.clamp(min=0), use_cache=False).logits[:, :-1]
    nats = logits.flatten(0, 1).float()
    if weights is None and reweigh is None:
        total = torch.nn.functional.cross_entropy(nats, labels, ignore_index=-1, reduction="sum")
        return total / max(1, int((labels >= 0).sum()))
    each = torch.nn.functional.cross_entropy(nats, labels, ignore_index=-1, reduction="none")
    if weights is not None:
        own = weights[:, 1:].flatten() * (labels >= 0)
        return (each * own).sum() / own.sum().clamp(min=1e-12)
    rows = each.view(len(ids), -1).sum(dim=1) / (labels.view(len(ids), -1) >= 0).sum(dim=1).clamp(min=1)
    assert reweigh is not None
    return (rows * torch.from_numpy(reweigh(rows.detach().double().numpy())).to(rows)).sum()


def _optimizer(model: PreTrainedModel, settings: TrainSettings, state: AdamWState | None) -> torch.optim.AdamW:
    import torch

    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    if state is None:
        return optimizer
    if missing := {name for name, _ in named} ^ set(state.exp_avg):
        raise UserError(
            f"optimizer state: {len(missing)} parameters differ from the model's, such as '{min(missing)}'; "
            "train on from the checkpoint the state was saved with, or without a state"
        )
    for name, parameter in named:
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": state.exp_avg[name].detach().clone().float(),
            "exp_avg_sq": state.exp_avg_sq[name].detach().clone().float(),
        }
    return optimizer


def _state(model: PreTrainedModel, optimizer: torch.optim.AdamW, before: AdamWState | None) -> AdamWState:
    import torch

    step, first, second = before.step if before else 0, {}, {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            state = optimizer.state.get(parameter, {})
            step = int(state.get("step", step))
            first[name] = state.get("exp_avg", torch.zeros_like(parameter)).detach().clone()
            second[name] = state.get("exp_avg_sq", torch.zeros_like(parameter)).detach().clone()
    return AdamWState(step, first, second)
