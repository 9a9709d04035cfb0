r"""EK-FAC: the curvature of the loss per layer, in the eigenbasis of its Kronecker factors.

For a linear layer with inputs a_t in R^I and output gradients d_t in R^O, a document's gradient is
G = sum_t d_t a_t^T, of shape [O, I]. K-FAC takes the layer's Fisher matrix to be the Kronecker product of

    A = E[a a^T] = Q_A L_A Q_A^T    [I, I]        S = E[d d^T] = Q_S L_S Q_S^T    [O, O],

whose eigenvectors are the outer products of columns of Q_S and Q_A. EK-FAC keeps these eigenvectors and replaces the
eigenvalues L_S L_A^T by the second moments of real per-document gradients along them,

    Lambda = E_n[(Q_S^T G_n Q_A)^2]    [O, I]    (squared entry by entry),

which is the diagonal closest to E_n[vec G_n vec G_n^T] in that basis. With damping lambda the inverse applied to a
direction V of shape [O, I] is

    iHVP(V) = Q_S [ (Q_S^T V Q_A) / (Lambda + lambda) ] Q_A^T,    lambda = damping * mean(Lambda), per layer.

Conventions. d comes from labels *sampled* from the model (the true Fisher) unless ``labels="text"`` asks for the
empirical one; the draws are seeded by each document's tokens. A and S are means over predicted positions, S of the
gradient of the document's *summed* loss, so that a position weighs the same in a short and in a long document; only
their eigenvectors are used. G_n is the gradient of the document's *mean* loss, as everywhere in this package. For
documents of n tokens E[G_n G_n^T] is 1/n of the Fisher of the mean loss: with lengths alike that is one factor on all
scores. The eigendecompositions and all sums over batches are in float64.

Source: George et al. 2018 (EK-FAC); Grosse et al. 2023, section 2.2 (damping 0.1 times the mean eigenvalue).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from winnow.attribution.batching import Batch, batches, canonical_order, uniforms
from winnow.attribution.capture import Capture, Captured
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Labels = Literal["sampled", "text"]


@dataclass(frozen=True)
class LayerCurvature:
    """One layer's ``q_a`` float32 ``[I, I]``, ``q_s`` float32 ``[O, O]`` and ``eigenvalues`` float32 ``[O, I]``."""

    q_a: torch.Tensor
    q_s: torch.Tensor
    eigenvalues: torch.Tensor

    def inverse_product(self, direction: torch.Tensor, damping: float) -> torch.Tensor:
        """Return iHVP(V), float64 ``[O, I]``, for V ``[O, I]``; lambda = ``damping`` times the mean eigenvalue.

        A layer without any curvature (all eigenvalues zero) has zero gradients, and gives zero.
        """
        import torch

        q_a, q_s, eigenvalues = (tensor.double() for tensor in (self.q_a, self.q_s, self.eigenvalues))
        mean = float(eigenvalues.mean())
        if mean <= 0.0:
            return torch.zeros_like(eigenvalues)
        rotated = q_s.T @ direction.to(eigenvalues) @ q_a
        return q_s @ (rotated / (eigenvalues + damping * mean)) @ q_a.T


@dataclass(frozen=True)
class Curvature:
    """EK-FAC factors by layer name; ``documents`` were measured, ``excluded`` had no finite loss or gradient."""

    layers: dict[str, LayerCurvature]
    documents: int
    excluded: int
    labels: Labels
    seed: int

    def save(self, path: Path) -> None:
        """Write to one safetensors file; equal factors give equal bytes."""
        from safetensors.torch import save_file

        tensors = {}
        for name, layer in self.layers.items():
            tensors[f"{name}/q_a"] = layer.q_a.contiguous().cpu()
            tensors[f"{name}/q_s"] = layer.q_s.contiguous().cpu()
            tensors[f"{name}/eigenvalues"] = layer.eigenvalues.contiguous().cpu()
        facts = {
            "layers": list(self.layers),
            "documents": self.documents,
            "excluded": self.excluded,
            "labels": self.labels,
            "seed": self.seed,
        }
        save_file(tensors, path, metadata={"curvature": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Curvature:
        """Read what :meth:`save` wrote. Raises :class:`UserError` for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt", device=device) as file:
                facts = json.loads((file.metadata() or {})["curvature"])
                layers = {
                    name: LayerCurvature(*(file.get_tensor(f"{name}/{part}") for part in ("q_a", "q_s", "eigenvalues")))
                    for name in facts["layers"]
                }
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: not a curvature file ({error}); fit the curvature again") from error
        return cls(layers, facts["documents"], facts["excluded"], facts["labels"], facts["seed"])


def fit_curvature(
    capture: Capture,
    docs: Sequence[np.ndarray],
    context: int,
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Curvature:
    """Estimate EK-FAC factors of every captured layer from token arrays; two passes over ``docs``.

    The documents are walked in an order of their own (by a hash of their tokens), so the order given changes no bit.
    Raises :class:`UserError` when no document has a finite loss and gradient.
    """
    ordered = [docs[position] for position in canonical_order(docs)]
    total = 2 * len(docs)
    covariances: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    done = positions = documents = 0
    for batch, captured in _passes(capture, ordered, context, labels, seed):
        _add_covariances(covariances, captured, batch)
        positions += int(captured.mask.sum())
        documents += int(captured.usable.sum())
        done += len(batch.rows)
        if progress is not None:
            progress(done, total)
    if documents == 0:
        raise UserError(
            f"none of the {len(docs)} curvature documents has a finite loss and gradient over two or more tokens; "
            "check the checkpoint and the tokenizer"
        )
    bases = {name: (_eigenvectors(a / positions), _eigenvectors(s / positions)) for name, (a, s) in covariances.items()}
    moments: dict[str, torch.Tensor] = {}
    for batch, captured in _passes(capture, ordered, context, labels, seed):
        for name, (q_a, q_s) in bases.items():
            rotated = (captured.gradients[name] @ q_s).transpose(1, 2) @ (captured.inputs[name] @ q_a)
            squares = rotated[: len(batch.rows)].square().sum(dim=0).double()
            moments[name] = moments[name] + squares if name in moments else squares
        done += len(batch.rows)
        if progress is not None:
            progress(done, total)
    log.info("curvature of %d layers from %d documents, %d positions", len(bases), documents, positions)
    layers = {name: LayerCurvature(*bases[name], (moments[name] / documents).float()) for name in bases}
    return Curvature(layers, documents, len(docs) - documents, labels, seed)


def _passes(
    capture: Capture, docs: Sequence[np.ndarray], context: int, labels: Labels, seed: int
) -> Iterator[tuple[Batch, Captured]]:
    for batch in batches(docs, context, full=False):
        draws = _draws(batch, docs, seed) if labels == "sampled" else None
        yield batch, capture.run(batch, draws)


def _draws(batch: Batch, docs: Sequence[np.ndarray], seed: int) -> np.ndarray:
    height, width = batch.inputs.shape
    draws = np.zeros((height, width))
    for row, index in enumerate(batch.rows):
        draws[row] = uniforms(docs[index], seed, width)
    return draws


def _add_covariances(
    covariances: dict[str, tuple[torch.Tensor, torch.Tensor]], captured: Captured, batch: Batch
) -> None:
    import torch

    counts = np.maximum((batch.weights > 0).sum(axis=1), 1)
    scale = torch.from_numpy(counts.astype(np.float32)).to(captured.mask.device)[:, None, None]
    shared: dict[int, torch.Tensor] = {}
    for name, inputs in captured.inputs.items():
        if id(inputs) not in shared:
            flat = inputs.flatten(0, 1)
            shared[id(inputs)] = (flat.T @ flat).double()
        flat = (captured.gradients[name] * scale).flatten(0, 1)
        a, s = shared[id(inputs)], (flat.T @ flat).double()
        if name in covariances:
            a, s = a + covariances[name][0], s + covariances[name][1]
        covariances[name] = (a, s)


def _eigenvectors(matrix: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.linalg.eigh((matrix + matrix.T) / 2)[1].float()
