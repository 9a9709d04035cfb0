"""Agreement of an estimator with the one-step oracle: the true effect of one optimiser step on each document.

For every query q, Spearman's correlation over documents of the scores tau(i, q) with the oracle's I_q(i) = L(q | theta)
- L(q | Step(theta, i)); the mean over queries is reported. It is the honest test of a *local* estimator and cheap, but
says nothing about a whole training: for that see the subset bank. **Positive = helpful** in both.

Source: Yu et al. 2024 (MATES), section 3, for the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.lds import spearman_columns
from winnow.attribution.validation.intervals import BOOTSTRAPS, percentiles
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError

LEAST_DOCUMENTS = 3
COLUMNS = 512
"""Resampled columns that are ranked at a time; bounds memory and changes no result."""


@dataclass(frozen=True)
class OneStep:
    """``spearman``: mean over queries, with its 95% interval over resampled queries and documents.

    ``per_query`` float64 ``[Q]``; ``documents`` have a score and a truth on every query, ``excluded`` do not.
    """

    method: str
    spearman: float
    interval: tuple[float, float]
    per_query: np.ndarray
    documents: int
    excluded: int

    def to_rows(self) -> list[Row]:
        return [row("one_step", self.method, "spearman", self.spearman, self.interval, count=self.documents)]


def one_step(method: str, scores: np.ndarray, oracle: np.ndarray, seed: int = 0) -> OneStep:
    """Compare float ``[Q, N]`` scores with the oracle's float ``[Q, N]`` on the same documents and queries.

    Raises :class:`UserError` for unlike shapes or fewer than three documents with both.
    """
    if scores.shape != oracle.shape or scores.ndim != 2:
        raise UserError(f"scores {scores.shape} and oracle {oracle.shape}: both must be [queries, documents] alike")
    usable = np.isfinite(scores).all(axis=0) & np.isfinite(oracle).all(axis=0)
    if usable.sum() < LEAST_DOCUMENTS:
        raise UserError(
            f"{int(usable.sum())} documents have a finite score by {method} and by the oracle; "
            f"probe at least {LEAST_DOCUMENTS}"
        )
    left, right = _canonical(scores[:, usable], oracle[:, usable])
    per_query = spearman_columns(scores[:, usable].T, oracle[:, usable].T)
    interval = _interval(left, right, seed)
    return OneStep(method, float(per_query.mean()), interval, per_query, int(usable.sum()), int((~usable).sum()))


def _canonical(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort queries, then documents, by their numbers, so that resampling by position does not see their order."""
    queries = np.lexsort((np.sort(left).sum(axis=1), np.sort(right).sum(axis=1)))
    left, right = left[queries], right[queries]
    documents = np.lexsort((*left, *right))
    return left[:, documents], right[:, documents]


def _interval(left: np.ndarray, right: np.ndarray, seed: int) -> tuple[float, float]:
    queries, documents = left.shape
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, queries, (BOOTSTRAPS, queries))
    columns = generator.integers(0, documents, (BOOTSTRAPS, documents))
    together = max(1, COLUMNS // queries)
    draws = np.empty(BOOTSTRAPS)
    for start in range(0, BOOTSTRAPS, together):
        part = slice(start, start + together)
        # [documents, draws x queries]: every draw of every query is one column.
        a, b = (values.T[columns[part]].transpose(1, 0, 2).reshape(documents, -1) for values in (left, right))
        found = spearman_columns(a, b).reshape(-1, queries)
        draws[part] = np.take_along_axis(found, rows[part], axis=1).mean(axis=1)
    return percentiles(draws)
