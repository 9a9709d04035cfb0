r"""TrackStar: cosines of gradients that the optimiser's second moment and their own autocorrelation have whitened.

    u(z) = (R + mu I)^-1/2 P[V^-1/2 grad loss(z)],    I(q, i) = cos(u(q), u(i)),

layer by layer, the cosine over all layers. P is the two-sided projection. V is the second moment of the training
optimiser in Adafactor's factored form, r c^T / mean(r) with r, c the row and column means of Adam's exp_avg_sq, so that
dividing by its root only rescales the columns of P's two matrices. R mixes the queries' and the documents'
autocorrelations,

    R = lambda R_queries + (1 - lambda) R_documents,    lambda = s_d[k] / (s_q[k] + s_d[k]),

s the eigenvalues of all layers pooled and sorted, so that both weigh alike at component k = 1,000 (or half of the
non-zero ones where there are fewer than 2,000). ``options["lambda"]`` fixes it. mu = ``damping`` times the mean
eigenvalue of R. The scores of a query depend on the others asked with it, through R.

**Positive = helpful.** Source: Chang et al. 2024, section 3 and appendix A.1.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.estimators import Estimator, Fitted
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from winnow.attribution.autocorrelation import Autocorrelation, GradientRows, Spectrum
    from winnow.attribution.projected import Making
    from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun

COMPONENT = 1000
LEAST_MOMENT = 1e-3
"""Rows and columns of V are raised by so much of their mean: what never had a gradient does not rule the cosine."""


@dataclass(frozen=True)
class FittedTrackstar(Fitted):
    """``rows`` of the documents, in memory or stored, with ``order[k]`` the document of row k; R_documents by layer."""

    model: nn.Module
    making: Making
    rows: GradientRows
    order: np.ndarray
    autocorrelation: Mapping[str, Autocorrelation]
    damping: float
    share: float | None

    @classmethod
    def from_rows(
        cls,
        model: nn.Module,
        making: Making,
        rows: GradientRows,
        damping: float,
        share: float | None = None,
        order: np.ndarray | None = None,
    ) -> FittedTrackstar:
        """Fit R_documents to rows made by ``making`` (see :func:`scaled_making`) with ``model``: one pass over them."""
        from winnow.attribution.autocorrelation import autocorrelations

        order = np.arange(len(rows.usable)) if order is None else order
        return cls(model, making, rows, order, autocorrelations(rows, rows.layout.blocks), damping, share)

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.autocorrelation import autocorrelations, powered, products
        from winnow.attribution.projected import projected_gradients

        order = canonical_order(queries.tokens)
        asked = projected_gradients(self.model, [queries.tokens[place] for place in order], self.making)
        blocks = asked.layout.blocks
        theirs = autocorrelations(asked, blocks)
        share = self.share if self.share is not None else mixing_share(self.autocorrelation, theirs)
        spectra = {name: theirs[name].mixed(self.autocorrelation[name], share).spectrum() for name in blocks}
        directions = powered(asked.values, spectra, blocks, -1.0, self.damping)
        query_norms = _norms(asked, spectra, self.damping)
        document_norms = _norms(self.rows, spectra, self.damping)
        found = products(directions / query_norms[:, None], self.rows) / document_norms.numpy()
        found[~asked.usable] = np.nan
        scores = np.empty_like(found)
        scores[np.ix_(order, self.order)] = found
        return scores

    def _damped(self, damping: float) -> FittedTrackstar:
        return replace(self, damping=damping)


class Trackstar(Estimator, name="trackstar", needs=frozenset({"optimizer"})):
    """Whitened cosines at the last checkpoint."""

    projects = True
    options = frozenset({"lambda"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedTrackstar:
        from winnow.attribution.projected import projected_gradients

        share = settings.options.get("lambda")
        if share is not None and not 0.0 <= share <= 1.0:
            raise UserError(f"trackstar's lambda {share}: the share of the queries in R lies between 0 and 1")
        model, order = run.final.load(), canonical_order(run.documents)
        making = scaled_making(model, run.final, settings)
        rows = projected_gradients(model, [run.documents[place] for place in order], making)
        return FittedTrackstar.from_rows(model, making, rows, settings.damping, share, order)


def scaled_making(model: nn.Module, checkpoint: RunCheckpoint, settings: Settings) -> Making:
    """Return how rows are made: gradients divided by V's factored root, projected as ``settings`` say."""
    from winnow.attribution.projected import Making
    from winnow.attribution.projection import Projection
    from winnow.attribution.sites import find_sites

    state, scales = checkpoint.optimizer or {}, {}
    for name, site in find_sites(model, settings.scope).items():
        lacking = [one for one in site.parameters if "exp_avg_sq" not in state.get(one, {})]
        if lacking:
            raise UserError(
                f"trackstar needs the optimiser's second moments; there is no exp_avg_sq of {lacking[0]} with "
                f"checkpoint '{checkpoint.name}'"
            )
        scales[name] = factored_roots(site.matrix({one: state[one]["exp_avg_sq"] for one in site.parameters}))
    return Making(settings.scope, Projection(settings.projection, settings.seed), scales=scales)


def factored_roots(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(r / mean(r)) ``[O]`` and sqrt(c) ``[I]`` of a second moment ``[O, I]``: its factored root.

    Ones where it is zero throughout.
    """
    import torch

    rows, columns = moment.double().mean(dim=1), moment.double().mean(dim=0)
    mean = rows.mean()
    if mean <= 0.0:
        return torch.ones_like(rows), torch.ones_like(columns)
    return (rows / mean + LEAST_MOMENT).sqrt(), (columns + LEAST_MOMENT * mean).sqrt()


def mixing_share(documents: Mapping[str, Autocorrelation], queries: Mapping[str, Autocorrelation]) -> float:
    """Return lambda, the queries' share that weighs both alike at the component; 0.5 where either has no gradient."""
    theirs, ours = _pooled(queries), _pooled(documents)
    fewest = min(len(theirs), len(ours))
    if fewest == 0:
        return 0.5
    place = min(COMPONENT, fewest // 2)
    return float(ours[place] / (theirs[place] + ours[place]))


def _pooled(autocorrelation: Mapping[str, Autocorrelation]) -> np.ndarray:
    values = np.concatenate([block.eigenvalues().numpy() for block in autocorrelation.values()])
    return np.sort(values[values > 0])[::-1]


def _norms(rows: GradientRows, spectra: Mapping[str, Spectrum], damping: float) -> torch.Tensor:
    """Return |u| of every row, float64 ``[n]``; 1 for a row without gradient."""
    import torch

    total = torch.zeros(len(rows.usable), dtype=torch.float64)
    for where, values in rows.blocks():
        for name, columns in rows.layout.blocks.items():
            total[where] += spectra[name].form(values[:, columns], -1.0, damping)
    return torch.where(total > 0.0, total, 1.0).sqrt()
