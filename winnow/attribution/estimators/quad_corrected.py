r"""Quad's influence as its text describes it: the cosine of EK-FAC's inverse curvature product with the gradient.

    score(q, i) = cos(P iHVP(g_q), P G_i),

with iHVP as in :mod:`winnow.attribution.kronecker`, on every layer of the scope **attention projections included**, and
P the two-sided projection of each layer to ``projection`` rows and columns (0: none). The cosine is over all layers.

This is not what the released code of Quad computes: that leaves out the attention projections, multiplies by the
damped curvature where the text divides, and mixes a rotation with its transpose; on a small layer its result had cosine
0.2 with the inverse product and 0.5 with the product. Hence the name. The rewards of clusters are means of these scores
over a sample of their documents. Source: Zhang et al. 2024 (Quad), section 3; George et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    import torch

    from winnow.attribution.gradient_sums import GradientSums
    from winnow.attribution.kronecker import Curvature
    from winnow.attribution.projected import ProjectedGradients
    from winnow.attribution.projection import Projection
    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedQuad(Fitted):
    """Curvature, and of the documents either squared norms float64 ``[N]`` or ``rows`` of projected gradients."""

    source: GradientSums
    curvature: Curvature
    damping: float
    projection: Projection
    norms: np.ndarray | None
    rows: ProjectedGradients | None

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, scope_size

        return in_blocks(queries, scope_size(self.source.model, self.source.scope), self._score)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients

        directions = query_gradients(self.source.model, queries.tokens, self.source.scope)
        for name, layer in self.curvature.layers.items():
            directions[name] = layer.solve(directions[name], self.damping)
        if self.norms is not None:
            return self.source.cosines(directions, self.norms)
        return self._projected(directions)

    def _projected(self, directions: dict[str, torch.Tensor]) -> np.ndarray:
        import torch

        from winnow.attribution.autocorrelation import products

        if self.rows is None:
            raise ValueError("neither norms nor projected gradients of the documents")
        total = torch.zeros(len(next(iter(directions.values()))), self.rows.layout.width)
        for name, columns in self.rows.layout.blocks.items():
            value = directions[name]
            left, right = (side.to(value) for side in self.projection.sides(name, (value.shape[1], value.shape[2])))
            total[:, columns] = (left @ value @ right.T).flatten(1).cpu()
        norms = np.ones(len(self.rows.usable))
        for where, values in self.rows.blocks():
            norms[where] = values.double().norm(dim=1).numpy()
        norms[norms == 0.0] = 1.0
        scores: np.ndarray = products(_unit(total), self.rows) / norms
        return scores

    def _damped(self, damping: float) -> FittedQuad:
        return replace(self, damping=damping)


class QuadCorrected(Estimator, name="quad_corrected"):
    """Cosine with the inverse curvature product."""

    projects = True
    options = frozenset({"empirical"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedQuad:
        from winnow.attribution.capture import capturing, context_length
        from winnow.attribution.curvature import Labels, fit_curvature
        from winnow.attribution.gradient_sums import GradientSums
        from winnow.attribution.projected import Making, projected_gradients
        from winnow.attribution.projection import Projection

        source = GradientSums(run.final.load(), run.documents, settings.scope)
        labels: Labels = "text" if settings.options.get("empirical") else "sampled"
        with capturing(source.model, settings.scope) as capture:
            curvature = fit_curvature(
                capture, run.documents, context_length(source.model), labels=labels, seed=settings.seed
            )
        projection = Projection(settings.projection, settings.seed)
        norms = rows = None
        if settings.projection:
            rows = projected_gradients(source.model, run.documents, Making(settings.scope, projection))
        else:
            norms = source.total_norms()
        return FittedQuad(source, curvature, settings.damping, projection, norms, rows)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    norms = rows.norm(dim=1, keepdim=True)
    return rows / norms.masked_fill(norms == 0.0, 1.0)
