"""One forward and backward pass: what each site saw on the way up, met with its gradient on the way down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from winnow.attribution.batching import Batch
from winnow.attribution.ghost import DenseGradients, LinearGradients, SiteGradients
from winnow.attribution.lookups import EmbeddingGradients, TiedGradients
from winnow.attribution.sites import Site, output_scale
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

Visit = Callable[[Site, SiteGradients], None]
"""Called in the backward pass with the gradients of one site, last site first; they are freed when it returns."""


class Pass:
    """One forward and backward pass: what each site saw on the way up, until its gradient comes down."""

    def __init__(self, batch: Batch, visit: Visit, mask: torch.Tensor | None, in_parts: bool) -> None:
        self.leaves: list[torch.Tensor] = []
        self._batch, self._visit, self._in_parts = batch, visit, in_parts
        self._mask = None if mask is None or bool(mask.all()) else mask
        self._pending: set[tuple[str, bool]] = set()
        self._seen: set[str] = set()
        self._heads: dict[str, LinearGradients] = {}
        self._shared: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}

    def saw(self, site: Site, given: torch.Tensor, output: torch.Tensor, embeds: bool) -> torch.Tensor:
        """Note a site's input and have its gradient taken when it comes; the output, made to require one."""
        key = (site.name, embeds)
        rows = len(self._batch.inputs)
        if key in self._pending:
            raise UserError(f"layer {site.name} runs twice in one forward pass; leave it out of the scope")
        if embeds and len(output) == 1 < rows:  # positions are looked up once for all rows
            given, output = given.expand(rows, -1), output.expand(rows, -1, -1)
        if (output.ndim != 3 and not (site.kind == "norm" and output.ndim == 4)) or len(output) != rows:
            raise UserError(
                f"layer {site.name}: its output has shape {tuple(output.shape)}, not rows by positions by width (as "
                "of an expert that sees some tokens only); use a scope without it, such as attention"
            )
        if not output.requires_grad:
            output = output.detach().requires_grad_()
            self.leaves.append(output)
        self._pending.add(key)
        kept = [given]

        def came(gradient: torch.Tensor) -> None:
            self._pending.discard(key)
            self._seen.add(site.name)
            self._take(site, kept.pop(), gradient, embeds)

        output.register_hook(came)
        return output

    def require_all(self, sites: dict[str, Site]) -> None:
        """Raise :class:`UserError` for a site that the loss does not depend on."""
        idle = next((name for name in sites if name not in self._seen), None)
        if idle is not None:
            raise UserError(f"layer {idle} takes no part in the loss; leave it out of the scope")

    def _take(self, site: Site, given: torch.Tensor, gradient: torch.Tensor, embeds: bool) -> None:
        if site.kind == "norm":
            self._visit(site, DenseGradients(site, self._norm(site, given, gradient)))
        elif embeds:
            module: Any = site.embedding if site.kind == "tied" else site.module
            if module.padding_idx is not None:  # a token whose vector is never trained
                gradient = gradient.masked_fill((given == module.padding_idx)[:, :, None], 0.0)
            if (scale := output_scale(module)) != 1.0:
                gradient = gradient * scale
            found = EmbeddingGradients(site, by_document(self._batch, given), by_document(self._batch, gradient))
            head = self._heads.pop(site.name, None)
            self._visit(site, found if head is None else TiedGradients(site, head, found))
        else:
            linear = LinearGradients(
                site, self._inputs(site, given, gradient.dtype), by_document(self._batch, gradient)
            )
            if site.kind == "tied" and not self._in_parts:
                self._heads[site.name] = linear
            else:
                self._visit(site, linear)

    def _inputs(self, site: Site, given: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a linear layer's inputs by document; q, k and v read one tensor, as do gate and up: made once."""
        import torch

        known = self._shared.get(site.bias)
        if known is not None and known[0] is given:
            return known[1]
        made = given.detach().to(dtype)  # in mixed precision, what the layer multiplied
        if self._mask is not None:
            # Filled before anything is summed over positions: zero times infinity is not zero.
            made = made.masked_fill(~self._mask[:, :, None], 0.0)
        if site.bias:
            ones = made.new_ones(made.shape[:2]) if self._mask is None else self._mask.to(made)
            made = torch.cat([made, ones[:, :, None]], dim=2)
        made = by_document(self._batch, made)
        self._shared = {site.bias: (given, made)}
        return made

    def _norm(self, site: Site, given: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradients of gain and bias, float32 ``[B, 1 or 2, E]``."""
        import torch

        gradient = gradient.float()
        rows = [self._summed(site, _normalised(site, given.detach()).mul_(gradient))]
        if site.bias:
            rows.append(self._summed(site, gradient))
        return torch.stack(rows, dim=1)

    def _summed(self, site: Site, terms: torch.Tensor) -> torch.Tensor:
        """Return each document's sum over positions, ``[B, E]``, and over heads where a gain is that of every head."""
        if terms.ndim == 4 and self._batch.packing is not None:
            positions = self._batch.inputs.shape[1]
            if terms.shape[1] == terms.shape[2]:
                raise UserError(
                    f"layer {site.name}: as many heads as positions, so its gradient cannot be told apart by document "
                    "in packed windows; do not pack, or leave it out of the scope"
                )
            terms = (terms if terms.shape[1] == positions else terms.transpose(1, 2)).sum(dim=2)
        return by_document(self._batch, terms).flatten(1, -2).sum(dim=1)


def _normalised(site: Site, given: torch.Tensor) -> torch.Tensor:
    """Return the derivative of a normalisation's output with respect to its gain, float32 ``[B, T, E]``."""
    import torch

    # The output is linear in gain and bias, whatever the family's formula (Gemma's gain is 1 + weight).
    own = dict(site.module.named_parameters(recurse=False))
    zeros = {name: torch.zeros_like(value) for name, value in own.items()}
    ones = zeros | {"weight": torch.ones_like(own["weight"])}
    call: Any = torch.func.functional_call
    return call(site.module, ones, (given.float(),)).float() - call(site.module, zeros, (given.float(),)).float()


def by_document(batch: Batch, tensor: torch.Tensor) -> torch.Tensor:
    """Return ``[R, T', ...]``, each document's positions (zeros after its last), from ``[B, T, ...]``.

    An unpacked batch has a document a row already and its tensor comes back as it is.
    """
    import torch

    if batch.packing is None:
        return tensor
    places = torch.from_numpy(batch.packing.places).to(tensor.device)
    found = tensor.flatten(0, 1)[places.clamp(min=0)]
    return found.masked_fill_((places < 0).view(*places.shape, *(1,) * (tensor.ndim - 2)), 0)
