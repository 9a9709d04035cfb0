"""What is believed of each arm's mean reward, by shrinking the arms towards each other.

Model (normal means, empirical Bayes):

    y_i = f_i + noise,  noise ~ N(0, v_i / n_i)        y_i the mean of the n_i rewards seen of arm i
    f_i = m + x_i b + u_i,  b ~ N(0, h t^2 / F I),  u_i ~ N(0, (1 - h) t^2)

m is the mean of all arms, t^2 the variance between arms, x_i the arm's F standardised features (centroid, scores), h
the share of t^2 that they explain. Then, with g_i = (1 - h) t^2 / ((1 - h) t^2 + v_i / n_i) and the regression's
posterior b ~ N(b', B),

    E f_i = g_i y_i + (1 - g_i)(m + x_i b'),   Var f_i = (1 - g_i)(1 - h) t^2 + (1 - g_i)^2 x_i B x_i'

h is the best of a few by marginal likelihood, 0 among them: features that explain nothing are left alone, and an arm's
own rewards outweigh them as they come in. t^2 is the estimate of Paule and Mandel: the t^2 at which
the sum of (y_i - m)^2 / (t^2 + v_i / n_i) is its expectation, K - 1, with m the mean at the same weights. v_i, the
variance of one reward, is the mean of an inverse-gamma posterior whose prior is fitted by moments to the variances of
all arms; its 2 a_i degrees of freedom are those of ``degrees``.

Source: normal means by empirical Bayes, Efron and Morris, JASA 68 (1973); Paule and Mandel, Journal of Research of the
National Bureau of Standards 87 (1982); gamma priors on precisions as in variance-adaptive Thompson sampling, arXiv
2303.09033.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.facts import Prior
from winnow.selection.tally import Tally

EXPLAINED = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97)
SHAPES = (2.5, 100.0)  # of the inverse gamma: from hardly any pooling of the variances to nearly all
NEWTON_STEPS = 8
LEAST_SPREAD = 1e-4  # between arms, as a share of the variance within: means all equal would stop all learning


@dataclass(frozen=True, eq=False)
class Belief:
    """``mean`` and ``variance`` of each arm's mean reward; ``noise``, the variance of one reward; ``degrees`` of noise.

    Each float64 ``[K]`` (``[R, K]`` for R runs).
    """

    mean: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    degrees: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        return np.sqrt(self.variance)

    def learnable(self, probes: int) -> np.ndarray:
        """Return the standard deviation of the change that ``probes`` further rewards make to each arm's mean."""
        return self.variance / np.sqrt(self.variance + self.noise / probes)


def believe(tally: Tally, features: np.ndarray | None = None) -> Belief:
    """Return the belief after a tally; ``features`` ``[K, F]`` (``[R, K, F]``) as of :func:`standardise`."""
    noise, degrees, pooled = noise_of(tally)
    seen, mean, error, center, spread = _arms(tally, noise, pooled)
    if features is None:
        trust = np.where(seen, spread / (spread + error), 0.0)
        return Belief(center + trust * (mean - center), (1 - trust) * spread, noise, degrees)
    return _regress(seen, mean - center, error, spread, center, features, noise, degrees)


def noise_of(tally: Tally) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the variance of one reward of each arm, its degrees of freedom, and the variance pooled over arms.

    The inverse-gamma prior has the mean of the pooled variance and a shape by moments: the arms' variances v_i with
    d_i degrees of freedom spread by Var(v) + 2 E[v^2] / d_i around it. With no arm seen twice everything is 1.
    """
    freedom = tally.freedom()
    scatter = np.where(freedom > 0, tally.scatter(), 0.0)
    all_freedom = freedom.sum(axis=-1, keepdims=True)
    known = all_freedom > 0
    pooled = np.where(known, scatter.sum(axis=-1, keepdims=True) / np.where(known, all_freedom, 1.0), 1.0)
    pooled = np.maximum(pooled, 1e-12)
    own = np.divide(scatter, freedom, out=np.zeros(scatter.shape), where=freedom > 0)
    apart = (freedom * (own - pooled) ** 2).sum(axis=-1, keepdims=True) / np.where(known, all_freedom, 1.0)
    by_chance = 2 * (freedom > 0).sum(axis=-1, keepdims=True) / np.where(known, all_freedom, 1.0)
    dispersion = np.maximum(apart - by_chance * pooled**2, 0.0) / (1 + by_chance)
    shape = np.clip(2 + pooled**2 / np.maximum(dispersion, 1e-300), *SHAPES)
    shape_after = shape + freedom / 2
    return (pooled * (shape - 1) + scatter / 2) / (shape_after - 1), 2 * shape_after, pooled


def standardise(*tables: np.ndarray | None, most: int = 16) -> np.ndarray | None:
    """Return arm features ``[K, F]`` from ``[K, D]`` tables: centred, of unit variance, at most ``most`` directions.

    A table wider than that is replaced by its first principal directions, at a common scale. None if all are None.
    """
    parts = []
    for table in tables:
        if table is None:
            continue
        values = np.asarray(table, dtype=np.float64)
        values = values - values.mean(axis=-2, keepdims=True)
        if values.shape[-1] > most:
            _, _, directions = np.linalg.svd(values, full_matrices=False)
            values = values @ np.swapaxes(directions[..., :most, :], -1, -2)
            scale = np.sqrt((values**2).mean(axis=(-2, -1), keepdims=True))
        else:
            scale = np.sqrt((values**2).mean(axis=-2, keepdims=True))
        parts.append(values / np.where(scale > 0, scale, 1.0))
    return np.concatenate(parts, axis=-1) if parts else None


def aged(prior: Prior, keep: float) -> Prior:
    """Return a prior for a model that has moved on since: ``keep`` (0 to 1) of the arms' variance is as it was.

    Each arm's mean drifts as f' = m + sqrt(keep) (f - m) + news of variance (1 - keep) t^2, so that arms stay as far
    apart as they were. What y with error v / n says of f' is what m + (y - m) / sqrt(keep) with error (t^2 + v / n) /
    keep - t^2 says: arms known well lose most of their count, those known little hardly any.
    """
    tally = Tally.of_prior(prior.count.shape, prior)
    noise = np.where(tally.probes > 0, prior.variance, 0.0)
    known = np.maximum(tally.probes.sum(axis=-1, keepdims=True), 1e-300)
    pooled = (noise * tally.probes).sum(axis=-1, keepdims=True) / known
    seen, mean, error, center, spread = _arms(tally, noise, pooled)
    if keep <= 0:
        return Prior(mean, prior.variance, np.zeros(mean.shape), tally.freedom())
    loss = (spread + error) / keep - spread
    count = np.where(seen, error * tally.probes / loss, 0.0)
    drifted = np.where(seen, center + (mean - center) / np.sqrt(keep), np.nan)
    return Prior(drifted, prior.variance, count, tally.freedom())


def _arms(
    tally: Tally, noise: np.ndarray, pooled: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return which arms were seen, their means and the errors of those, the arms' center m and spread t^2."""
    seen = tally.probes > 0
    count = np.where(seen, tally.probes, 1.0)
    mean = np.where(seen, tally.total / count, 0.0)
    error = noise / count
    arms = seen.sum(axis=-1, keepdims=True)
    least = LEAST_SPREAD * pooled
    # From the unweighted estimate (Hedges, 1983), which the noisiest arms may have thrown far off.
    plain = mean.sum(axis=-1, keepdims=True) / np.maximum(arms, 1)
    apart = np.where(seen, (mean - plain) ** 2, 0.0).sum(axis=-1, keepdims=True) / np.maximum(arms - 1, 1)
    spread = np.maximum(apart - np.where(seen, error, 0.0).sum(axis=-1, keepdims=True) / np.maximum(arms, 1), least)
    for _ in range(NEWTON_STEPS + 1):
        weight = np.where(seen, 1 / (spread + error), 0.0)
        center = (weight * mean).sum(axis=-1, keepdims=True) / np.maximum(weight.sum(axis=-1, keepdims=True), 1e-300)
        pull = weight * (mean - center) ** 2
        slope = np.maximum((weight * pull).sum(axis=-1, keepdims=True), 1e-300)
        # The excess falls and is convex in the spread: from the left Newton's steps never go too far.
        before, spread = spread, np.maximum(spread + (pull.sum(axis=-1, keepdims=True) - (arms - 1)) / slope, least)
    return seen, mean, error, center, before


def _regress(
    seen: np.ndarray,
    residual: np.ndarray,
    error: np.ndarray,
    spread: np.ndarray,
    center: np.ndarray,
    features: np.ndarray,
    noise: np.ndarray,
    degrees: np.ndarray,
) -> Belief:
    """Return the belief whose share ``h`` explained by the features has the highest marginal likelihood."""
    width = features.shape[-1]
    best: list[np.ndarray] = []
    for explained in EXPLAINED:
        own = (1 - explained) * spread
        weight = np.where(seen, 1 / (own + error), 0.0)
        trust = np.where(seen, own / (own + error), 0.0)
        logs = np.where(seen, np.log(own + error), 0.0).sum(axis=-1)
        fit = (weight * residual**2).sum(axis=-1)
        line, doubt = np.zeros_like(residual), np.zeros_like(residual)
        if explained > 0:
            weighted = features * weight[..., None]
            ridge = width / (explained * spread[..., None])
            precision = np.swapaxes(weighted, -1, -2) @ features + ridge * np.eye(width)
            moment = (weighted * residual[..., None]).sum(axis=-2)
            lower = np.linalg.cholesky(precision)
            covariance = np.linalg.inv(precision)
            slope = (covariance @ moment[..., None])[..., 0]
            line = (features @ slope[..., None])[..., 0]
            doubt = ((features @ covariance) * features).sum(axis=-1)
            diagonal = np.diagonal(lower, axis1=-2, axis2=-1)
            logs = logs + 2 * np.log(diagonal).sum(axis=-1) - width * np.log(ridge[..., 0, 0])
            fit = fit - (moment * slope).sum(axis=-1)
        likelihood = (-(logs + fit) / 2)[..., None]
        found = [
            likelihood,
            center + trust * residual + (1 - trust) * line,
            (1 - trust) * own + (1 - trust) ** 2 * doubt,
        ]
        better = likelihood > best[0] if best else np.ones_like(likelihood, dtype=bool)
        best = [np.where(better, new, old) for new, old in zip(found, best or found, strict=True)]
    return Belief(best[1], best[2], noise, degrees)
