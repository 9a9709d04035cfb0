r"""What is left of a score when the training seed or the checkpoint changes.

A score is a draw of a random variable over initialisation, order of batches and checkpoint. Scores of one run have an
arbitrary unit, so each query's row of each run is first centred on its median and divided by its spread over documents
(1.4826 MAD). Then, over R runs,

    signal-to-noise = Var_i(mean_r x_ri), less what noise alone gives it / mean_i Var_r(x_ri),
    pairs that hold = share of pairs of documents whose order is the same in two runs (Kendall's tau b as a share).

A document is **drowned in noise** when its mean over runs cannot be told from the typical document's (the median) by a
t-test at 5%. With the few runs that anyone can pay for, a document's own variance is too poor a guess; it is moderated
towards the variance that all documents share, s^2 = (d0 s0^2 + d s_i^2) / (d0 + d), with d0 and s0 fitted to the
spread of the s_i, and the t-test has d0 + d degrees of freedom.

Sources: Nguyen et al. 2023, "A Bayesian approach to analysing training data attribution", section 3 (the t-test);
Smyth 2004, "Linear models and empirical Bayes methods", section 6.2 (moderated variances).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.attribution.validation.intervals import mean_interval
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError

DROWNED_ABOVE = 0.05
"""A p-value above which a document's score cannot be told from the typical document's."""


@dataclass(frozen=True)
class Stability:
    """How far the scores of R runs agree.

    ``signal_to_noise`` (variances) and ``held`` (share of document pairs whose order holds in two runs, 0.5 = chance)
    are means over queries; ``held_interval`` is over queries; ``probability`` float64 ``[Q, N]``: the p-value of each
    document's score, NaN where a run has none; ``drowned`` bool ``[Q, N]``: it is above :data:`DROWNED_ABOVE` or
    missing.
    """

    method: str
    runs: int
    signal_to_noise: float
    held: float
    held_interval: tuple[float, float]
    probability: np.ndarray
    drowned: np.ndarray

    @property
    def drowned_share(self) -> float:
        """The share of all scores that is drowned in noise."""
        return float(self.drowned.mean())

    def to_rows(self) -> list[Row]:
        queries = len(self.drowned)
        return [
            row(
                "stability", self.method, "signal_to_noise", self.signal_to_noise, at=f"{self.runs} runs", count=queries
            ),
            row("stability", self.method, "pairs_held", self.held, self.held_interval, count=queries),
            row("stability", self.method, "drowned", self.drowned_share, count=self.drowned.size),
        ]


def stability(method: str, scores: np.ndarray, seed: int = 0) -> Stability:
    """Judge float ``[R, Q, N]`` scores of the same documents and queries by R runs.

    Raises :class:`UserError` for fewer than two runs or three documents with a score in every run.
    """
    if scores.ndim != 3 or len(scores) < 2:
        raise UserError(f"scores {scores.shape}: stability needs [runs, queries, documents] of two runs or more")
    queries, documents = scores.shape[1:]
    ratios, held = np.full(queries, np.nan), np.full(queries, np.nan)
    probability = np.full((queries, documents), np.nan)
    for query in range(queries):
        usable = np.isfinite(scores[:, query]).all(axis=0)
        if usable.sum() < 3:
            raise UserError(f"query {query}: {int(usable.sum())} documents have a score in every run; give at least 3")
        values = standardised(scores[:, query, usable])
        ratios[query] = _signal_to_noise(values)
        held[query] = pairs_held(values)
        probability[query, usable] = _moderated_test(values)
    drowned = ~(probability <= DROWNED_ABOVE)
    return Stability(
        method, len(scores), float(ratios.mean()), float(held.mean()), mean_interval(held, seed), probability, drowned
    )


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return float ``[..., N]`` scores centred on their median over documents, in units of 1.4826 MAD (or of sd)."""
    centred = scores - np.median(scores, axis=-1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(centred), axis=-1, keepdims=True)
    spread = np.where(spread > 0.0, spread, centred.std(axis=-1, keepdims=True))
    return centred / np.where(spread > 0.0, spread, 1.0)


def variance_shares(scores: np.ndarray) -> dict[str, float]:
    """Split the variance of float ``[S, C, Q, N]`` scores (seeds by checkpoints) into shares that sum to one.

    ``document`` is what all runs agree on; ``seed`` and ``checkpoint`` are documents' own reactions to them and
    ``rest`` what is neither. Components of the two-way random model without replication, negative estimates set to
    zero, averaged over queries. Raises :class:`UserError` for fewer than two seeds or checkpoints.
    """
    if scores.ndim != 4 or min(scores.shape[:2]) < 2:
        raise UserError(
            f"scores {scores.shape}: variance shares need [seeds, checkpoints, queries, documents], 2 x 2 up"
        )
    usable = np.isfinite(scores).all(axis=(0, 1, 2))
    values = standardised(scores[..., usable])
    values = values - values.mean(axis=-1, keepdims=True)
    seeds, checkpoints, queries, documents = values.shape
    document = values.mean(axis=(0, 1))
    by_seed = values.mean(axis=1) - document
    by_checkpoint = values.mean(axis=0) - document
    rest = values - document - by_seed[:, None] - by_checkpoint[None]
    free = queries * (documents - 1)
    residual = (rest**2).sum() / (free * (seeds - 1) * (checkpoints - 1))
    seed = max(0.0, ((by_seed**2).sum() / (free * (seeds - 1)) - residual / checkpoints))
    checkpoint = max(0.0, ((by_checkpoint**2).sum() / (free * (checkpoints - 1)) - residual / seeds))
    noise = seed / seeds + checkpoint / checkpoints + residual / (seeds * checkpoints)
    parts = {
        "document": max(0.0, float((document**2).sum() / free - noise)),
        "seed": float(seed),
        "checkpoint": float(checkpoint),
        "rest": float(residual),
    }
    total = sum(parts.values())
    return {name: value / total if total > 0.0 else 0.0 for name, value in parts.items()}


def pairs_held(values: np.ndarray) -> float:
    """Return the share of document pairs in the same order in two of R runs, mean over pairs of runs; ``[R, N]``."""
    from scipy.stats import kendalltau

    runs = len(values)
    taus = [kendalltau(values[a], values[b]).statistic for a in range(runs) for b in range(a + 1, runs)]
    return float(np.mean([0.5 + tau / 2 if np.isfinite(tau) else 0.5 for tau in taus]))


def _signal_to_noise(values: np.ndarray) -> float:
    runs = len(values)
    noise = float(values.var(axis=0, ddof=1).mean())
    signal = max(0.0, float(values.mean(axis=0).var(ddof=1)) - noise / runs)
    return signal / noise if noise > 0.0 else float("inf") if signal > 0.0 else 0.0


def _moderated_test(values: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value ``[N]`` of each document's mean over runs being zero, the typical document."""
    from scipy.stats import t as student

    runs, freedom = len(values), len(values) - 1
    variance = values.var(axis=0, ddof=1)
    prior_freedom, prior = _prior(variance, freedom)
    if np.isinf(prior_freedom):
        moderated = np.full_like(variance, prior)
    else:
        moderated = (prior_freedom * prior + freedom * variance) / (prior_freedom + freedom)
    mean = values.mean(axis=0)
    certain = np.where(mean != 0.0, np.inf, 0.0)
    statistic = np.divide(np.abs(mean), np.sqrt(moderated / runs), out=certain, where=moderated > 0.0)
    return 2.0 * student.sf(statistic, prior_freedom + freedom)


def _prior(variance: np.ndarray, freedom: int) -> tuple[float, float]:
    """Return d0 and s0^2 such that the s_i^2 look like s0^2 F(d, d0), by the mean and variance of their logarithms."""
    from scipy.special import digamma, polygamma

    positive = variance[variance > 0.0]
    if len(positive) < 2:
        return np.inf, float(variance.mean())
    logs = np.log(positive) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(logs.var(ddof=1)) - float(polygamma(1, freedom / 2))
    if excess <= 0.0:
        return np.inf, float(np.exp(logs.mean()))
    half = _inverse_trigamma(excess)
    return 2.0 * half, float(np.exp(logs.mean() + digamma(half) - np.log(half)))


def _inverse_trigamma(value: float) -> float:
    """Return y with trigamma(y) = value, by Newton's method on 1 / trigamma, which is convex and nearly linear."""
    from scipy.special import polygamma

    y = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1.0 - trigamma / value) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-10 * y:
            break
    return y
