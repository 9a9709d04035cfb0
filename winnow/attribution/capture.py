r"""Per-example gradients of linear layers from one backward pass.

For a linear layer y = W x and one document with inputs a_t in R^I and output gradients d_t in R^O (t over positions),
the gradient of the document's loss with respect to W is

    G = sum_t d_t a_t^T          [O, I],

so a layer's inputs and output gradients hold every document's own gradient, though they come from one backward
pass of the loss *summed* over documents (no term of the sum touches another document's row).
**A document's loss is the mean over its predicted tokens**, since budgets are counted in tokens; hence d carries the
factor 1 / predicted tokens. Biases, normalisation gains and embeddings are not attributed.

Weight gradients are never computed: parameters do not require gradients here; the outputs of the chosen layers do, so
the backward pass stops at the first of them. Attention runs the eager (matrix product) kernel and dropout is off; with
the shapes of :mod:`winnow.attribution.batching` a document's captured bits do not depend on the documents beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import Batch
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

SCOPES = ("blocks", "attention", "mlp", "head", "all")
_BLOCK = re.compile(r"(^|\.)(layers|h|blocks|block|layer)\.\d+\.(?P<inside>.+)$")
_ATTENTION = re.compile(r"attn|attention")


@dataclass(frozen=True)
class Captured:
    """Layer inputs and output gradients of one batch; rows of a batch that are no usable document are zero.

    ``inputs[name]`` float32 ``[B, T, I]``, ``gradients[name]`` float32 ``[B, T, O]``, both zero where ``mask`` (bool
    ``[B, T]``) is false; ``losses`` float64 ``[R]``: each document's mean token loss (nats), NaN or infinite as the
    model gave it; ``usable`` bool ``[R]``: loss and gradients are finite.
    """

    inputs: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    mask: torch.Tensor
    losses: torch.Tensor
    usable: torch.Tensor


def linear_sites(model: nn.Module, scope: str = "blocks") -> dict[str, nn.Module]:
    """Return the linear layers (``nn.Linear``, GPT-2's ``Conv1D``) of a parameter scope, by name, in the model's order.

    ``scope``: ``blocks`` (every linear layer inside decoder blocks: q, k, v, o and the MLP), ``attention`` or ``mlp``
    (that half of the blocks), ``head`` (the layer that gives the logits), ``all`` (blocks and head), or else a regular
    expression searched in the layers' names. Raises :class:`UserError` when nothing matches.
    """
    linears = {name: module for name, module in model.named_modules() if _is_linear(module)}
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head is not None else None
    sites = {name: module for name, module in linears.items() if _in_scope(name, module, head, scope)}
    if not sites:
        raise UserError(
            f"scope '{scope}' matches no linear layer of {type(model).__name__}; use one of {', '.join(SCOPES)} "
            f"or a regular expression over names such as {', '.join(list(linears)[:3]) or '(it has none)'}"
        )
    return sites


def _in_scope(name: str, module: nn.Module, head: nn.Module | None, scope: str) -> bool:
    if scope not in SCOPES:
        return re.search(scope, name) is not None
    block = _BLOCK.search(name)
    if scope in ("head", "all") and module is head:
        return True
    if block is None or scope == "head":
        return False
    return scope in ("blocks", "all") or (scope == "attention") == bool(_ATTENTION.search(block["inside"]))


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def gradient_shape(module: nn.Module) -> tuple[int, int]:
    """Return (O, I), the shape of a layer's gradient here, whichever way round the layer stores its weight."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode with eager attention and parameters that need no gradient, then restore it."""
    training = {name: module.training for name, module in model.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    config = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    try:
        if attention not in (None, "eager"):
            model.set_attn_implementation("eager")  # type: ignore[operator]
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        if attention not in (None, "eager"):
            model.set_attn_implementation(attention)  # type: ignore[operator]
        for name, module in model.named_modules():
            module.training = training[name]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])


class Capture:
    """Runs batches through a model and keeps what its chosen linear layers saw; see :func:`capturing`."""

    def __init__(self, model: nn.Module, scope: str) -> None:
        self.model = model
        self.sites = linear_sites(model, scope)
        self.device = next(model.parameters()).device
        self._seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, batch: Batch, draws: np.ndarray | None = None) -> Captured:
        """Run one forward and one backward pass over a batch of ``R`` documents.

        With ``draws`` (float64 ``[B, T]``, uniform in [0, 1)) the labels of the gradients are sampled from the model's
        own predictions by inverting their cumulative distribution (the true Fisher); without, they are the text's.
        ``losses`` are those of the labels used.
        """
        import torch

        self._seen.clear()
        weights = torch.from_numpy(batch.weights).to(self.device)
        with torch.enable_grad():
            logits = self.model(input_ids=torch.from_numpy(batch.inputs).to(self.device), use_cache=False).logits
            labels = torch.from_numpy(batch.targets).to(self.device)
            if draws is not None:
                labels = _sample(logits.detach(), torch.from_numpy(draws).to(self.device))
            losses = token_losses(logits, labels)
            outputs = [output for _, output in self._seen.values()]
            gradients = torch.autograd.grad((losses * weights).sum(), outputs)
        mean_losses = (losses.detach().double() * weights.double()).sum(dim=1)[: len(batch.rows)]
        captured = _captured(self._seen, gradients, weights > 0, mean_losses)
        self._seen.clear()
        return captured

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if name in self._seen:
                raise UserError(f"layer {name} runs twice in one forward pass; leave it out of the scope")
            if not output.requires_grad:
                output.requires_grad_()
            self._seen[name] = (arguments[0], output)
            return output

        return keep


@contextmanager
def capturing(model: nn.Module, scope: str = "blocks") -> Iterator[Capture]:
    """Yield a :class:`Capture` over the model's linear layers in ``scope``; hooks and flags are undone at the end."""
    capture = Capture(model, scope)
    handles = []
    with frozen(model):
        try:
            for name, module in capture.sites.items():
                handles.append(module.register_forward_hook(capture._hook(name)))
            yield capture
        finally:
            for handle in handles:
                handle.remove()


def _captured(
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]],
    gradients: tuple[torch.Tensor, ...],
    mask: torch.Tensor,
    losses: torch.Tensor,
) -> Captured:
    import torch

    def hide(tensors: dict[int, torch.Tensor], hidden: torch.Tensor) -> dict[int, torch.Tensor]:
        # Filled before anything is summed over positions or documents: zero times infinity is not zero.
        return {key: tensor.detach().masked_fill(hidden[:, :, None], 0.0) for key, tensor in tensors.items()}

    # q, k and v read one tensor, as do gate and up: keyed by identity, it is handled once.
    inputs = hide({id(given): given for given, _ in seen.values()}, ~mask)
    outputs = hide(dict(enumerate(gradients)), ~mask)
    rows = len(losses)
    usable = torch.isfinite(losses)
    for tensor in (*inputs.values(), *outputs.values()):
        usable &= torch.isfinite(tensor[:rows].sum(dim=(1, 2)))
    if not bool(usable.all()):
        mask = mask.clone()
        mask[:rows][~usable] = False
        inputs, outputs = hide(inputs, ~mask), hide(outputs, ~mask)
    return Captured(
        inputs={name: inputs[id(given)] for name, (given, _) in seen.items()},
        gradients=dict(zip(seen, outputs.values(), strict=True)),
        mask=mask,
        losses=losses,
        usable=usable,
    )


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy in nats, float32 ``[B, T]``, of logits ``[B, T, V]`` against labels int64 ``[B, T]``."""
    from torch.nn import functional

    flat = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def _sample(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    import torch

    cumulative = torch.softmax(logits.float(), dim=-1).cumsum(dim=-1)
    threshold = draws.to(cumulative.dtype)[:, :, None] * cumulative[:, :, -1:]
    labels = torch.searchsorted(cumulative, threshold, right=True)[:, :, 0]
    return labels.clamp(max=logits.shape[-1] - 1)
