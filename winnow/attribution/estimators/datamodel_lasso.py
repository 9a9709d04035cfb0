"""Linear datamodels that are sparse: the lasso on subset membership, its penalty chosen by five-fold cross-validation.

As :mod:`winnow.attribution.estimators.datamodel`, for where few documents matter to a query: most weights are zero.
Source: Ilyas et al. 2022 (Datamodels), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.bank import SubsetBank
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.estimators.datamodel import require_bank
from winnow.attribution.run import Queries, Settings, TrainingRun


@dataclass(frozen=True)
class FittedLasso(Fitted):
    """The subsets and their losses."""

    bank: SubsetBank

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats. Raises :class:`UserError` for a query that the bank was not measured on."""
        from sklearn.linear_model import LassoCV

        losses = self.bank.losses[:, :, self.bank.columns(queries.tokens)].mean(axis=1)
        masks = self.bank.masks.astype(np.float64)
        scores = np.empty((len(queries), masks.shape[1]))
        for row, values in enumerate(losses.T):
            scale = values.std()
            if scale == 0.0:
                scores[row] = 0.0
                continue
            model = LassoCV(alphas=20, cv=min(5, len(masks)), max_iter=2000, tol=1e-3, precompute=False)
            scores[row] = model.fit(masks, -(values - values.mean()) / scale).coef_ * scale
        return scores


class DatamodelLasso(Estimator, name="datamodel_lasso", needs=frozenset({"bank"})):
    """The lasso on subset membership."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return FittedLasso(require_bank(run))
