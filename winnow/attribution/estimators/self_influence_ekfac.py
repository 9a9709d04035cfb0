"""Self-influence in its curvature form, at the last checkpoint; the same row for every query.

The squared norm of the gradient in the metric of the inverse EK-FAC curvature. See :mod:`self_influence
<winnow.attribution.estimators.self_influence>` for what it is good for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from winnow.attribution.estimators import Estimator
from winnow.attribution.estimators.self_influence import FittedSelfInfluence

if TYPE_CHECKING:
    from winnow.attribution.run import Settings, TrainingRun


class SelfInfluenceEkfac(Estimator, name="self_influence_ekfac"):
    """The curvature form at the last checkpoint."""

    options = frozenset({"empirical"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedSelfInfluence:
        from winnow.attribution.capture import capturing, context_length
        from winnow.attribution.curvature import Labels, fit_curvature
        from winnow.attribution.self_influence import self_influence

        model = run.final.load()
        labels: Labels = "text" if settings.options.get("empirical") else "sampled"
        with capturing(model, settings.scope) as capture:
            curvature = fit_curvature(capture, run.documents, context_length(model), labels=labels, seed=settings.seed)
        return FittedSelfInfluence(
            self_influence(model, run.documents, settings.scope, curvature=curvature, damping=settings.damping)
        )
