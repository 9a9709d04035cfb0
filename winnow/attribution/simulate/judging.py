"""How well simulated loss curves fit those of runs that the simulator has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.lds import spearman_columns
from winnow.attribution.simulate.runs import RunRecord
from winnow.errors import UserError


@dataclass(frozen=True)
class Judgement:
    """``curve_error``: mean squared error over all measured steps but the first, runs and queries (nats squared);
    ``final_error``: of the last losses alone; ``final_rank``: Spearman's correlation, over runs, of predicted and true
    last losses, the mean over queries; ``query_rank``: the same over queries, the mean over runs.
    """

    curve_error: float
    final_error: float
    final_rank: float
    query_rank: float


def judge(predicted: Sequence[np.ndarray], runs: Sequence[RunRecord]) -> Judgement:
    """Judge curves float64 ``[T + 1, Q]`` of held-out runs. Raises :class:`UserError` for fewer than two runs."""
    if len(runs) < 2 or len(predicted) != len(runs):
        raise UserError(f"{len(predicted)} curves for {len(runs)} held-out runs; give one each, for two runs at least")
    squares = [
        ((curve - run.losses)[run.measured[1:]] ** 2).ravel() for curve, run in zip(predicted, runs, strict=True)
    ]
    guessed, true = np.array([curve[-1] for curve in predicted]), np.array([run.losses[-1] for run in runs])
    return Judgement(
        curve_error=float(np.concatenate(squares).mean()),
        final_error=float(((guessed - true) ** 2).mean()),
        final_rank=float(spearman_columns(guessed, true).mean()),
        query_rank=float(spearman_columns(guessed.T, true.T).mean()),
    )
