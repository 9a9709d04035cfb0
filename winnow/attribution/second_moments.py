r"""Second moments of gradients per weight, V ``[O, I]`` by site: Adam's, Adafactor's of rank one, or measured.

Adam's is the bias-corrected exp_avg_sq, v / (1 - beta2^step). Adafactor keeps row means r and column means c only and
takes

    V = r c^T / mean(r),

whose inverse root rescales rows and columns and so keeps a gradient's rank and its projections cheap. ``rank_one``
gives r and c of any V. Without an optimiser's state V can be measured: the mean over documents of the squared gradient.

Source: Kingma and Ba 2015 (Adam); Shazeer and Stern 2018 (Adafactor), algorithm 1; Chang et al. 2024 (TrackStar),
section 3, which normalises gradients by Adafactor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import batches, canonical_order
from winnow.attribution.capture import Capture
from winnow.attribution.sites import Site
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

State = Mapping[str, Mapping[str, Any]]
BETA2 = 0.95
"""Of a state that does not say; MATES's."""


def adam_second_moments(
    sites: Mapping[str, Site], state: State | None, beta2: float = BETA2, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the bias-corrected V of every site, float64 ``[O, I]``, from an optimiser's state by parameter name.

    An Adafactor state (``row_var`` and ``col_var``, or ``exp_avg_sq_row`` and ``exp_avg_sq_col``) gives its product of
    rank one; it corrects its bias by itself. Raises :class:`UserError` where a parameter has neither.
    """
    return {
        name: site.matrix(
            {one: _moment(one, (state or {}).get(one), beta2).to(device) for one in site.parameters}
        ).double()
        for name, site in sites.items()
    }


def gradient_second_moments(capture: Capture, docs: Sequence[np.ndarray], context: int) -> dict[str, torch.Tensor]:
    """Return the mean over documents of the squared gradient of each one's mean loss, float64 ``[O, I]`` by site.

    The order given changes no bit. Raises :class:`UserError` when no document has a finite loss and gradient.
    """
    import torch

    ordered = [docs[position] for position in canonical_order(docs)]
    sums = {
        name: torch.zeros(site.shape, dtype=torch.float64, device=capture.device)
        for name, site in capture.sites.items()
    }
    used = 0
    for batch in batches(ordered, context, full=False):
        captured = capture.run(batch)
        used += int(captured.usable.sum())
        for name, gradients in captured.sites.items():
            for start, stop in gradients.chunks():
                sums[name][start:stop] += gradients.rows(start, stop).square().sum(dim=0)
    if used == 0:
        raise UserError(f"none of the {len(docs)} documents has a finite loss and gradient; check the checkpoint")
    return {name: total / used for name, total in sums.items()}


def rank_one(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return r ``[O]`` and c ``[I]``, float64, with r c^T the rank-one V of Adafactor; all zero where V is."""
    import torch

    moment = moment.double().clamp(min=0.0)
    rows, columns = moment.mean(dim=1), moment.mean(dim=0)
    mean = float(rows.mean())
    return (rows / mean, columns) if mean > 0.0 else (torch.zeros_like(rows), torch.zeros_like(columns))


def damped_quotient(gradient: torch.Tensor, denominator: torch.Tensor, damping: float) -> torch.Tensor:
    """Return gradient / (d + damping * mean(d)), float64 ``[..., O, I]``, for d = ``denominator`` ``[O, I]`` >= 0.

    Where the divisor is zero, or zero beside the largest, so is the quotient (the pseudo-inverse): no document moves
    such a weight. What is not finite in the gradient stays so.
    """
    import torch

    denominator = denominator.double()
    divisor = denominator + damping * denominator.mean()
    # Curvature is a square of what float32 resolves.
    least = divisor.max() * torch.finfo(torch.float32).eps ** 2
    return gradient.double() / divisor.masked_fill(divisor <= least, torch.inf)


def _moment(name: str, entry: Mapping[str, Any] | None, beta2: float) -> torch.Tensor:
    entry = entry or {}
    if "exp_avg_sq" in entry:
        corrected: torch.Tensor = entry["exp_avg_sq"].double() / (1.0 - beta2 ** max(float(entry.get("step", 1)), 1.0))
        return corrected
    for rows, columns in (("row_var", "col_var"), ("exp_avg_sq_row", "exp_avg_sq_col")):
        if rows in entry and columns in entry:
            row, column = entry[rows].double().flatten(), entry[columns].double().flatten()
            return row[:, None] * column / row.mean().clamp(min=1e-300)
    if "variance" in entry:  # torch's Adafactor of a vector
        variance: torch.Tensor = entry["variance"].double()
        return variance
    raise UserError(f"the optimiser state has no exp_avg_sq of {name}; save it with the checkpoint")
