r"""Measuring the Kronecker factors of a model's curvature on documents: two passes, at one checkpoint or at several.

The quantities and their use are in :mod:`winnow.attribution.kronecker`; here is how they are measured.

- Linear layers and the head: A = E[a a^T] and S = E[d d^T] are means over predicted positions, S of the gradient of the
  document's *summed* loss, so that a position weighs the same in a short and in a long document. Layers that read one
  tensor (q, k and v; gate and up) share one A and its eigenvectors.
- Other sites (embeddings, tied weights, gains) have no single input and output gradient a position: their factors are
  E_n[G_n^T G_n] and E_n[G_n G_n^T] of whole documents. For a gain of one row that is its exact block of the Fisher.
- Sides that count tokens (rows of embeddings and of tied weights, heads of more than ``DENSE_ROWS`` rows) keep the
  standard basis: an embedding's factor is diagonal there anyway, and V x V numbers are too many.

Conventions. d comes from labels *sampled* from the model (the true Fisher) unless ``labels="text"`` asks for the
empirical one; the draws are seeded by each document's tokens. G_n is the gradient of the document's *mean* loss, as
everywhere in this package. For documents of n tokens E[G_n G_n^T] is 1/n of the Fisher of the mean loss: with lengths
alike that is one factor on all scores. K-FAC's eigenvalues are divided by the mean number of positions, to be in the
same unit. Products are in float32, sums over batches and the eigendecompositions in float64.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import Batch, batches, canonical_order, uniforms
from winnow.attribution.capture import Capture, Captured
from winnow.attribution.ghost import LinearGradients, SiteGradients
from winnow.attribution.kronecker import Curvature, Labels, LayerCurvature
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
DENSE_ROWS = 4096


@dataclass
class Covariances:
    """Sums over documents, float64: ``right`` for the I side, ``left`` for the O side; a vector stands for a diagonal.

    ``same`` names for every site the one that holds its right side; ``linear`` the sites measured by position.
    """

    right: dict[str, torch.Tensor] = field(default_factory=dict)
    left: dict[str, torch.Tensor] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    linear: set[str] = field(default_factory=set)
    documents: int = 0
    positions: int = 0
    excluded: int = 0


@dataclass(frozen=True)
class Basis:
    """One site's eigenvectors (float32, None = identity) and K-FAC eigenvalues (float32), see ``LayerCurvature``."""

    q_a: torch.Tensor | None
    q_s: torch.Tensor | None
    a_values: torch.Tensor
    s_values: torch.Tensor


def fit_curvature(
    capture: Capture,
    docs: Sequence[np.ndarray],
    context: int,
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    progress: Progress | None = None,
) -> Curvature:
    """Estimate the factors of every captured site from token arrays; two passes over ``docs``.

    The documents are walked in an order of their own (by a hash of their tokens), so the order given changes no bit.
    Raises :class:`UserError` when no document has a finite loss and gradient.
    """
    total = 2 * len(docs)
    first = (lambda done, _: progress(done, total)) if progress is not None else None
    second = (lambda done, _: progress(len(docs) + done, total)) if progress is not None else None
    covariances = Covariances()
    add_covariances(covariances, capture, docs, context, labels=labels, seed=seed, progress=first)
    bases = eigenbases(covariances)
    moments: dict[str, torch.Tensor] = {}
    add_moments(moments, bases, capture, docs, context, labels=labels, seed=seed, progress=second)
    return assemble(covariances, bases, moments, labels, seed)


def add_covariances(
    sums: Covariances,
    capture: Capture,
    docs: Sequence[np.ndarray],
    context: int,
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Add the documents' terms at one checkpoint to ``sums``: the first pass. Raises :class:`UserError`, see above."""
    used = 0
    for done, captured in _passes(capture, docs, context, labels, seed):
        _add_batch(sums, captured)
        sums.positions += int(captured.mask.sum())
        used += int(captured.usable.sum())
        if progress is not None:
            progress(done, len(docs))
    if used == 0:
        raise UserError(
            f"none of the {len(docs)} curvature documents has a finite loss and gradient over two or more tokens; "
            "check the checkpoint and the tokenizer"
        )
    sums.documents += used
    sums.excluded += len(docs) - used


def eigenbases(sums: Covariances) -> dict[str, Basis]:
    """Return every site's eigenvectors and K-FAC eigenvalues."""
    right: dict[str, tuple[torch.Tensor | None, torch.Tensor]] = {
        name: _eigen(matrix / (sums.positions if name in sums.linear else sums.documents))
        for name, matrix in sums.right.items()
    }
    bases = {}
    for name, matrix in sums.left.items():
        q_a, a_values = right[sums.same[name]]
        q_s, s_values = _eigen(matrix / (sums.positions if name in sums.linear else sums.documents))
        if name in sums.linear:
            s_values = s_values * (sums.documents / sums.positions)
        else:
            # E[G G^T] has the trace of E[G^T G] as a factor already: once is enough.
            s_values = s_values / s_values.sum().clamp(min=1e-300)
        bases[name] = Basis(q_a, q_s, a_values.float(), s_values.float())
    return bases


def add_moments(
    moments: dict[str, torch.Tensor],
    bases: Mapping[str, Basis],
    capture: Capture,
    docs: Sequence[np.ndarray],
    context: int,
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Add sum_n (Q_S^T G_n Q_A)^2 at one checkpoint to ``moments`` (float64 ``[O, I]`` by site): the second pass."""
    import torch

    for done, captured in _passes(capture, docs, context, labels, seed):
        shared: dict[tuple[int, int], torch.Tensor] = {}
        for name, basis in bases.items():
            gradients = captured.sites[name]
            if name not in moments:
                moments[name] = torch.zeros(gradients.site.shape, dtype=torch.float64, device=capture.device)
            for start, stop, rows in rotated_rows(gradients, basis.q_s, basis.q_a, shared):
                moments[name][start:stop] += rows.square().sum(dim=0)
        if progress is not None:
            progress(done, len(docs))


def assemble(
    sums: Covariances, bases: Mapping[str, Basis], moments: Mapping[str, torch.Tensor], labels: Labels, seed: int
) -> Curvature:
    """Return the curvature from both passes."""
    log.info("curvature of %d sites from %d documents, %d positions", len(bases), sums.documents, sums.positions)
    layers = {
        name: LayerCurvature(
            basis.q_a, basis.q_s, (moments[name] / sums.documents).float(), basis.a_values, basis.s_values
        )
        for name, basis in bases.items()
    }
    return Curvature(layers, sums.documents, sums.excluded, labels, seed, sums.positions)


def _passes(
    capture: Capture, docs: Sequence[np.ndarray], context: int, labels: Labels, seed: int
) -> Iterator[tuple[int, Captured]]:
    ordered = [docs[position] for position in canonical_order(docs)]
    done = 0
    for batch in batches(ordered, context, full=False):
        draws = _draws(batch, ordered, seed) if labels == "sampled" else None
        captured = capture.run(batch, draws)
        done += len(batch.rows)
        yield done, captured


def _draws(batch: Batch, docs: Sequence[np.ndarray], seed: int) -> np.ndarray:
    height, width = batch.inputs.shape
    draws = np.zeros((height, width))
    for row, index in enumerate(batch.rows):
        draws[row] = uniforms(docs[index], seed, width)
    return draws


def _add_batch(sums: Covariances, captured: Captured) -> None:
    counts = captured.mask.sum(dim=1).float()
    longest = counts.max()
    alike = bool(((counts == longest) | (counts == 0.0)).all())  # rows of no document are zero, whatever their factor
    holders: dict[int, str] = {}
    products: dict[int, torch.Tensor] = {}
    for name, gradients in captured.sites.items():
        if not isinstance(gradients, LinearGradients):
            sums.same[name] = name
            _add_whole(sums, name, gradients, captured.mask.device)
            continue
        sums.linear.add(name)
        given = gradients.inputs
        # Decided in the first batch: which layers read one tensor is a matter of the model's structure.
        holder = sums.same.setdefault(name, holders.setdefault(id(given), name))
        if holder == name:
            if id(given) not in products:
                flat = given.float().flatten(0, 1)
                products[id(given)] = (flat.T @ flat).double()
            _add(sums.right, name, products[id(given)])
        taken = gradients.gradients.float()
        flat = (taken if alike else taken * counts[:, None, None]).flatten(0, 1)
        wide = gradients.site.kind == "head" and flat.shape[1] > DENSE_ROWS
        left = flat.square().sum(dim=0).double() if wide else (flat.T @ flat).double()
        _add(sums.left, name, left * longest.double().square() if alike else left)


def _add_whole(sums: Covariances, name: str, gradients: SiteGradients, device: torch.device) -> None:
    import torch

    height, width = gradients.site.shape
    right = torch.zeros(width, width, dtype=torch.float64, device=device)
    if gradients.site.kind == "norm":
        values = gradients.per_example()
        right += torch.einsum("boi,boj->ij", values, values)
        left = torch.einsum("boi,bpi->op", values, values).double()
    else:
        left = torch.zeros(height, dtype=torch.float64, device=device)
        for start, stop in gradients.chunks():
            values = gradients.rows(start, stop)
            left[start:stop] = values.square().sum(dim=(0, 2))
            flat = values.flatten(0, 1)
            right += flat.T @ flat
    _add(sums.right, name, right)
    _add(sums.left, name, left)


def _add(sums: dict[str, torch.Tensor], name: str, term: torch.Tensor) -> None:
    sums[name] = sums[name] + term if name in sums else term


def _eigen(matrix: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return eigenvectors (float32 columns; None for a diagonal) and eigenvalues (float64, none below zero)."""
    import torch

    if matrix.ndim == 1:
        return None, matrix
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors.float(), values.clamp(min=0.0)


def rotated_rows(
    gradients: SiteGradients,
    q_s: torch.Tensor | None,
    q_a: torch.Tensor | None,
    shared: dict[tuple[int, int], torch.Tensor] | None = None,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield (start, stop, rows ``start:stop`` of Q_S^T G_n Q_A, float32 ``[B, stop - start, I]``) of every document.

    ``shared`` keeps the rotated inputs of layers that read one tensor, within one batch.
    """
    import torch

    height, width = gradients.site.shape
    if isinstance(gradients, LinearGradients):
        given, taken = gradients.inputs.float(), gradients.gradients.float()
        if given.shape[1] * (height**2 + width**2) <= height * width * (height + width):
            key = (id(gradients.inputs), id(q_a))
            turned = shared.get(key) if shared is not None else None
            turned = turned if turned is not None else given if q_a is None else given @ q_a
            if shared is not None:
                shared[key] = turned
            taken = taken if q_s is None else taken @ q_s
            for start, stop in gradients.chunks():
                yield start, stop, torch.bmm(taken[:, :, start:stop].transpose(1, 2), turned)
            return
    if q_s is None:
        for start, stop in gradients.chunks():
            values = gradients.rows(start, stop)
            yield start, stop, values if q_a is None else values @ q_a
        return
    # Formed before it is rotated: cheaper for documents longer than the layer is wide.
    values = gradients.per_example()
    yield 0, height, q_s.T @ (values if q_a is None else values @ q_a)
