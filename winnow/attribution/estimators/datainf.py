r"""DataInf: the inverse of the empirical Fisher with inverse and mean exchanged, in closed form.

Per layer, with v = g_q and lambda = ``damping`` times the mean over documents and parameters of g_n^2,

    r = 1/(N lambda) sum_n [ v - (v . g_n) / (lambda + |g_n|^2) g_n ],        score(q, i) = sum over layers <r, g_i>,

**positive = helpful** (the released code returns the negative). Exact where N = 1; each term inverts one document's
rank-one Fisher, so it drifts from the inverse of their mean as layers grow. Three passes over the documents a query set
and one for the norms. Source: Kwon et al. 2024 (DataInf), equation 5; lambda as in its section 3, damping 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.gradient_sums import GradientSums
    from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedDataInf(Fitted):
    """The documents, their squared norms float64 ``[N]`` by layer, and which are usable, bool ``[N]``."""

    source: GradientSums
    norms: dict[str, torch.Tensor]
    usable: np.ndarray
    damping: float

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks, scope_size

        # Gradients, their sums in float64, and directions.
        return in_blocks(queries, scope_size(self.source.model, self.source.scope), self._score, held=4)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients, score_along

        gradients = query_gradients(self.source.model, queries.tokens, self.source.scope)
        products, _ = self.source.products(gradients)
        count = int(self.usable.sum())
        floors, weights = {}, {}
        for name, norms in self.norms.items():
            floors[name] = self.damping * float(norms.sum()) / (count * gradients[name][0].numel())
            damped = norms + floors[name]
            weights[name] = products[name] / damped.masked_fill(damped == 0.0, 1.0) / count
        sums = self.source.weighted_sums(weights)
        directions = {
            # A layer without any gradient has lambda 0, and no direction.
            name: ((value.double() - sums[name]) / floors[name]).float() if floors[name] > 0.0 else value * 0.0
            for name, value in gradients.items()
        }
        return score_along(self.source.model, self.source.docs, directions, self.source.scope).influence

    def _damped(self, damping: float) -> FittedDataInf:
        _require_positive(damping)
        return replace(self, damping=damping)


class DataInf(Estimator, name="datainf"):
    """Mean of inverses for the inverse of the mean."""

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedDataInf:
        from winnow.attribution.gradient_sums import GradientSums

        _require_positive(settings.damping)
        source = GradientSums(run.final.load(), run.documents, settings.scope)
        norms, usable = source.norms()
        if not usable.any():
            raise UserError("none of the run's documents has a finite loss and gradient; check the checkpoint")
        return FittedDataInf(source, norms, usable, settings.damping)


def _require_positive(damping: float) -> None:
    if damping <= 0.0:
        raise UserError(f"damping {damping}: DataInf divides by it; give a positive one")
