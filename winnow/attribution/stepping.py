r"""Steps of AdamW that can be taken back: the model's parameters in one flat buffer, beside a saved copy.

    m' = b1 m + (1 - b1) g        v' = b2 v + (1 - b2) g^2
    theta' = (1 - eta w) theta - eta (m' / (1 - b1^(k+1))) / (sqrt(v' / (1 - b2^(k+1))) + eps)

at step count k + 1, on the gradient g clipped to norm ``clip``. The steps are taken by ``torch.optim.AdamW`` itself, on
one flat tensor for every combination of weight decay and step count instead of one a parameter; going back is a copy of
theta, m and v. While :meth:`Steps.running`, the model's parameters are views of the flat buffer, in float32; afterwards
they are the caller's own tensors again, which nothing here has written to.

Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import AdamW
from winnow.attribution.batching import Batch, batches
from winnow.attribution.capture import context_length, token_losses
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


class Steps:
    """A model whose optimiser steps can be taken back.

    ``state`` maps a parameter name to its exp_avg, exp_avg_sq and step; a parameter without an entry has zeros, as at
    the start of training, and an entry without exp_avg has no momentum. A parameter that no loss depends on is never
    moved, as in training. Memory: seven floats a parameter beside the model's own (parameters and both moments twice,
    and the gradient), where training takes three.
    """

    def __init__(
        self, model: nn.Module, optimizer: AdamW, state: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Copy parameters and state. Raises :class:`UserError` when ``state`` does not fit the model."""
        import torch

        self.model, self.context = model, context_length(model)
        self._clip = optimizer.clip
        named = [(name, value) for name, value in model.named_parameters() if name in _trained(model)]
        entries = {name: _entry(name, value, (state or {}).get(name, {})) for name, value in named}
        kinds = {name: (optimizer.decay(name, value), entries[name][2]) for name, value in named}
        named.sort(key=lambda item: kinds[item[0]])
        self._own = dict(named)
        dtype = torch.promote_types(named[0][1].dtype, torch.float32)

        def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])

        self._saved = [
            flat([value for _, value in named]),
            flat([entries[name][0] for name, _ in named]),
            flat([entries[name][1] for name, _ in named]),
        ]
        self._live = [tensor.clone() for tensor in self._saved]
        self._gradient, self._norm = torch.zeros_like(self._live[0]), 0.0
        self._optimizer, self._counts = self._make(optimizer, [kinds[name] for name, _ in named])
        self._views = self._split(self._live[0])

    @property
    def size(self) -> int:
        """The number of parameters that steps move."""
        return self._live[0].numel()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._live[0].device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the model compute with the flat buffer, from the saved parameters, in evaluation mode (no dropout)."""
        training = {module: module.training for module in self.model.modules()}
        own = [(value, value.data, value.requires_grad) for value in self.model.parameters()]
        try:
            self.rewind()
            self.model.eval()
            self.model.requires_grad_(False)
            for name, value in self._own.items():
                value.data = self._views[name]
                value.requires_grad_(True)
            yield
        finally:
            for value, data, flag in own:
                value.data = data
                value.requires_grad_(flag)
            for module, mode in training.items():
                module.training = mode

    def rewind(self) -> None:
        """Go back to the saved parameters, moments and step counts."""
        for live, saved in zip(self._live, self._saved, strict=True):
            live.copy_(saved)
        for step, count in self._counts:
            step.fill_(count)

    def differentiate(self, docs: Sequence[np.ndarray]) -> float:
        """Set the gradient to that of the mean over documents of their mean token losses, and return that loss.

        Documents are int ``[n]``, n >= 2, cut to the context. The loss may be NaN or infinite, and then so may the
        gradient.
        """
        import torch

        loss, parameters = 0.0, list(self._own.values())
        for part, batch in enumerate(in_batches(docs, self.context)):
            with torch.enable_grad():
                total = _losses(self.model, batch).sum() / len(docs)
                found = torch.autograd.grad(total, parameters)
            pieces = [gradient.reshape(-1).to(self._gradient.dtype) for gradient in found]
            if part:
                self._gradient += torch.cat(pieces)
            else:
                torch.cat(pieces, out=self._gradient)
            loss += float(total.detach())
        self._norm = float(torch.linalg.vector_norm(self._gradient))
        return loss

    @property
    def gradient_is_finite(self) -> bool:
        """Whether every entry of the gradient is."""
        import torch

        # A finite norm says so; one that overflowed does not, and each entry is looked at.
        return math.isfinite(self._norm) or bool(torch.isfinite(self._gradient).all())

    def step(self, *, ascend: bool = False) -> None:
        """Clip the gradient, in place, and take one step of AdamW against it, or along it."""
        if self._norm > self._clip:
            self._gradient *= self._clip / (self._norm + 1e-6)
        for group in self._optimizer.param_groups:
            group["maximize"] = ascend
        self._optimizer.step()

    def gradients(self) -> dict[str, torch.Tensor]:
        """Return a copy of the gradient by parameter name."""
        return {name: view.clone() for name, view in self._split(self._gradient).items()}

    def set_gradients(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Set the gradient by parameter name; absent ones are zeros."""
        import torch

        for name, view in self._split(self._gradient).items():
            view.copy_(gradients[name]) if name in gradients else view.zero_()
        self._norm = float(torch.linalg.vector_norm(self._gradient))

    def parameters(self) -> dict[str, torch.Tensor]:
        """Return a copy of the stepped parameters by name."""
        return {name: view.clone() for name, view in self._views.items()}

    def _split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        views, start = {}, 0
        for name, value in self._own.items():
            views[name] = flat[start : start + value.numel()].view(value.shape)
            start += value.numel()
        return views

    def _make(
        self, settings: AdamW, kinds: Sequence[tuple[float, float]]
    ) -> tuple[torch.optim.AdamW, list[tuple[torch.Tensor, float]]]:
        """Return torch's optimiser over slices of the flat buffer, with each slice's step count."""
        import torch

        sizes: dict[tuple[float, float], int] = {}
        for kind, value in zip(kinds, self._own.values(), strict=True):
            sizes[kind] = sizes.get(kind, 0) + value.numel()
        pieces, start = [], 0
        for size in sizes.values():
            pieces.append(slice(start, start + size))
            start += size
        slices = [torch.nn.Parameter(self._live[0][piece]) for piece in pieces]
        groups = [{"params": [p], "weight_decay": decay} for p, (decay, _) in zip(slices, sizes, strict=True)]
        optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=True
        )
        counts = []
        for parameter, piece, (_, count) in zip(slices, pieces, sizes, strict=True):
            parameter.grad = self._gradient[piece]
            step = torch.tensor(count, dtype=torch.float32, device=parameter.device)
            counts.append((step, count))
            optimizer.state[parameter] = {
                "step": step,
                "exp_avg": self._live[1][piece],
                "exp_avg_sq": self._live[2][piece],
            }
        return optimizer, counts


def in_batches(docs: Sequence[np.ndarray], context: int) -> list[Batch]:
    """Return documents (int ``[n]``) in batches, those of fewer than two tokens in none; one alone has no padding."""
    if len(docs) != 1:
        return list(batches(docs, context, full=False))
    ids = np.asarray(docs[0], dtype=np.int64)[None, :context]
    count = ids.shape[1] - 1
    weights = np.full((1, count), 1.0 / max(count, 1), dtype=np.float32)
    return [Batch(np.zeros(1, dtype=np.int64), ids[:, :-1], ids[:, 1:], weights)] if count > 0 else []


def document_losses(model: nn.Module, batched: Sequence[Batch], count: int) -> np.ndarray:
    """Return float64 ``[count]``: the mean token loss of every document of the batches, NaN for those in none."""
    import torch

    result = np.full(count, np.nan)
    with torch.inference_mode():
        for batch in batched:
            result[batch.rows] = _losses(model, batch)[: len(batch.rows)].cpu().numpy()
    return result


def _losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return float64 ``[B]``: each row's weighted token losses, summed."""
    import torch

    device = next(model.parameters()).device
    inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
    logits = model(input_ids=inputs, use_cache=False).logits
    return (token_losses(logits, targets).double() * torch.from_numpy(batch.weights).to(device)).sum(dim=1)


def _trained(model: nn.Module) -> set[str]:
    """Return the names of the parameters that a loss depends on."""
    import torch

    values = dict(model.named_parameters())
    flags = {name: value.requires_grad for name, value in values.items()}
    training = {module: module.training for module in model.modules()}
    try:
        model.eval().requires_grad_(True)
        with torch.enable_grad():
            ids = torch.zeros((1, 2), dtype=torch.int64, device=next(iter(values.values())).device)
            logits = model(input_ids=ids, use_cache=False).logits
            found = torch.autograd.grad(logits.sum(), list(values.values()), allow_unused=True)
    finally:
        for name, value in values.items():
            value.requires_grad_(flags[name])
        for module, mode in training.items():
            module.training = mode
    return {name for name, gradient in zip(values, found, strict=True) if gradient is not None}


def _entry(name: str, parameter: torch.Tensor, entry: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, float]:
    if entry and "exp_avg_sq" not in entry:
        raise UserError(f"optimiser state of {name} has no exp_avg_sq; steps are AdamW's, give the state of one")
    zeros = parameter.detach().new_zeros(parameter.shape)
    first, second = entry.get("exp_avg", zeros), entry.get("exp_avg_sq", zeros)
    if first.shape != zeros.shape or second.shape != zeros.shape:
        raise UserError(
            f"optimiser state of {name}: shape {tuple(first.shape)} but the parameter has {tuple(zeros.shape)}; "
            "give the state saved with this checkpoint"
        )
    return first.to(zeros.device), second.to(zeros.device), float(entry.get("step", 0.0))
