r"""Measuring the Kronecker factors of a model's curvature on documents: two passes, at one checkpoint or at several.

The quantities and their use are in :mod:`winnow.attribution.kronecker`; here is how they are measured.

- Linear layers and the head: A = E[a a^T] and S = E[d d^T] are means over predicted positions, S of the gradient of the
  document's *summed* loss, so that a position weighs the same in a short and in a long document. Layers that read one
  tensor (q, k and v; gate and up) share one A and its eigenvectors.
- Other sites (embeddings, tied weights, gains) have no single input and output gradient a position: their factors are
  E_n[G_n^T G_n] and E_n[G_n G_n^T] of whole documents. For a gain of one row that is its exact block of the Fisher.
- Sides that count tokens (rows of embeddings and of tied weights, heads of more than 4,096 rows) keep the
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
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from winnow.attribution.batching import Batch, batches, canonical_order, uniforms
from winnow.attribution.capture import Capture
from winnow.attribution.curvature_terms import CovarianceTerms, MomentTerms, Terms
from winnow.attribution.kronecker import Basis, Curvature, Labels, LayerCurvature
from winnow.attribution.scores import Progress
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
BATCH_TOKENS = 1024  # positions in a batch: its logits and gradients fit better in the caches
T = TypeVar("T", bound=Terms)


@dataclass
class Covariances:
    """Sums over documents, float64: ``right`` for the I side, ``left`` for the O side; a vector stands for a diagonal.

    Of a matrix only what is on and above the diagonal counts.
    ``same`` names for every site the one that holds its right side; ``linear`` the sites measured by position.
    """

    right: dict[str, torch.Tensor] = field(default_factory=dict)
    left: dict[str, torch.Tensor] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    linear: set[str] = field(default_factory=set)
    documents: int = 0
    positions: int = 0
    excluded: int = 0


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

    def start(mask: torch.Tensor) -> CovarianceTerms:
        return CovarianceTerms(sums.same, sums.linear, mask)

    for batch in _walk(capture, docs, context, labels, seed, start):
        _add(sums.right, batch.terms.right)
        _add(sums.left, batch.terms.left)
        sums.positions += batch.positions
        used += batch.usable
        if progress is not None:
            progress(batch.done, len(docs))
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
    for batch in _walk(capture, docs, context, labels, seed, lambda _: MomentTerms(bases)):
        _add(moments, batch.terms.squares)
        if progress is not None:
            progress(batch.done, len(docs))


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


@dataclass(frozen=True)
class _Batch(Generic[T]):
    """``terms`` of one batch, of ``usable`` documents and so many ``positions``; ``done`` documents with it."""

    terms: T
    done: int
    usable: int
    positions: int


def _walk(
    capture: Capture,
    docs: Sequence[np.ndarray],
    context: int,
    labels: Labels,
    seed: int,
    start: Callable[[torch.Tensor], T],
) -> Iterator[_Batch[T]]:
    """Yield every batch's terms, made by ``start`` from its mask of positions that count."""
    import torch

    ordered = [docs[position] for position in canonical_order(docs)]
    done = 0
    for batch in batches(ordered, context, full=False, batch_tokens=BATCH_TOKENS):
        draws = _draws(batch, ordered, seed) if labels == "sampled" else None
        mask, usable = torch.from_numpy(batch.weights > 0).to(capture.device), len(batch.rows)
        terms = start(mask)
        losses = capture.stream(batch, terms.add, draws, hide=True)
        sums = torch.stack([tensor.sum().double() for tensor in terms.tensors()])
        if not bool(torch.isfinite(losses).all() and torch.isfinite(sums).all()):
            # A document is not usable. Only with all sites at hand is it known which, and can it be left out of all.
            captured = capture.run(batch, draws)
            mask, usable = captured.mask, int(captured.usable.sum())
            terms = start(mask)
            for gradients in captured.sites.values():
                terms.add(gradients.site, gradients)
        done += len(batch.rows)
        yield _Batch(terms, done, usable, int(mask.sum()))


def _draws(batch: Batch, docs: Sequence[np.ndarray], seed: int) -> np.ndarray:
    height, width = batch.inputs.shape
    draws = np.zeros((height, width))
    for row, index in enumerate(batch.rows):
        draws[row] = uniforms(docs[index], seed, width)
    return draws


def _add(sums: dict[str, torch.Tensor], terms: Mapping[str, torch.Tensor]) -> None:
    for name, term in terms.items():
        if name in sums:
            sums[name] += term
        else:
            sums[name] = term.double()


def _eigen(matrix: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return eigenvectors (float32 columns; None for a diagonal) and eigenvalues (float64, none below zero)."""
    import torch

    if matrix.ndim == 1:
        return None, matrix
    values, vectors = torch.linalg.eigh(matrix, UPLO="U")
    return vectors.float(), values.clamp(min=0.0)
