"""The leaderboard of a bench: every estimator tuned on one half of the queries and judged on the other.

Tuning and judging look at the same subset trainings, see :mod:`winnow.attribution.bench`. An estimator that learns from
subset trainings is given one half of them and tuned and judged on the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from winnow.attribution.bank import SubsetBank
from winnow.attribution.bench import Prepared
from winnow.attribution.damping import against_bank, damped_scores, sweep_damping
from winnow.attribution.estimators import Estimator, estimator_names, make_estimator
from winnow.attribution.lds import LDS, ceiling, lds, mean_lds
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.errors import UserError

log = logging.getLogger(__name__)

GRID: dict[str, tuple[Any, ...]] = {
    "scope": ("blocks", "head", "embeddings", "embeddings+head", "all"),
    "damping": (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
}
"""What is tried on the tuning queries, one setting after the other, of those that an estimator uses."""


@dataclass(frozen=True)
class Row:
    """An estimator's line of the leaderboard; what could not be measured has a ``reason`` and no LDS.

    ``lds`` on the judging queries over ``subsets`` subsets with its standard error ``se`` over subsets and queries
    (``subsets_se``, ``queries_se``: over one alone), ``tuning_lds`` on the others; ``seeds``: models trained on each
    subset; ``ceiling`` of these subsets and the judging queries; ``share`` = lds / ceiling. ``scope`` and ``damping``
    are None, and ``projection`` 0, where the estimator uses none; ``tuned``: scope or damping was chosen among others
    on the tuning queries; ``runs`` and ``checkpoints`` of each: what scores were averaged over; ``seconds`` to fit and
    to score the judging queries.
    """

    bench: str
    bank: str
    estimator: str
    scope: str | None
    damping: float | None
    projection: int
    seed: int
    runs: int
    checkpoints: int
    subsets: int
    seeds: int
    lds: float | None = None
    se: float | None = None
    subsets_se: float | None = None
    queries_se: float | None = None
    tuning_lds: float | None = None
    ceiling: float | None = None
    share: float | None = None
    seconds: float | None = None
    tuned: bool = False
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the row as a dictionary, in the order of the fields."""
        return asdict(self)


def leaderboard(
    prepared: Prepared,
    names: Sequence[str] | None = None,
    settings: Settings | None = None,
    *,
    tune: bool = True,
    average: bool = False,
    progress: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Return a row for each estimator (none named: every registered one), best first, those without a score last.

    ``average``: over every checkpoint of the runs, as if each were the last.
    """
    rows = []
    for name in names or estimator_names():
        rows.append(measure(prepared, name, settings or Settings(), tune=tune, average=average))
        log.info("%s", rows[-1])
        if progress is not None:
            progress(rows[-1])
    return sorted(rows, key=lambda row: (-(row.lds if row.lds is not None else -np.inf), row.estimator))


def measure(prepared: Prepared, name: str, settings: Settings, *, tune: bool = True, average: bool = False) -> Row:
    """Tune one estimator on the tuning queries and judge it on the others, its scores averaged over the runs.

    It is tuned on the first run's last checkpoint, whatever is averaged.
    """
    estimator = make_estimator(name)
    bank, fitting = prepared.bank, None
    if "bank" in estimator.needs:
        fitting, bank = bank.take(np.arange(len(bank.masks)) % 2 == 0), bank.take(np.arange(len(bank.masks)) % 2 == 1)
    runs = [replace(run, bank=fitting) for run in prepared.runs]
    members = _every_checkpoint(runs) if average and "checkpoints" not in estimator.needs else runs
    limit = ceiling(bank.losses[:, :, bank.columns(prepared.judging.tokens)])
    row = Row(
        prepared.bench.name,
        bank.digest,
        name,
        settings.scope if "scope" in estimator.uses else None,
        settings.damping if "damping" in estimator.uses else None,
        settings.projection if estimator.projects else 0,
        settings.seed,
        len(runs),
        len(members) // len(runs),
        len(bank.masks),
        bank.losses.shape[1],
        ceiling=limit if np.isfinite(limit) else None,
    )
    if missing := estimator.missing(runs[0]):
        return replace(row, reason=f"needs {missing}")
    try:
        found = _tuned(estimator, runs[0], prepared.tuning, bank, settings, tune)
        start = time.perf_counter()
        scores = _scores(estimator, members, prepared.judging, found.settings)
        seconds = time.perf_counter() - start
    except UserError as error:
        return replace(row, reason=str(error))
    judged = _judge(scores, bank, prepared.judging)
    return replace(
        row,
        scope=found.settings.scope if "scope" in estimator.uses else None,
        damping=found.settings.damping if "damping" in estimator.uses else None,
        lds=judged.mean,
        se=judged.se,
        subsets_se=judged.subsets_se,
        queries_se=judged.queries_se,
        tuning_lds=found.lds,
        share=judged.mean / limit if limit > 0.0 else None,
        seconds=seconds,
        tuned=found.tried > 1,
    )


def scores_of(prepared: Prepared, name: str, settings: Settings, *, average: bool = False) -> np.ndarray:
    """Return an estimator's scores of the judging queries, float64 ``[Q, N]``, untuned; to compare two estimators."""
    members = _every_checkpoint(prepared.runs) if average else prepared.runs
    return _scores(make_estimator(name), members, prepared.judging, settings)


@dataclass(frozen=True)
class _Tuned:
    settings: Settings
    lds: float
    tried: int


def _tuned(
    estimator: Estimator, run: TrainingRun, queries: Queries, bank: SubsetBank, settings: Settings, tune: bool
) -> _Tuned:
    """Choose the scope, then the damping, by the LDS on the tuning queries, of those that the estimator uses."""
    fitted = estimator.fit(run, settings)
    best = _Tuned(settings, _mean(fitted.score(queries), bank, queries), 1)
    for scope in GRID["scope"] if tune and "scope" in estimator.uses else ():
        if scope == settings.scope:
            continue
        tried = replace(settings, scope=scope)
        try:
            other = estimator.fit(run, tried)
            reached = _mean(other.score(queries), bank, queries)
        except UserError as error:
            # A scope that the estimator cannot take is no reason to leave out the others.
            log.info("%s, scope %s: %s", estimator.name, scope, error)
            continue
        best = replace(best, tried=best.tried + 1)
        if reached > best.lds:
            best, fitted = replace(best, settings=tried, lds=reached), other
        del other  # some hold every document's gradient: never more than the best and the next
    if tune and "damping" in estimator.uses:
        dampings = sorted({best.settings.damping, *GRID["damping"]})
        scores = damped_scores(estimator, run, best.settings, queries, dampings, fitted)
        sweep = sweep_damping(scores, against_bank(bank, queries))
        chosen = replace(best.settings, damping=sweep.best)
        best = _Tuned(chosen, float(sweep.means.max()), best.tried + len(dampings) - 1)
    return best


def _every_checkpoint(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    return [
        replace(run, checkpoints=run.checkpoints[:last]) for run in runs for last in range(1, len(run.checkpoints) + 1)
    ]


def _scores(estimator: Estimator, runs: Sequence[TrainingRun], queries: Queries, settings: Settings) -> np.ndarray:
    """Return the scores averaged over the runs, each query's brought to deviation 1 first where there are several."""
    scores = [estimator.fit(run, settings).score(queries) for run in runs]
    if len(scores) == 1:
        return scores[0]
    return np.mean([one / np.maximum(np.nanstd(one, axis=1, keepdims=True), 1e-300) for one in scores], axis=0)


def _judge(scores: np.ndarray, bank: SubsetBank, queries: Queries) -> LDS:
    return lds(scores, bank.masks, bank.losses[:, :, bank.columns(queries.tokens)])


def _mean(scores: np.ndarray, bank: SubsetBank, queries: Queries) -> float:
    return mean_lds(scores, bank.masks, bank.losses[:, :, bank.columns(queries.tokens)])
