r"""How much sooner a preset's model is where the random one ends, in tokens and in operations.

The mean curve over seeds of the judging loss is made monotone (the least so far), and read between its points on
straight lines: t* = the tokens at which it reaches L*, the mean final loss of the baseline; "never" is an answer
(infinity). In operations a model of N parameters has spent 6 N t*, and with scoring also what its choices cost up to
there. Shares are of the baseline's 6 N T.

Intervals (95%) are percentiles over resampled seeds, the same seeds of preset and baseline drawn together; NaN for one
seed. With three seeds they are wide and rough: ten different resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from winnow.attribution.validation.intervals import BOOTSTRAPS, crossed_interval, percentiles
from winnow.lab.kept import RunResult

BASELINE = "random"
EMBED = "embed"
"""The step of a choice whose operations are the encoder's: they do not grow with the model in training."""


@dataclass(frozen=True)
class Speed:
    """One preset on one target and model, against the baseline.

    ``loss``: mean final judging loss over ``seeds``, ``error`` its standard error; ``difference`` of the items' losses
    from the baseline's, negative = better, with its interval over items and seeds; ``out``: mean difference of the
    losses out of domain (other references and held-out sources), negative = better; ``tokens``, ``flops`` and
    ``scored_flops`` (scoring included): shares of the baseline's at which the preset is where the baseline ends, inf =
    never; ``seconds`` of scoring.
    """

    preset: str
    target: str
    model: str
    seeds: int
    loss: float
    error: float
    difference: float
    difference_low: float
    difference_high: float
    out: float
    tokens: float
    tokens_low: float
    tokens_high: float
    flops: float
    scored_flops: float
    scoring_flops: float
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return the row, None for what is not a finite number."""
        return {name: None if isinstance(value, float) and not np.isfinite(value) else value
                for name, value in asdict(self).items()}  # fmt: skip


def reached(tokens: np.ndarray, losses: np.ndarray, level: float) -> float:
    """Return at how many tokens a curve first has ``level``; inf when it never does.

    ``tokens`` ascending ``[E]``, ``losses`` ``[E]``; on straight lines between the points of the least loss so far.
    """
    least = np.minimum.accumulate(np.asarray(losses, dtype=np.float64))
    below = np.flatnonzero(least <= level)
    if not len(below):
        return float("inf")
    place = int(below[0])
    if place == 0:
        return float(tokens[0])
    high, low = least[place - 1], least[place]
    return float(tokens[place - 1] + (high - level) / (high - low) * (tokens[place] - tokens[place - 1]))


def grouped(runs: Iterable[RunResult]) -> dict[tuple[str, str, str], list[RunResult]]:
    """Return runs by (preset, target, model), each group sorted by seed."""
    found: dict[tuple[str, str, str], list[RunResult]] = {}
    for run in sorted(runs, key=lambda one: (one.preset, one.target, one.model, one.seed)):
        found.setdefault((run.preset, run.target, run.model), []).append(run)
    return found


def speeds(runs: Sequence[RunResult], baseline: str = BASELINE, seed: int = 0) -> list[Speed]:
    """Return a row a preset, target and model that has a baseline, best first within target and model."""
    groups = grouped(runs)
    rows = [
        _speed(group, groups[baseline, target, model], seed)
        for (_, target, model), group in groups.items()
        if (baseline, target, model) in groups
    ]
    return sorted(rows, key=lambda row: (row.target, row.model, row.loss, row.preset))


def mean_curve(group: Sequence[RunResult], grid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and losses float64 ``[seeds, E]`` of runs on one grid, that of the first run unless given."""
    grid = group[0].tokens if grid is None else grid
    return grid, np.array([np.interp(grid, run.tokens, run.losses) for run in group])


def _speed(group: list[RunResult], baseline: list[RunResult], seed: int) -> Speed:
    grid, curves = mean_curve(group)
    _, base = mean_curve(baseline)
    total = float(baseline[0].tokens[-1])
    at = reached(grid, curves.mean(axis=0), float(base[:, -1].mean()))
    shared = sorted({run.seed for run in group} & {run.seed for run in baseline})
    own = {run.seed: place for place, run in enumerate(group)}
    other = {run.seed: place for place, run in enumerate(baseline)}
    mine, theirs = [own[one] for one in shared], [other[one] for one in shared]
    low, high = float("nan"), float("nan")
    if len(shared) > 1:
        generator = np.random.default_rng(seed)
        picks = generator.integers(0, len(shared), (BOOTSTRAPS, len(shared)))
        ours, ends = curves[mine], base[theirs, -1]
        draws = [reached(grid, ours[pick].mean(axis=0), float(ends[pick].mean())) for pick in picks]
        low, high = _ends(np.array(draws) / total)
    differences = _differences([group[place] for place in mine], [baseline[place] for place in theirs])
    between = crossed_interval(differences, seed) if differences.size else (float("nan"), float("nan"))
    parameters = group[0].parameters
    scoring = float(np.mean([run.scoring_flops(at) for run in group]))
    whole = 6.0 * parameters * total
    return Speed(
        preset=group[0].preset,
        target=group[0].target,
        model=group[0].model,
        seeds=len(group),
        loss=float(curves[:, -1].mean()),
        error=float(curves[:, -1].std(ddof=1) / np.sqrt(len(group))) if len(group) > 1 else float("nan"),
        difference=float(differences.mean()) if differences.size else float("nan"),
        difference_low=between[0],
        difference_high=between[1],
        out=_out(group, baseline),
        tokens=at / total,
        tokens_low=low,
        tokens_high=high,
        flops=6.0 * parameters * at / whole,
        scored_flops=(6.0 * parameters * at + scoring) / whole,
        scoring_flops=float(np.mean([run.scoring_flops() for run in group])),
        seconds=float(np.mean([run.scoring_seconds() for run in group])),
    )


def _ends(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of the central 95%, where some draws may be infinite."""
    ordered = np.sort(draws)
    places = np.clip(np.round(np.array([0.025, 0.975]) * (len(ordered) - 1)).astype(int), 0, len(ordered) - 1)
    if np.isfinite(ordered).all():
        return percentiles(ordered)
    return float(ordered[places[0]]), float(ordered[places[1]])


def _differences(group: Sequence[RunResult], baseline: Sequence[RunResult]) -> np.ndarray:
    """Return the items' final losses less the baseline's of the same seed, float64 ``[items, seeds]``."""
    pairs = zip(group, baseline, strict=True)
    columns = [run.items[run.target] - other.items[run.target] for run, other in pairs]
    if not columns:
        return np.zeros((0, 0))
    found = np.stack(columns, axis=1)
    return found[np.isfinite(found).all(axis=1)]


def _out(group: Sequence[RunResult], baseline: Sequence[RunResult]) -> float:
    names = [name for name in group[0].final if name != group[0].target and name in baseline[0].final]
    if not names:
        return float("nan")
    mine = np.array([[run.final[name] for name in names] for run in group]).mean(axis=0)
    theirs = np.array([[run.final[name] for name in names] for run in baseline]).mean(axis=0)
    return float((mine - theirs).mean())


@dataclass(frozen=True)
class Projection:
    """What scoring would cost beside training at another size, as shares of 6 N' D'; a projection, no measurement."""

    preset: str
    parameters: float
    tokens: float
    model_share: float
    encoder_share: float

    @property
    def share(self) -> float:
        return self.model_share + self.encoder_share


FORMULA = (
    "share = F_model / (6 N D) + F_encoder / (6 N' D), with F_model the operations of passes of the N-parameter model "
    "and F_encoder those of the encoder, both measured at N and D tokens. It assumes that the pool, the probes and the "
    "reference grow as the tokens do, that the model that scores grows with the one in training, and that "
    "the encoder stays."
)


def project(runs: Sequence[RunResult], sizes: Sequence[tuple[float, float]]) -> list[Projection]:
    """Return the projected cost of scoring of each preset at sizes (parameters, tokens), see :data:`FORMULA`."""
    found = []
    by_preset: dict[str, list[RunResult]] = {}
    for run in runs:
        by_preset.setdefault(run.preset, []).append(run)
    for preset, group in sorted(by_preset.items()):
        model = [sum(cost.flops for cost in run.costs if cost.step != EMBED) for run in group]
        encoder = [sum(cost.flops for cost in run.costs if cost.step == EMBED) for run in group]
        tokens, parameters = float(group[0].tokens[-1]), group[0].parameters
        for larger, more in sizes:
            found.append(
                Projection(
                    preset,
                    larger,
                    more,
                    float(np.mean(model)) / (6.0 * parameters * tokens),
                    float(np.mean(encoder)) / (6.0 * larger * tokens),
                )
            )
    return found
