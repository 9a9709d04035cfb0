r"""Per-document gradients of any parameters of a causal language model, from one backward pass.

For a linear layer y = W x and one document with inputs a_t in R^I and output gradients d_t in R^O (t over positions),
the gradient of the document's loss with respect to W is

    G = sum_t d_t a_t^T          [O, I],

so a layer's inputs and output gradients hold every document's own gradient, though they come from one backward
pass of the loss *summed* over documents (no term of the sum touches another document's positions). Embeddings, tied
heads and normalisations likewise (:mod:`winnow.attribution.ghost`).
**A document's loss is the mean over its predicted tokens**, since budgets are counted in tokens; hence d carries the
factor 1 / predicted tokens.

Weight gradients are never computed: parameters do not require gradients here; the outputs of the chosen layers do, so
the backward pass stops at the first of them. Dropout is off. With the shapes of :mod:`winnow.attribution.batching` a
document's captured bits do not depend on the documents beside it. In a packed window (several documents in a row)
attention sees a document's own positions only, and its positions count from zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import Batch
from winnow.attribution.ghost import LinearGradients, SiteGradients
from winnow.attribution.passes import Pass, Visit, by_document
from winnow.attribution.sites import Site, find_sites
from winnow.errors import UserError
from winnow.forward import resolve_dtype

if TYPE_CHECKING:
    import torch
    from torch import nn

_CACHED = 1 << 18  # logits in work at once on a processor: 1 MiB


@dataclass(frozen=True)
class Captured:
    """What the sites saw in one batch of R documents; rows that are no usable document are zero.

    ``sites[name]``: gradients of B rows (B = R in packed batches, else at least R, the documents first); ``mask`` bool
    ``[B, T]``: positions that count; ``losses`` float64 ``[R]``: each document's mean token loss (nats), NaN or
    infinite as the model gave it; ``usable`` bool ``[R]``: loss and gradients are finite.
    """

    sites: dict[str, SiteGradients]
    mask: torch.Tensor
    losses: torch.Tensor
    usable: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """``[B, T, I]`` by name of the linear layers, zero where ``mask`` is false."""
        return {name: site.inputs for name, site in self.sites.items() if isinstance(site, LinearGradients)}

    @property
    def gradients(self) -> dict[str, torch.Tensor]:
        """Output gradients ``[B, T, O]`` by name of the linear layers, zero where ``mask`` is false."""
        return {name: site.gradients for name, site in self.sites.items() if isinstance(site, LinearGradients)}


class Capture:
    """Runs batches through a model and hands out the gradients of its sites; see :func:`capturing`."""

    def __init__(self, model: nn.Module, sites: dict[str, Site], dtype: str = "float32") -> None:
        self.model = model
        self.sites = sites
        self.dtype = dtype
        self.device = next(model.parameters()).device
        self._pass: Pass | None = None

    def run(self, batch: Batch, draws: np.ndarray | None = None) -> Captured:
        """Run one forward and one backward pass over a batch of ``R`` documents and keep every site's gradients.

        With ``draws`` (float64 ``[B, T]``, uniform in [0, 1)) the labels of the gradients are sampled from the model's
        own predictions by inverting their cumulative distribution (the true Fisher); without, they are the text's.
        ``losses`` are those of the labels used.
        """
        import torch

        found: dict[str, SiteGradients] = {}
        losses = self.stream(batch, lambda site, gradients: found.__setitem__(site.name, gradients), draws, hide=True)
        mask = by_document(batch, torch.from_numpy(batch.weights > 0).to(self.device))
        usable = torch.isfinite(losses)
        for gradients in found.values():
            usable &= gradients.finite()[: len(losses)]
        if not bool(usable.all()):
            mask[: len(losses)][~usable] = False
            kept = torch.ones(len(mask), dtype=torch.bool, device=self.device)
            kept[: len(losses)] = usable
            found = {name: gradients.kept(kept) for name, gradients in found.items()}
        return Captured({name: found[name] for name in self.sites}, mask, losses, usable)

    def stream(
        self,
        batch: Batch,
        visit: Visit,
        draws: np.ndarray | None = None,
        *,
        hide: bool = False,
        in_parts: bool = False,
    ) -> torch.Tensor:
        """Run one forward and one backward pass; give each site's gradients to ``visit`` and free them.

        Returns the documents' losses, float64 ``[R]``. A document whose gradients are not finite has values that are
        not finite in its own row and in no other. ``hide`` sets inputs to zero at positions that do not count, for
        products of inputs alone; output gradients are zero there already. ``in_parts`` gives the two uses of a tied
        weight one by one, for products that may be added: the head's are not held until the embedding's come.
        """
        import torch

        weights = torch.from_numpy(batch.weights).to(self.device)
        self._pass = current = Pass(batch, visit, weights > 0 if hide else None, in_parts)
        try:
            with torch.enable_grad():
                with _autocast(self.device, self.dtype):
                    logits = self.model(use_cache=False, **self._arguments(batch)).logits
                self._pass = None
                labels = torch.from_numpy(batch.targets).to(self.device)
                if draws is not None:
                    labels = _sample(logits.detach(), torch.from_numpy(draws).to(self.device))
                losses, slopes = losses_and_slopes(logits.detach(), labels, weights)
                if logits.requires_grad:
                    root = torch.autograd.graph.get_gradient_edge(logits)  # their place is needed, not their values
                    del logits
                    torch.autograd.grad(root, current.leaves, slopes, allow_unused=True)
            current.require_all(self.sites)
        finally:
            self._pass = None
        return by_document(batch, losses.double() * weights.double()).sum(dim=1)[: len(batch.rows)]

    def _arguments(self, batch: Batch) -> dict[str, torch.Tensor]:
        import torch

        arguments = {"input_ids": torch.from_numpy(batch.inputs).to(self.device)}
        if batch.packing is not None:
            owner = torch.from_numpy(batch.packing.owner).to(self.device)
            seen = (owner[:, :, None] == owner[:, None, :]).tril()[:, None]
            dtype = next(self.model.parameters()).dtype
            # Additive, since the eager kernel takes no other; the lowest finite number, since padding sees nothing.
            hidden = torch.zeros(seen.shape, dtype=dtype, device=self.device)
            arguments["attention_mask"] = hidden.masked_fill_(~seen, torch.finfo(dtype).min)
            arguments["position_ids"] = torch.from_numpy(batch.packing.position).to(self.device)
        return arguments

    def _hook(self, site: Site, embeds: bool) -> Any:
        def keep(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
            # A module called for another reason, such as a normalisation on the way back, leaves no trace.
            return None if self._pass is None else self._pass.saw(site, arguments[0], output, embeds)

        return keep


@contextmanager
def frozen(model: nn.Module, attention: str = "eager") -> Iterator[None]:
    """Put a model in evaluation mode, with one attention kernel and no parameter's gradient, then restore it."""
    training = {name: module.training for name, module in model.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    config = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    try:
        if before not in (None, attention):
            model.set_attn_implementation(attention)  # type: ignore[operator]
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        if before not in (None, attention):
            model.set_attn_implementation(before)  # type: ignore[operator]
        for name, module in model.named_modules():
            module.training = training[name]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])


@contextmanager
def capturing(
    model: nn.Module,
    scope: str = "blocks",
    *,
    bias: bool | None = None,
    dtype: str = "float32",
    attention: str | None = None,
) -> Iterator[Capture]:
    """Yield a :class:`Capture` over the model's sites in ``scope``; hooks and flags are undone at the end.

    ``scope`` and ``bias`` as in :func:`winnow.attribution.sites.find_sites`. ``dtype`` "bfloat16" runs both passes in
    mixed precision, "auto" where the processor multiplies it. ``attention`` names the kernel; None takes one whose bits
    do not depend on the rest of the batch: "sdpa" in float32 on a processor, else "eager". Raises :class:`UserError`
    for a scope without layers or a model that is not a causal language model.
    """
    from winnow.attribution.causal import require_causal

    require_causal(model)
    sites = find_sites(model, scope, bias)
    capture = Capture(model, sites, resolve_dtype(dtype))
    handles: list[Any] = []
    if attention is None:
        fused = capture.device.type == "cpu" and capture.dtype == "float32" and getattr(model, "_supports_sdpa", False)
        attention = "sdpa" if fused else "eager"
    with frozen(model, attention):
        try:
            for site in sites.values():
                handles.append(site.module.register_forward_hook(capture._hook(site, site.kind == "embedding")))
                if site.embedding is not None:
                    handles.append(site.embedding.register_forward_hook(capture._hook(site, True)))
            yield capture
        finally:
            for handle in handles:
                handle.remove()


def context_length(model: nn.Module) -> int:
    """Return the model's context in tokens. Raises :class:`UserError` when its configuration does not say."""
    length = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(length, int) or length < 2:
        raise UserError(
            f"{type(model).__name__}: its configuration has no max_position_embeddings; use a causal language model"
        )
    return length


def vocabulary_size(model: nn.Module) -> int:
    """Return the number of rows of the model's input embedding."""
    find: Any = getattr(model, "get_input_embeddings", None)
    embedding: Any = find() if find is not None else None
    if embedding is None:
        raise UserError(f"{type(model).__name__} has no token embedding; use a causal language model")
    return int(embedding.weight.shape[0])


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy in nats, float32 ``[B, T]``, of logits ``[B, T, V]`` against labels int64 ``[B, T]``."""
    from torch.nn import functional

    flat = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def losses_and_slopes(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropies in nats, float32 ``[B, T]``, and the gradient of their weighted sum in the logits.

    The gradient, weight x (softmax - one hot), has the shape and dtype of ``logits`` ``[B, T, V]``; ``weights``
    float32 ``[B, T]``. Positions are taken a few at a time, so that the processor's cache holds them from the softmax
    to the gradient, which autograd's way reads and writes anew at every step.
    """
    import torch

    flat, rows = logits.flatten(0, 1), (labels.flatten()[:, None], weights.flatten()[:, None])
    losses, slopes = torch.empty(len(flat), 1, device=flat.device), torch.empty_like(flat)
    step = max(1, (_CACHED if flat.device.type == "cpu" else _CACHED << 8) // flat.shape[1])
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        (label, weight), given = (one[part] for one in rows), flat[part].float()
        chances = torch.softmax(given, dim=1)
        # log sum exp: the maximum, less the logarithm of its chance, which is never too small for float32.
        losses[part] = (
            given.amax(dim=1, keepdim=True) - given.gather(1, label) - chances.amax(dim=1, keepdim=True).log()
        )
        slopes[part] = chances.mul_(weight).scatter_add_(1, label, -weight)
    return losses.view(labels.shape), slopes.view(logits.shape)


def _sample(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    import torch

    labels = torch.empty(draws.shape, dtype=torch.int64, device=logits.device)
    for row, given in enumerate(logits):
        cumulative = torch.softmax(given.float(), dim=-1).cumsum_(dim=-1)
        threshold = draws[row].to(cumulative.dtype)[:, None] * cumulative[:, -1:]
        labels[row] = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return labels.clamp_(max=logits.shape[-1] - 1)


def _autocast(device: torch.device, dtype: str) -> Any:
    import torch

    return nullcontext() if dtype == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)
