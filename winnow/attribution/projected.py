r"""Every document's gradient as one flat row: projected site by site, in memory or to a store, from one backward pass.

Two objectives. ``loss``: g = grad of the document's mean token loss, as everywhere in this package. ``margin``: TRAK's

    f(z) = sum over tokens of log(p / (1 - p)),    p the model's probability of the token that follows.

Since a token's loss is -log p = log(1 + exp(-f)), its gradient is -(1 - p) grad f: the margin's gradient is the loss's
with each token weighted by -1 / (1 - p), which one more forward pass gives. Rows of either objective point the way of a
loss: they are gradients of -f. ``doubts`` are the means over tokens of 1 - p.

A side of a layer's gradient that is not projected, and every layer where nothing is projected, is stored in full.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash

from winnow.attribution.autocorrelation import block_height
from winnow.attribution.batching import Batch, batches, check_documents
from winnow.attribution.capture import Capture, capturing, context_length, token_losses, vocabulary_size
from winnow.attribution.ghost import SiteGradients
from winnow.attribution.gradient_store import GradientChunk, GradientStore, StoreIndex
from winnow.attribution.projection import Layout, Projection
from winnow.attribution.scores import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, TOO_SHORT, Progress
from winnow.attribution.sites import Site, find_sites
from winnow.forward import resolve_dtype

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)
Objective = Literal["loss", "margin"]
Transform = Callable[[str, slice, "torch.Tensor"], "torch.Tensor"]
"""Given a site's name, some of its rows and the gradients there ``[B, R, I]``, returns what stands in their stead."""
IN_MEMORY = 1 << 30  # bytes of rows that are kept in memory; more go to a temporary file, mapped
FORMED = 1 << 24  # numbers of gradients that are formed at once
LEAST_DOUBT = 1e-6  # 1 - p in float32 has no more digits


@dataclass(frozen=True)
class Making:
    """How rows are made of gradients.

    ``scales`` by site divide a gradient's rows (r ``[O]``) and columns (c ``[I]``) before it is projected;
    ``transform`` replaces the gradient, which is formed in full for it, some rows at a time. ``dtype`` "bfloat16" runs
    the passes in mixed precision, "auto" where the processor multiplies it; products over positions and rows are
    float32 all the same.
    """

    scope: str = "blocks"
    projection: Projection = dataclasses.field(default_factory=lambda: Projection(0))
    objective: Objective = "loss"
    scales: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None = None
    transform: Transform | None = None
    dtype: str = "float32"

    def layout(self, sites: Mapping[str, Site]) -> Layout:
        """Return where each site lies in a row."""
        return Layout({name: self.projection.shape(site.shape) for name, site in sites.items()})


@dataclass(frozen=True)
class ProjectedGradients:
    """Rows in memory: ``values`` float32 ``[N, D]``, zero where not usable; ``losses`` float64 ``[N]``; ``reasons`` why
    a row is not usable, else None; ``doubts`` float64 ``[N]``, the mean of 1 - p over tokens (margins only, else 1)."""

    layout: Layout
    values: torch.Tensor
    losses: np.ndarray
    reasons: tuple[str | None, ...]
    doubts: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        return np.array([reason is None for reason in self.reasons], dtype=bool)

    def rows(self, places: np.ndarray) -> torch.Tensor:
        """Return some rows in the order asked for."""
        return self.values[places]

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        height = block_height(self.layout.width)
        for start in range(0, len(self.values), height):
            stop = min(start + height, len(self.values))
            yield slice(start, stop), self.values[start:stop]


def projected_gradients(
    model: nn.Module, docs: Sequence[np.ndarray], making: Making, progress: Progress | None = None
) -> ProjectedGradients:
    """Return the rows of token arrays (int ``[n]``) in the order given, 4 D bytes each, mapped from a file where large.

    A row's bits do not depend on the other documents. Raises :class:`UserError` for an unknown scope or documents
    outside the vocabulary.
    """
    import torch

    check_documents(docs, vocabulary_size(model))
    with capturing(model, making.scope, dtype=making.dtype) as capture:
        maker = _Maker(capture, making)
        values = _zeros(len(docs), maker.layout.width)
        losses, doubts = np.full(len(docs), np.nan), np.ones(len(docs))
        reasons: list[str | None] = [TOO_SHORT] * len(docs)
        done = 0
        for batch, rows, chunk_losses, chunk_doubts, chunk_reasons in maker.walk(docs, context_length(model)):
            values[torch.from_numpy(batch.rows)] = rows.cpu()
            losses[batch.rows], doubts[batch.rows] = chunk_losses, chunk_doubts
            for row, reason in zip(batch.rows.tolist(), chunk_reasons, strict=True):
                reasons[row] = reason
            done += len(batch.rows)
            if progress is not None:
                progress(done, len(docs))
    return ProjectedGradients(maker.layout, values, losses, tuple(reasons), doubts)


def store_gradients(
    path: Path,
    model: nn.Module,
    docs: Sequence[np.ndarray],
    making: Making,
    *,
    dtype: str = "float16",
    part_rows: int = 0,
    progress: Progress | None = None,
) -> GradientStore:
    """Write the rows of token arrays to the folder ``path``, or the parts of them that are missing there.

    ``part_rows`` 0: parts of about 64 MiB. Gradients of losses are stored, scaled or not, but none that a ``transform``
    replaces. Raises :class:`UserError` if the folder holds gradients of other documents, another checkpoint, scope,
    projection or scales.
    """
    if making.objective != "loss" or making.transform is not None:
        raise ValueError("only gradients of losses are stored, as they are or scaled")
    check_documents(docs, vocabulary_size(model))
    facts: dict[str, str | int | float] = {
        "scope": making.scope,
        "projection": making.projection.id,
        "checkpoint": model_digest(model),
        "context": context_length(model),
        "scales": _scales_digest(making.scales),
        **({} if (passes := resolve_dtype(making.dtype)) == "float32" else {"precision": passes}),
    }
    layout = making.layout(find_sites(model, making.scope))
    store = GradientStore.create(path, StoreIndex(layout, len(docs), _documents_digest(docs), facts, dtype, part_rows))
    missing = store.missing()
    done = len(docs) - sum(len(store.places(number)) for number in missing)
    log.info("%s: %d of %d parts to write, %d numbers a document", path, len(missing), store.index.parts, layout.width)
    with capturing(model, making.scope, dtype=making.dtype) as capture:
        maker = _Maker(capture, making)
        for number in missing:
            places = store.places(number)
            store.write_part(number, maker.chunks(docs[places.start : places.stop], context_length(model)))
            done += len(places)
            if progress is not None:
                progress(done, len(docs))
    return store


def _zeros(rows: int, width: int) -> torch.Tensor:
    import torch

    if 4 * rows * width <= IN_MEMORY:
        return torch.zeros(rows, width)
    with tempfile.TemporaryFile() as file:  # it has no name and goes with the last mapping
        file.truncate(4 * rows * width)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, width)))


def model_digest(model: nn.Module) -> str:
    """Return a hash of a model's parameters: names, dtypes, shapes and bytes."""
    import torch

    digest = xxhash.xxh3_128()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}:{parameter.dtype}:{tuple(parameter.shape)};".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _scales_digest(scales: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None) -> str:
    if scales is None:
        return "none"
    digest = xxhash.xxh3_128()
    for name, vectors in scales.items():
        digest.update(name.encode())
        for vector in vectors:
            digest.update(vector.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _documents_digest(docs: Iterable[np.ndarray]) -> str:
    digest = xxhash.xxh3_128()
    for doc in docs:
        digest.update(len(doc).to_bytes(8, "little"))
        digest.update(np.asarray(doc, dtype="<i8").tobytes())
    return digest.hexdigest()


class _Maker:
    """Turns captured batches into rows; L and R of every site are made once."""

    def __init__(self, capture: Capture, making: Making) -> None:
        self.capture, self.making = capture, making
        self.layout = making.layout(capture.sites)
        self.blocks = self.layout.blocks
        self.sides: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, site in capture.sites.items():
            if making.projection.dimension:
                scales = None if making.scales is None else making.scales[name]
                left, right = making.projection.sides(name, site.shape, scales)
                self.sides[name] = (left.to(capture.device), right.to(capture.device))

    def walk(
        self, docs: Sequence[np.ndarray], context: int
    ) -> Iterator[tuple[Batch, torch.Tensor, np.ndarray, np.ndarray, list[str | None]]]:
        """Yield every batch with its rows float32 ``[R, D]``, losses, doubts and reasons."""
        import torch

        for batch in batches(docs, context):
            count = len(batch.rows)
            losses, doubts, weighted = None, np.ones(count), batch
            if self.making.objective == "margin":
                weighted, losses, doubts = self._margin(batch)
            values = torch.empty((len(batch.inputs), self.layout.width), device=self.capture.device)
            found = self.capture.stream(weighted, functools.partial(self._visit, values))
            values = values[:count]
            losses = found.cpu().numpy() if losses is None else losses
            usable = (torch.isfinite(found) & torch.isfinite(values).all(dim=1)).cpu()
            values[~usable.to(values.device)] = 0.0
            reasons = [
                None if fine else (GRADIENT_NOT_FINITE if np.isfinite(loss) else LOSS_NOT_FINITE)
                for fine, loss in zip(usable.tolist(), losses, strict=True)
            ]
            yield batch, values, losses, doubts, reasons

    def chunks(self, docs: Sequence[np.ndarray], context: int) -> Iterator[GradientChunk]:
        for batch, values, losses, _, reasons in self.walk(docs, context):
            yield GradientChunk(batch.rows, values.cpu().numpy(), losses, tuple(reasons))

    def _visit(self, values: torch.Tensor, site: Site, gradients: SiteGradients) -> None:
        """Write one site's columns of a batch's rows; called in the backward pass."""
        sides, out = self.sides.get(site.name), values[:, self.blocks[site.name]]
        if sides is not None and self.making.transform is None:
            out.copy_(gradients.project(*sides).flatten(1))
            return
        height, width = site.shape
        step = max(1, FORMED // (len(values) * width))
        projected: Any = 0.0
        for start in range(0, height, step):
            part = slice(start, min(start + step, height))
            made = self._replaced(site, part, gradients.rows(part.start, part.stop))
            if sides is not None:
                projected = projected + sides[0][:, part] @ (made @ sides[1].T)
            else:
                out[:, start * width : part.stop * width] = made.flatten(1)
        if sides is not None:
            out.copy_(projected.flatten(1))

    def _replaced(self, site: Site, part: slice, gradients: torch.Tensor) -> torch.Tensor:
        if self.making.transform is not None:
            return self.making.transform(site.name, part, gradients)
        if self.making.scales is None:
            return gradients
        rows, columns = (scale.to(gradients) for scale in self.making.scales[site.name])
        return gradients / rows[part, None] / columns

    def _margin(self, batch: Batch) -> tuple[Batch, np.ndarray, np.ndarray]:
        """Return the batch weighted for -f, each document's mean token loss and its mean doubt."""
        import torch

        device = self.capture.device
        inputs, labels = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
        with torch.no_grad():
            logits = self.capture.model(input_ids=inputs, use_cache=False).logits
            losses = token_losses(logits, labels).cpu().numpy()
        doubts = np.maximum(-np.expm1(-losses), LEAST_DOUBT)
        count = len(batch.rows)
        means = [(value[:count].astype(np.float64) * batch.weights[:count]).sum(axis=1) for value in (losses, doubts)]
        weights = np.where(batch.weights > 0, 1.0 / doubts, 0.0).astype(np.float32)
        return dataclasses.replace(batch, weights=weights), means[0], means[1]
