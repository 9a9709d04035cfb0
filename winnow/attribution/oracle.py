r"""The one-step oracle: take the optimiser's step on one document, and measure the reference again.

    I(x) = L(ref | theta) - L(ref | AdamWStep(theta, x))        **positive = helpful**

with the checkpoint's own AdamW state, learning rate, weight decay and gradient clipping. L(ref) is the mean over
reference documents of each one's mean token loss (nats); the step is on the document's mean token loss. One step of
AdamW at step count k + 1, on the gradient g clipped to norm ``clip``:

    m' = b1 m + (1 - b1) g        v' = b2 v + (1 - b2) g^2
    theta' = (1 - eta w) theta - eta (m' / (1 - b1^(k+1))) / (sqrt(v' / (1 - b2^(k+1))) + eps)

Momentum and weight decay move theta even when g = 0, alike for every document; that share is measured once as
``drift`` = L(ref | theta) - L(ref | AdamWStep(theta, g = 0)). It changes no ranking; subtract it to ask what the
document itself did. Every step writes to new tensors and the model is called with them, so its own parameters are
never touched.

Cost: (6 document tokens + 2 reference tokens) x parameters a probe, so the size of the reference is the cost. Source:
Yu et al. 2024 (MATES), section 3.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents, tokens_used
from winnow.attribution.capture import frozen, token_losses
from winnow.attribution.influence import context_length, vocabulary_size
from winnow.attribution.scores import (
    GRADIENT_NOT_FINITE,
    INFLUENCE_NOT_FINITE,
    LOSS_NOT_FINITE,
    TOO_SHORT,
    Progress,
    Scores,
)
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdamW:
    """The training run's optimiser settings at the checkpoint; the defaults are MATES's.

    ``no_decay`` names the parameters that the run exempts from weight decay; None exempts those of one dimension
    (gains and biases), as :mod:`winnow.train` does.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    no_decay: frozenset[str] | None = None

    def decay(self, name: str, parameter: torch.Tensor) -> float:
        """Return the weight decay of one parameter."""
        exempt = parameter.ndim < 2 if self.no_decay is None else name in self.no_decay
        return 0.0 if exempt else self.weight_decay


def optimizer_state(
    step: int, exp_avg: Mapping[str, torch.Tensor], exp_avg_sq: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, Any]]:
    """Return the state by parameter name that this package takes, from a checkpoint's moments and step count."""
    return {name: {"exp_avg": exp_avg[name], "exp_avg_sq": exp_avg_sq[name], "step": step} for name in exp_avg}


class OneStepOracle:
    """Probes documents at one checkpoint.

    ``reference_loss`` is L(ref | theta), ``drift`` as above; ``reference_used`` int64: positions in ``reference_docs``
    of the documents measured, drawn by ``seed`` and their own tokens up to ``reference_tokens`` in all. ``state`` maps
    a parameter name to its exp_avg, exp_avg_sq and step; absent entries are zeros, as at the start of training.
    """

    def __init__(
        self,
        model: nn.Module,
        reference_docs: Sequence[np.ndarray],
        optimizer: AdamW,
        state: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        reference_tokens: int = 4000,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        """Measure the reference. Raises :class:`UserError` when its loss is not finite or ``state`` does not fit."""
        if device is not None:
            model.to(device)
        self.model, self.optimizer = model, optimizer
        self.context = context_length(model)
        check_documents(reference_docs, vocabulary_size(model))
        self.reference_used = _capped(reference_docs, self.context, reference_tokens, seed)
        if not len(self.reference_used):
            raise UserError("no reference document has two or more tokens; check the reference set and the tokenizer")
        measured = [reference_docs[index] for index in self.reference_used]
        self._reference = list(batches(measured, self.context, full=False))
        self._parameters = dict(model.named_parameters())
        self._state = {name: _entry(name, value, state or {}) for name, value in self._parameters.items()}
        with frozen(model):
            self.reference_loss = self._measure(self._parameters)
            if not np.isfinite(self.reference_loss):
                raise UserError("the reference loss is not finite at this checkpoint; check the checkpoint's weights")
            zeros = {name: value.new_zeros(value.shape) for name, value in self._parameters.items()}
            self.drift = self.reference_loss - self._measure(self.step(zeros))

    def probe(self, docs: Sequence[np.ndarray], progress: Progress | None = None) -> Scores:
        """Return I(x) of every document (token arrays), in the order given; each is probed from the same theta.

        A document without a finite loss, gradient or influence has none, and a reason.
        """
        check_documents(docs, vocabulary_size(self.model))
        count = len(docs)
        influence, loss = np.full(count, np.nan), np.full(count, np.nan)
        tokens = tokens_used(docs, self.context)
        reason: list[str | None] = []
        started = time.monotonic()
        with frozen(self.model):
            for index, doc in enumerate(docs):
                influence[index], loss[index], why = self._probe(np.asarray(doc)[: self.context])
                reason.append(why)
                if progress is not None:
                    progress(index + 1, count)
        seconds = time.monotonic() - started
        log.info("%d documents probed in %.1f s (%.1f a second)", count, seconds, count / max(seconds, 1e-9))
        size = sum(value.numel() for value in self._parameters.values())
        measured = sum(batch.inputs.size for batch in self._reference)
        flops = float(size) * (6.0 * float(tokens.sum()) + 2.0 * measured * count)
        lengths = np.fromiter((len(doc) for doc in docs), dtype=np.int64, count=count)
        return Scores(influence, loss, tokens, lengths > self.context, tuple(reason), flops)

    def step(self, gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return new tensors, the parameters after one AdamW step; a parameter without a gradient stays."""
        import torch

        settings, (beta1, beta2) = self.optimizer, self.optimizer.betas
        stepped: dict[str, torch.Tensor] = dict(self._parameters)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients.values()]))
            scale = (settings.clip / (norm + 1e-6)).clamp(max=1.0)
            for name, gradient in gradients.items():
                first, second, count = self._state[name]
                clipped = gradient * scale
                first = first * beta1 + clipped * (1.0 - beta1)
                second = second * beta2 + clipped.square() * (1.0 - beta2)
                root = (second / (1.0 - beta2 ** (count + 1.0))).sqrt() + settings.eps
                decay = settings.decay(name, gradient)
                rate = settings.learning_rate / (1.0 - beta1 ** (count + 1.0))
                stepped[name] = self._parameters[name] * (1.0 - settings.learning_rate * decay) - rate * first / root
        return stepped

    def gradients(self, doc: np.ndarray) -> tuple[float, dict[str, torch.Tensor]]:
        """Return the mean token loss of one document (int ``[n]``, n >= 2) and its gradient by parameter name."""
        import torch

        device = next(iter(self._parameters.values())).device
        ids = torch.from_numpy(np.array(doc, dtype=np.int64))[None].to(device)
        live = {name: value.detach().requires_grad_() for name, value in self._parameters.items()}
        with torch.enable_grad():
            logits = torch.func.functional_call(self.model, live, (ids[:, :-1],), {"use_cache": False}).logits
            loss = token_losses(logits, ids[:, 1:]).mean()
            found = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
        return float(loss.detach()), {name: g for name, g in zip(live, found, strict=True) if g is not None}

    def _probe(self, doc: np.ndarray) -> tuple[float, float, str | None]:
        import torch

        if len(doc) < 2:
            return np.nan, np.nan, TOO_SHORT
        loss, gradients = self.gradients(doc)
        if not np.isfinite(loss):
            return np.nan, loss, LOSS_NOT_FINITE
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values()):
            return np.nan, loss, GRADIENT_NOT_FINITE
        influence = self.reference_loss - self._measure(self.step(gradients))
        return (influence, loss, None) if np.isfinite(influence) else (np.nan, loss, INFLUENCE_NOT_FINITE)

    def _measure(self, parameters: Mapping[str, torch.Tensor]) -> float:
        """Return the mean over reference documents of the mean token loss, summed in float64."""
        import torch

        total = 0.0
        with torch.no_grad():
            for batch in self._reference:
                device = next(iter(parameters.values())).device
                inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
                weights = torch.from_numpy(batch.weights).to(device).double()
                logits = torch.func.functional_call(
                    self.model, dict(parameters), (inputs,), {"use_cache": False}
                ).logits
                total += float((token_losses(logits, targets).double() * weights)[: len(batch.rows)].sum())
        return total / len(self.reference_used)


def _capped(docs: Sequence[np.ndarray], context: int, limit: int, seed: int) -> np.ndarray:
    """Return the documents, in seeded order, until the next would pass ``limit`` tokens; always at least one."""
    order = canonical_order(docs, seed)
    used = tokens_used(docs, context)[order]
    order, used = order[used >= 2], used[used >= 2]
    keep = np.cumsum(used) <= limit
    keep[:1] = True
    return order[keep]


def _entry(
    name: str, parameter: torch.Tensor, state: Mapping[str, Mapping[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor, float]:
    entry = state.get(name, {})
    zeros = parameter.detach().new_zeros(parameter.shape)
    first, second = entry.get("exp_avg", zeros).to(zeros), entry.get("exp_avg_sq", zeros).to(zeros)
    if first.shape != zeros.shape or second.shape != zeros.shape:
        raise UserError(
            f"optimiser state of {name}: shape {tuple(first.shape)} but the parameter has {tuple(zeros.shape)}; "
            "give the state saved with this checkpoint"
        )
    return first, second, float(entry.get("step", 0.0))
