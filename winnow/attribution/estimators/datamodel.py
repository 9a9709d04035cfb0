r"""Linear datamodels: what models trained on subsets lost, regressed on which documents they had.

    -L_q(theta(S)) = b_q + sum_{i in S} w_qi        score(q, i) = w_qi

by ridge regression with a penalty chosen by leaving one subset out (:mod:`winnow.attribution.ridge`). It learns from
``run.bank`` and knows the bank's queries only; to be judged, it must be fitted to other subsets of the bank than those
that judge it (``bank.take``). Source: Ilyas et al. 2022 (Datamodels), section 2; Engstrom et al. 2024 (DsDm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.bank import SubsetBank
from winnow.attribution.estimators import Estimator, Fitted
from winnow.attribution.ridge import fit_ridge
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.errors import UserError


@dataclass(frozen=True)
class FittedDatamodel(Fitted):
    """The subsets and their losses."""

    bank: SubsetBank

    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, nats. Raises :class:`UserError` for a query that the bank was not measured on."""
        losses = self.bank.losses[:, :, self.bank.columns(queries.tokens)].mean(axis=1)
        return fit_ridge(self.bank.masks.astype(np.float64), -losses).weights.T


class Datamodel(Estimator, name="datamodel", needs=frozenset({"bank"})):
    """Ridge regression on subset membership."""

    uses = frozenset()

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        return FittedDatamodel(require_bank(run))


def require_bank(run: TrainingRun) -> SubsetBank:
    """Return the run's bank. Raises :class:`UserError` where there is none, or it has too few subsets."""
    if run.bank is None or len(run.bank.masks) < 4:
        raise UserError("a datamodel learns from models trained on subsets; train a bank of at least 4 first")
    return run.bank
