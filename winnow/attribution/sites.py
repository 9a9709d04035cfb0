r"""Where a model's parameters are attributed: its linear layers, embeddings, head and normalisations, by name.

A *site* is a group of parameters whose per-document gradient is one matrix ``[O, I]``:

- ``linear``: y = W x. ``nn.Linear`` and GPT-2's ``Conv1D``, whichever way round the weight is stored, projections fused
  (c_attn, query_key_value) or split. With ``bias`` the matrix has one more column, as if the input ended with a one;
- ``head``: the linear layer that gives the logits, where its weight is its own;
- ``embedding``: tokens ``[V, E]`` or learned positions ``[P, E]``;
- ``tied``: one weight ``[V, E]`` that is embedding and head; the gradients of both uses are added;
- ``norm``: the gain as the first row ``[1, E]``, the bias where there is one as the second. One gain for every head (of
  queries and keys, as in Qwen3) is a norm too.

Weights of several experts in one tensor of three dimensions (mixtures of experts) are no site: what a document's tokens
meet there depends on the routing. A scope that would hold them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

Kind = Literal["linear", "head", "embedding", "tied", "norm"]
SCOPES = ("blocks", "attention", "mlp", "head", "embeddings", "norms", "all")
_BLOCK = re.compile(r"(^|\.)(layers|h|blocks|block|layer)\.\d+\.(?P<inside>.+)$")
_ATTENTION = re.compile(r"attn|attention")


@dataclass(frozen=True)
class Site:
    """One group of parameters; ``parameters`` are their names in the model, the weight first, then the bias if counted.

    ``shape`` (O, I) of the gradient; ``transposed``: the weight is stored ``[I, O]``; ``embedding``: the second module
    that uses a tied weight (``module`` is the head).
    """

    name: str
    kind: Kind
    module: nn.Module
    shape: tuple[int, int]
    parameters: tuple[str, ...]
    transposed: bool = False
    embedding: nn.Module | None = None

    @property
    def bias(self) -> bool:
        """Whether the gradient of the bias is part of the matrix."""
        return len(self.parameters) > 1

    def matrix(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return ``[O, I]`` from tensors shaped as the parameters, by parameter name (gradients, moments, weights)."""
        import torch

        weight, *rest = (tensors[name] for name in self.parameters)
        if self.kind == "norm":
            return torch.stack([weight, *rest])
        weight = weight.T if self.transposed else weight
        return torch.cat([weight, *(bias[:, None] for bias in rest)], dim=1)

    def split(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parts of a matrix ``[..., O, I]`` shaped as the parameters, by name; inverts :meth:`matrix`."""
        if self.kind == "norm":
            return {name: matrix[..., row, :] for row, name in enumerate(self.parameters)}
        width = self.shape[1] - len(self.parameters) + 1
        weight = matrix[..., :width]
        parts = [weight.transpose(-1, -2) if self.transposed else weight]
        parts += [matrix[..., width + place] for place in range(len(self.parameters) - 1)]
        return dict(zip(self.parameters, parts, strict=True))


def find_sites(model: nn.Module, scope: str = "blocks", bias: bool | None = None) -> dict[str, Site]:
    """Return the sites of a parameter scope by name, in the model's order.

    ``scope``: ``blocks`` (every linear layer inside decoder blocks: q, k, v, o and the MLP), ``attention`` or ``mlp``
    (that half of the blocks), ``head``, ``embeddings`` (tokens and learned positions), ``norms``, several of them
    joined by ``+`` (``embeddings+head``; ``blocks+bias`` counts biases too), ``all`` (every parameter, biases
    included), or else a regular expression searched in the names of the layers. A tied weight is one site, in the scope
    of either use. ``bias`` overrules the scope. Raises :class:`UserError` when nothing matches, when ``all`` holds a
    parameter of a kind that is not known here, or when a parameter has a use besides those that its site captures.
    """
    parts = scope.split("+")
    named = all(part in (*SCOPES, "bias") for part in parts)
    biased = bias if bias is not None else named and not {"all", "bias"}.isdisjoint(parts)
    everything = {site.name: (site, labels) for site, labels in _sites(model, biased)}
    if named:
        sites = {name: site for name, (site, labels) in everything.items() if not labels.isdisjoint(parts)}
    else:
        try:
            sites = {name: site for name, (site, _) in everything.items() if re.search(scope, name)}
        except re.error as error:
            raise UserError(f"scope '{scope}': not a regular expression ({error})") from error
    if not sites:
        raise UserError(
            f"scope '{scope}' matches no layer of {type(model).__name__}; use {', '.join(SCOPES)}, several joined "
            f"by '+', or a regular expression over names such as {', '.join(list(everything)[:3]) or '(it has none)'}"
        )
    if named:
        _require_no_fused_experts(model, sites, parts)
    if named and "all" in parts and biased:
        _require_every_parameter(model, sites)
    _require_every_use(model, sites)
    return sites


def _sites(model: nn.Module, bias: bool) -> Iterator[tuple[Site, set[str]]]:
    """Yield every site with the scopes it belongs to."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    head = _call(model, "get_output_embeddings")
    tied = next((m for m in model.modules() if _is_embedding(m) and m.weight is getattr(head, "weight", None)), None)
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if id(weight) not in names or (module is head and tied is not None):
            continue
        block = _BLOCK.search(name)
        if module is tied and head is not None:
            owned = _owned(names, head, bias)
            shape = (weight.shape[0], weight.shape[1] + len(owned) - 1)
            yield Site(name, "tied", head, shape, owned, embedding=module), {"embeddings", "head", "all"}
        elif _is_embedding(module):
            yield Site(name, "embedding", module, tuple(weight.shape), (names[id(weight)],)), {"embeddings", "all"}
        elif _is_linear(module):
            transposed = type(module).__name__ == "Conv1D"
            owned = _owned(names, module, bias)
            rows, columns = reversed(weight.shape) if transposed else weight.shape
            kind: Kind = "head" if module is head else "linear"
            yield (
                Site(name, kind, module, (rows, columns + len(owned) - 1), owned, transposed),
                _linear_scopes(module is head, block["inside"] if block else None),
            )
        elif _is_norm(module):
            owned = _owned(names, module, True)
            yield Site(name, "norm", module, (len(owned), weight.shape[0]), owned), {"norms", "all"}


def _linear_scopes(head: bool, inside: str | None) -> set[str]:
    if head:
        return {"head", "all"}
    if inside is None:
        return {"all"}
    return {"blocks", "attention" if _ATTENTION.search(inside) else "mlp", "all"}


def _owned(names: Mapping[int, str], module: nn.Module, bias: bool) -> tuple[str, ...]:
    parameters: list[Any] = [module.weight]
    if bias and getattr(module, "bias", None) is not None:
        parameters.append(module.bias)
    return tuple(names[id(parameter)] for parameter in parameters)


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return _keeps_forward(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _is_embedding(module: nn.Module) -> bool:
    from torch import nn

    return _keeps_forward(module, nn.Embedding) or (isinstance(module, nn.Embedding) and _is_scaled(module))


def _is_scaled(module: nn.Module) -> bool:
    return type(module).__name__.endswith("ScaledWordEmbedding") and hasattr(module, "embed_scale")


def output_scale(embedding: nn.Module) -> float:
    """Return by what an embedding multiplies its rows: 1, but in Gemma and its like."""
    return float(getattr(embedding, "embed_scale", 1.0)) if _is_scaled(embedding) else 1.0


def _keeps_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    # A subclass that computes something else (an adapter) has another gradient.
    return isinstance(module, kind) and type(module).forward is kind.forward


def _is_norm(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    flat = set(own) <= {"weight", "bias"} and all(parameter.ndim == 1 for parameter in own.values())
    return flat and "norm" in type(module).__name__.lower() and not list(module.children())


def _require_no_fused_experts(model: nn.Module, sites: Mapping[str, Site], parts: Sequence[str]) -> None:
    """Raise where a scope names all weights of the blocks and some are experts' in one tensor."""
    if {"blocks", "mlp", "all"}.isdisjoint(parts):
        return
    covered = {name for site in sites.values() for name in site.parameters}
    for name, parameter in model.named_parameters():
        block = _BLOCK.search(name)
        if block is not None and parameter.ndim == 3 and name not in covered and "conv" not in name.lower():
            raise UserError(
                f"scope '{'+'.join(parts)}': {name} of {type(model).__name__} holds the weights of several experts in "
                "one tensor, whose gradients cannot be told apart by document; use scope attention, or "
                "attention+embeddings+head"
            )


def _require_every_parameter(model: nn.Module, sites: Mapping[str, Site]) -> None:
    covered = {name for site in sites.values() for name in site.parameters}
    left = [name for name, _ in model.named_parameters() if name not in covered]
    if left:
        raise UserError(
            f"scope 'all': parameter {left[0]} of {type(model).__name__} belongs to no layer that is known here; "
            "use a scope of known layers, such as blocks or blocks+embeddings+head"
        )


def _require_every_use(model: nn.Module, sites: Mapping[str, Site]) -> None:
    users: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for _, parameter in module.named_parameters(recurse=False):
            users.setdefault(id(parameter), []).append(name)
    own = dict(model.named_parameters())
    for site in sites.values():
        for place, name in enumerate(site.parameters):
            using = users[id(own[name])]
            if len(using) > (2 if site.kind == "tied" and place == 0 else 1):
                raise UserError(
                    f"parameter {name} of {type(model).__name__} is shared by {' and '.join(using)}, and the gradient "
                    "of one use is not its own; use a scope without it"
                )


def _call(model: nn.Module, method: str) -> nn.Module | None:
    function: Any = getattr(model, method, None)
    return function() if function is not None else None
