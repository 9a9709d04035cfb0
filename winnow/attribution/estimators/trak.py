r"""TRAK: the model as a logistic regression on its gradients, averaged over checkpoints.

    I(q, i) = mean_m [phi_m(q)^T (Phi_m^T Phi_m + mu I)^-1 phi_m(i)]  *  mean_m [1 - p_m(i)]

phi(z) is the (projected) gradient of the margin f(z) = sum over tokens of log(p / (1 - p)), Phi the N documents', all
layers one block, mu = ``damping`` times the mean eigenvalue of Phi^T Phi. The two means over checkpoints m are taken
separately, as the released code does. **Positive = helpful**: more of document i raises the query's margin.

Conventions where the paper speaks of classifiers: a document's margin is the *sum* over its tokens, so that longer
documents count for more; p(i) is the *mean* of its tokens' probabilities. Checkpoints are weighted alike and their
kernels are not rescaled (phi^T (Phi^T Phi)^-1 phi has no scale of its own), where the released code divides each
inverse by its mean absolute entry. Two-sided projections layer by layer take the place of one dense random matrix.

Source: Park et al. 2023 (TRAK), section 3 and equation 17.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.estimators import Estimator, Fitted

if TYPE_CHECKING:
    from winnow.attribution.autocorrelation import Spectrum
    from winnow.attribution.projected import Making, ProjectedGradients
    from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun


@dataclass(frozen=True)
class FittedTrak(Fitted):
    """One entry a checkpoint: the documents' margins' gradients, and the spectrum of their autocorrelation."""

    checkpoints: tuple[RunCheckpoint, ...]
    making: Making
    rows: tuple[ProjectedGradients, ...]
    spectra: tuple[Spectrum, ...]
    order: np.ndarray
    damping: float

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.autocorrelation import products
        from winnow.attribution.projected import projected_gradients

        total = np.zeros((len(queries), len(self.order)))
        doubts = np.zeros(len(self.order))
        for checkpoint, rows, spectrum in zip(self.checkpoints, self.rows, self.spectra, strict=True):
            asked = projected_gradients(checkpoint.load(), queries.tokens, self.making)
            directions = spectrum.power(asked.values, -1.0, self.damping) / max(1, int(rows.usable.sum()))
            kernel = products(directions, rows)
            kernel[~asked.usable] = np.nan
            total += kernel
            doubts += rows.doubts
        scores = np.empty_like(total)
        scores[:, self.order] = total * doubts / len(self.checkpoints) ** 2
        return scores

    def _damped(self, damping: float) -> FittedTrak:
        return replace(self, damping=damping)


class Trak(Estimator, name="trak"):
    """Tracing with the randomly projected after-kernel, over all checkpoints of the run."""

    projects = True

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedTrak:
        from winnow.attribution.autocorrelation import autocorrelations
        from winnow.attribution.projected import Making, projected_gradients
        from winnow.attribution.projection import Projection

        making = Making(settings.scope, Projection(settings.projection, settings.seed), "margin")
        order = canonical_order(run.documents)
        docs = [run.documents[place] for place in order]
        rows = tuple(projected_gradients(checkpoint.load(), docs, making) for checkpoint in run.checkpoints)
        spectra = tuple(autocorrelations(one, {"all": slice(0, one.layout.width)})["all"].spectrum() for one in rows)
        return FittedTrak(run.checkpoints, making, rows, spectra, order, settings.damping)
