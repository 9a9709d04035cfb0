r"""LoGra: influence in the space of two-sided projections, with the empirical Fisher of the projected gradients.

    I(q, i) = sum over layers p_q^T (R + mu I)^-1 p_i,    p = P[G],    R = (1/N) sum_i p_i p_i^T

with P the two-sided projection, mu = ``damping`` times R's mean eigenvalue and G gradients of mean token losses at the
last checkpoint. Without projection R is the layer's own empirical Fisher, inverted exactly among the N documents.
**Positive = helpful.**

Source: Choe et al. 2024, section 3 ("What is your data worth to GPT?"), with its raw projected Hessian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from winnow.attribution.autocorrelation import GradientRows, Spectrum
    from winnow.attribution.projected import Making
    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedLogra(Fitted):
    """``rows`` of the documents, in memory or stored, with ``order[k]`` the document of row k; ``spectra`` of R."""

    model: nn.Module
    making: Making
    rows: GradientRows
    order: np.ndarray
    spectra: Mapping[str, Spectrum]
    damping: float

    @classmethod
    def from_rows(
        cls, model: nn.Module, making: Making, rows: GradientRows, damping: float, order: np.ndarray | None = None
    ) -> FittedLogra:
        """Fit R to rows made by ``making`` with ``model``: one pass over them."""
        from winnow.attribution.autocorrelation import autocorrelations

        spectra = {name: block.spectrum() for name, block in autocorrelations(rows, rows.layout.blocks).items()}
        order = np.arange(len(rows.usable)) if order is None else order
        return cls(model, making, rows, order, spectra, damping)

    def directions(self, queries: Queries) -> tuple[torch.Tensor, np.ndarray]:
        """Return (R + mu I)^-1 p_q, float64 ``[Q, D]``, and which queries have a gradient, bool ``[Q]``."""
        from winnow.attribution.autocorrelation import powered
        from winnow.attribution.projected import projected_gradients

        asked = projected_gradients(self.model, queries.tokens, self.making)
        return powered(asked.values, self.spectra, asked.layout.blocks, -1.0, self.damping), asked.usable

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.autocorrelation import products

        directions, usable = self.directions(queries)
        scores = np.empty((len(queries), len(self.order)))
        scores[:, self.order] = products(directions, self.rows)
        scores[~usable] = np.nan
        return scores

    def _damped(self, damping: float) -> FittedLogra:
        return replace(self, damping=damping)


class Logra(Estimator, name="logra"):
    """Projected gradients against their inverse autocorrelation."""

    projects = True

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedLogra:
        from winnow.attribution.projected import Making, projected_gradients
        from winnow.attribution.projection import Projection

        model, order = run.final.load(), canonical_order(run.documents)
        making = Making(settings.scope, Projection(settings.projection, settings.seed))
        rows = projected_gradients(model, [run.documents[place] for place in order], making)
        return FittedLogra.from_rows(model, making, rows, settings.damping, order)
