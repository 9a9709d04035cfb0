r"""K-FAC and EK-FAC: the curvature of the loss per site, in the eigenbasis of its Kronecker factors.

For a linear layer with inputs a_t in R^I and output gradients d_t in R^O, a document's gradient is
G = sum_t d_t a_t^T, of shape [O, I]. K-FAC takes the layer's Fisher matrix to be the Kronecker product of

    A = E[a a^T] = Q_A L_A Q_A^T    [I, I]        S = E[d d^T] = Q_S L_S Q_S^T    [O, O],

whose eigenvectors are the outer products of columns of Q_S and Q_A, with the eigenvalues L_S L_A^T. EK-FAC keeps the
eigenvectors and takes as eigenvalues the second moments of real per-document gradients along them,

    Lambda = E_n[(Q_S^T G_n Q_A)^2]    [O, I]    (squared entry by entry),

which is the diagonal closest to E_n[vec G_n vec G_n^T] in that basis. With damping lambda the inverse applied to a
direction V of shape [O, I] is

    iHVP(V) = Q_S [ (Q_S^T V Q_A) / (Lambda + lambda) ] Q_A^T,    lambda = damping * mean(Lambda), per site.

How the factors are measured: :mod:`winnow.attribution.curvature`. Source: George et al. 2018 (EK-FAC); Grosse et al.
2023, section 2.2 (damping 0.1 times the mean eigenvalue).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

Labels = Literal["sampled", "text"]
_PARTS = ("q_a", "q_s", "eigenvalues", "a_values", "s_values")


@dataclass(frozen=True)
class Basis:
    """One site's eigenvectors (float32, None = identity) and K-FAC eigenvalues (float32), see ``LayerCurvature``."""

    q_a: torch.Tensor | None
    q_s: torch.Tensor | None
    a_values: torch.Tensor
    s_values: torch.Tensor


@dataclass(frozen=True)
class LayerCurvature:
    """One site's bases ``q_a`` ``[I, I]`` and ``q_s`` ``[O, O]`` and its EK-FAC ``eigenvalues`` ``[O, I]``, float32.

    A basis that is None is the identity. ``a_values`` ``[I]`` and ``s_values`` ``[O]``: K-FAC's eigenvalues are
    s_values a_values^T, in the unit of ``eigenvalues``.
    """

    q_a: torch.Tensor | None
    q_s: torch.Tensor | None
    eigenvalues: torch.Tensor
    a_values: torch.Tensor | None = None
    s_values: torch.Tensor | None = None

    def kfac_eigenvalues(self) -> torch.Tensor:
        """Return s_values a_values^T, float64 ``[O, I]``. Raises :class:`UserError` where they were not kept."""
        if self.a_values is None or self.s_values is None:
            raise UserError("the curvature has no K-FAC eigenvalues; fit it again")
        return self.s_values.double()[:, None] * self.a_values.double()

    def rotate(self, direction: torch.Tensor) -> torch.Tensor:
        """Return Q_S^T V Q_A, ``[..., O, I]``, in the precision of the bases: it is theirs that bounds the result's."""
        rotated = direction.to(self.eigenvalues)
        rotated = rotated if self.q_a is None else rotated @ self.q_a
        return rotated if self.q_s is None else self.q_s.T @ rotated

    def rotate_back(self, rotated: torch.Tensor) -> torch.Tensor:
        """Return Q_S R Q_A^T, ``[..., O, I]``, in the precision of the bases."""
        rotated = rotated.to(self.eigenvalues)
        rotated = rotated if self.q_a is None else rotated @ self.q_a.T
        return rotated if self.q_s is None else self.q_s @ rotated

    def inverse_product(self, direction: torch.Tensor, damping: float, *, kfac: bool = False) -> torch.Tensor:
        """Return iHVP(V), float64 ``[..., O, I]``, for V ``[..., O, I]``; see :meth:`solve`."""
        return self.solve(direction, damping, kfac=kfac).double()

    def solve(self, direction: torch.Tensor, damping: float, *, kfac: bool = False) -> torch.Tensor:
        """Return iHVP(V), ``[..., O, I]`` in the precision of the bases, for V ``[..., O, I]``.

        lambda = ``damping`` times the mean eigenvalue. ``kfac``: with K-FAC's eigenvalues. A layer without any
        curvature (all eigenvalues zero) has zero gradients, and gives zero.
        """
        weights = self.inverse_eigenvalues(damping, kfac=kfac).to(self.eigenvalues)
        rotated = self.rotate(direction)
        # Without a basis there is nothing rotated, but the caller's own direction.
        return self.rotate_back(rotated * weights if rotated is direction else rotated.mul_(weights))

    def inverse_eigenvalues(self, damping: float, *, kfac: bool = False) -> torch.Tensor:
        """Return 1 / (Lambda + lambda), float64 ``[O, I]``; zero where that would divide by zero."""
        import torch

        from winnow.attribution.second_moments import damped_quotient

        eigenvalues = self.kfac_eigenvalues() if kfac else self.eigenvalues.double()
        return damped_quotient(torch.ones_like(eigenvalues), eigenvalues, damping)


@dataclass(frozen=True)
class Curvature:
    """Factors by site name; ``documents`` were measured, ``excluded`` had no finite loss or gradient.

    ``positions``: predicted tokens of the documents measured.
    """

    layers: dict[str, LayerCurvature]
    documents: int
    excluded: int
    labels: Labels
    seed: int
    positions: int = 0

    def save(self, path: Path) -> None:
        """Write to one safetensors file; equal factors give equal bytes."""
        from safetensors.torch import save_file

        tensors = {}
        for name, layer in self.layers.items():
            for part in _PARTS:
                if (tensor := getattr(layer, part)) is not None:
                    # Sites that read one input share its basis, and a file must not: hence the copy.
                    tensors[f"{name}/{part}"] = tensor.detach().cpu().contiguous().clone()
        facts = {
            "layers": list(self.layers),
            "documents": self.documents,
            "excluded": self.excluded,
            "labels": self.labels,
            "seed": self.seed,
            "positions": self.positions,
        }
        save_file(tensors, path, metadata={"curvature": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Curvature:
        """Read what :meth:`save` wrote. Raises :class:`UserError` for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt", device=device) as file:
                facts = json.loads((file.metadata() or {})["curvature"])
                there = set(file.keys())
                layers = {}
                for name in facts.pop("layers"):
                    parts = {part: file.get_tensor(f"{name}/{part}") for part in _PARTS if f"{name}/{part}" in there}
                    layers[name] = LayerCurvature(
                        parts.get("q_a"),
                        parts.get("q_s"),
                        parts["eigenvalues"],
                        parts.get("a_values"),
                        parts.get("s_values"),
                    )
                return cls(layers, **facts)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: not a curvature file ({error}); delete it and fit the curvature again") from error
