r"""The linear datamodelling score: do summed influences rank what models trained on subsets lose on a query?

    LDS(q) = Spearman over subsets m of ( sum over documents i in S_m of tau(q, i), -L_q(theta(S_m)) )

with the loss averaged over the seeds that subset m was trained with; the score of an estimator is the mean over
queries. 1 is a perfect ranking of the subsets, 0 that of chance, and **positive tau = helpful** as everywhere.

Even the truth cannot rank losses that are partly noise. With rho the rank correlation between two seeds' losses and S
seeds averaged, the mean of S seeds has reliability S rho / (1 + (S - 1) rho), and its correlation with the noiseless
losses is the root of that: the ceiling.

Standard errors are bootstraps: over subsets (another draw of trainings, the same queries), over queries (the same
trainings), and over both at once. Two estimators are compared on the same draws: what they share cancels.
Source: Park et al. 2023 (TRAK), section 4.1; the ceiling: Spearman 1910 and Brown 1910.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError

BOOTSTRAPS = 500


@dataclass(frozen=True)
class LDS:
    """``per_query`` float64 ``[Q]`` and its ``mean``; ``subsets_se``, ``queries_se`` and ``se`` of both drawn anew."""

    per_query: np.ndarray
    mean: float
    subsets_se: float
    queries_se: float
    se: float


@dataclass(frozen=True)
class Difference:
    """LDS of one estimator minus that of another: ``mean``, its standard error and its percentile interval."""

    mean: float
    se: float
    low: float
    high: float


def lds(scores: np.ndarray, masks: np.ndarray, losses: np.ndarray, seed: int = 0) -> LDS:
    """Return the LDS of scores ``[Q, N]`` against losses ``[M, S, Q]`` of subsets ``masks`` bool ``[M, N]``.

    The subsets are of one size. A document without a score (NaN) counts as the query's mean score; a query without any
    finite score has LDS 0.
    """
    sums, truth = predicted(scores, masks), -losses.mean(axis=1)
    per_query = spearman_columns(sums, truth)
    draws = _Draws(seed, *truth.shape)
    drawn = np.array([spearman_columns(sums[rows], truth[rows]) for rows in draws.subsets])
    both = np.array([values[columns].mean() for values, columns in zip(drawn, draws.queries, strict=True)])
    queries = np.array([per_query[columns].mean() for columns in draws.queries])
    return LDS(
        per_query,
        float(per_query.mean()),
        float(drawn.mean(axis=1).std(ddof=1)),
        float(queries.std(ddof=1)),
        float(both.std(ddof=1)),
    )


def mean_lds(scores: np.ndarray, masks: np.ndarray, losses: np.ndarray) -> float:
    """Return the mean of :func:`lds` alone, without its errors: to choose among settings."""
    return float(spearman_columns(predicted(scores, masks), -losses.mean(axis=1)).mean())


def compare(
    left: np.ndarray, right: np.ndarray, masks: np.ndarray, losses: np.ndarray, seed: int = 0, level: float = 0.95
) -> Difference:
    """Return LDS(left) - LDS(right), by a paired bootstrap over subsets and queries; scores ``[Q, N]`` each."""
    truth = -losses.mean(axis=1)
    a, b = predicted(left, masks), predicted(right, masks)
    draws = _Draws(seed, *truth.shape)
    values = [
        (spearman_columns(a[rows], truth[rows]) - spearman_columns(b[rows], truth[rows]))[columns].mean()
        for rows, columns in zip(draws.subsets, draws.queries, strict=True)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    mean = float((spearman_columns(a, truth) - spearman_columns(b, truth)).mean())
    return Difference(mean, float(np.std(values, ddof=1)), float(low), float(high))


def ceiling(losses: np.ndarray) -> float:
    """Return the LDS that the noiseless losses would have, from losses ``[M, S, Q]``; NaN with a single seed.

    The correlation of two seeds is averaged over queries and pairs of seeds; where it is not positive, the ceiling
    is 0: the bank says nothing.
    """
    seeds = losses.shape[1]
    if seeds < 2:
        return float("nan")
    pairs = [(one, other) for one in range(seeds) for other in range(one)]
    rho = float(np.mean([spearman_columns(losses[:, a], losses[:, b]).mean() for a, b in pairs]))
    return float(np.sqrt(seeds * rho / (1.0 + (seeds - 1.0) * rho))) if rho > 0.0 else 0.0


def predicted(scores: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return float64 ``[M, Q]``: the summed scores of each subset's documents, a missing one as the mean."""
    if scores.ndim != 2 or scores.shape[1] != masks.shape[1]:
        raise UserError(f"scores of shape {scores.shape} do not fit subsets of {masks.shape[1]} documents")
    # Centred: a constant on all scores of a query moves no rank, but its rounding would.
    finite = np.isfinite(scores)
    count = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    mean = np.where(finite, scores, 0.0).sum(axis=1, keepdims=True) / count
    return masks.astype(np.float64) @ np.where(finite, scores - mean, 0.0).T


def spearman_columns(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return float64 ``[Q]``: Spearman's correlation of each column of two ``[M, Q]``; 0.0 where one is constant."""
    from scipy.stats import rankdata

    a, b = (rankdata(values, axis=0) for values in (left, right))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norm, out=np.zeros(left.shape[1]), where=norm > 0.0)


class _Draws:
    """Seeded resamples of M subsets and Q queries, the same for every estimator."""

    def __init__(self, seed: int, subsets: int, queries: int) -> None:
        generator = np.random.default_rng(seed)
        self.subsets = generator.integers(0, subsets, (BOOTSTRAPS, subsets))
        self.queries = generator.integers(0, queries, (BOOTSTRAPS, queries))
