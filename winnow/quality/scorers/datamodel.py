r"""DsDm: the weight of a document in a linear model of what training on a subset does to the reference.

    -L_q(theta(S)) ~ b_q + sum_{i in S} w_qi,       score(i) = mean over reference items q of w_qi

The weights are estimated by TRAK at the checkpoints (``estimator = "trak"``, as in the paper; ``projection`` rows and
columns a layer), or regressed on a bank of models trained on subsets of these very documents (``"datamodel"``,
``"datamodel_lasso"``), or by any other estimator of :mod:`winnow.attribution.estimators` that gives a score for each
item and document. TRAK's kernel is that of the documents scored, so all candidates go in one call. Positive = helpful.

TRAK's gradients are of a document's summed margin, so that long documents weigh more: with ``per_token`` the weights
are divided by the tokens that were read, the measure that a budget of tokens needs.

Source: Engstrom et al. 2024, "DsDm: Model-Aware Dataset Selection with Datamodels" (arXiv 2401.12926), section 3; the
released code holds selections only. Park et al. 2023 (TRAK).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.batching import tokens_used
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option


@dataclass(frozen=True)
class Options:
    estimator: str = option("trak")
    scope: str = option("blocks")
    projection: int = option(16, 0)
    damping: float = option(0.1, 0.0)
    per_token: bool = option(True)


@dataclass(eq=False)
class FittedDatamodel(Fitted):
    """The context; all else needs the candidates themselves."""

    options: Options
    context: ScorerContext

    def _score(self, documents: Documents) -> Scored:
        from winnow.attribution.capture import context_length
        from winnow.attribution.estimators import make_estimator
        from winnow.attribution.run import Queries, Settings, TrainingRun

        assert self.context.reference is not None
        if not len(documents):
            return Scored(np.zeros(0), ())
        options = self.options
        settings = Settings(options.scope, options.damping, options.projection, self.context.seed)
        tokens = list(documents.rows("tokens", 0, len(documents)))
        run = TrainingRun(tokens, self.context.checkpoints, bank=self.context.bank)
        fitted = make_estimator(options.estimator).fit(run, settings)
        weights = fitted.score(Queries(self.context.reference.sorted_rows("tokens")))
        known = weights[np.isfinite(weights).any(axis=1)]  # a reference item of one token says nothing
        values = known.sum(axis=0) / (len(known) or np.nan)
        model = self.context.checkpoints[-1].load()
        used = tokens_used(tokens, context_length(model))
        if options.per_token:
            values = values / np.maximum(1, used)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        flops = 6.0 * float(used.sum()) * parameters * len(self.context.checkpoints)
        return with_reason(values, "it has no finite weight in the datamodel", flops)


class Datamodel(Scorer, name="datamodel", needs=("tokens", "reference", "model"), whole=True):
    """The mean datamodel weight over the reference's items."""

    Options = Options

    @property
    def needs(self) -> frozenset[str]:
        from winnow.attribution.estimators import make_estimator

        return self._needs | (make_estimator(self.options.estimator).needs & {"optimizer", "bank"})

    def _fit(self, context: ScorerContext) -> FittedDatamodel:
        return FittedDatamodel(self.options, context)
