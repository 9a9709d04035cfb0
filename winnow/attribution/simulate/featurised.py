r"""GPTfluence-like: the two numbers of Simfluence from embeddings of the document and the query.

    L_t(q) = L_{t-1}(q) + sum_{i in c_t} w_i [ a(i, q) (L_{t-1}(q) - m) + b(i, q) ]
    a(i, q) = e_i^T A e_q + a' k(i, q),        b(i, q) = e_i^T B e_q + b' k(i, q)

with e the embeddings on their leading principal components beside a constant 1, k the similarities of document and
query (the cosine of their whole embeddings, and whatever else is given), w and m as in
:mod:`winnow.attribution.simulate.linear`. Everything is linear in A, B, a' and b', so ridge regression on recorded runs
fits it in closed form; the penalty is chosen by leaving runs out. Documents and queries that no run has seen are
simulated as well as their embeddings tell. A step needs sum w_i e_i only, and the normal equations are sums of
Kronecker products: no row is formed for a pair of document and query.

Source: Chai et al. 2024 (GPTfluence), section 3; there the embeddings are trained by gradient descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.simulate.linear import mean_rate, require_runs, roll
from winnow.attribution.simulate.runs import Reading, RunRecord, intervals, step_weights
from winnow.errors import UserError

PENALTIES = np.logspace(-7, 1, 17)
"""Candidates, relative to the mean diagonal of the normal equations."""


@dataclass(frozen=True)
class Features:
    """Embeddings float ``[N, E]`` and similarities float64 ``[Q, N, K]`` of documents to queries ``[Q, E]``."""

    documents: np.ndarray
    queries: np.ndarray
    similarities: np.ndarray

    @classmethod
    def of(cls, documents: np.ndarray, queries: np.ndarray, *more: np.ndarray) -> Features:
        """Return the features of embeddings; ``more``: similarities ``[Q, N]`` beside the cosine (lexical ones)."""
        cosine = _unit(queries) @ _unit(documents).T
        return cls(documents, queries, np.stack([cosine, *more], axis=2))


@dataclass(frozen=True)
class FeaturisedSimulator:
    """``basis`` and ``mean`` turn embeddings into e; ``bilinear`` A and B float64 ``[2, D, D]``, ``similarity`` a' and
    b' ``[2, K]``; ``rate``, ``center`` m and the ``penalty`` chosen."""

    mean: np.ndarray
    basis: np.ndarray
    bilinear: np.ndarray
    similarity: np.ndarray
    rate: float
    center: float
    penalty: float

    def effects(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Return a and b of every query and document, float64 ``[Q, N]`` each."""
        documents, queries = self._reduced(features.documents), self._reduced(features.queries)
        a, b = (queries @ self.bilinear[part].T @ documents.T for part in (0, 1))
        a, b = a + features.similarities @ self.similarity[0], b + features.similarities @ self.similarity[1]
        return a, b - a * self.center

    def simulate(self, reading: Reading, start: np.ndarray, features: Features) -> np.ndarray:
        """Return the queries' losses, float64 ``[T + 1, Q]``, from ``start`` ``[Q]`` through the steps of a reading.

        ``features``: of the documents that the reading's places mean, and of the queries; any, also unseen ones.
        """
        weights = step_weights(reading, len(features.documents)) / self.rate
        a, b = self.effects(features)
        return roll(weights @ a.T, weights @ b.T, start)

    def influence(self, features: Features, losses: np.ndarray) -> np.ndarray:
        """Return float64 ``[Q, N]``: how far one whole step on a document lowers losses ``[Q]``; positive = helpful."""
        a, b = self.effects(features)
        return -(a * losses[:, None] + b)

    def _reduced(self, embeddings: np.ndarray) -> np.ndarray:
        return _with_one((np.asarray(embeddings, dtype=np.float64) - self.mean) @ self.basis)


def fit_featurised(
    runs: Sequence[RunRecord], features: Features, components: int = 16, folds: int = 4
) -> FeaturisedSimulator:
    """Fit to runs over the documents and queries of ``features``; ``components`` of the embeddings are used.

    Raises :class:`UserError` when there are fewer than two runs, or the features are of other documents or queries.
    """
    require_runs(runs)
    if runs[0].losses.shape[1] != len(features.queries):
        raise UserError(
            f"runs on {runs[0].losses.shape[1]} queries, features of {len(features.queries)}; give the same"
        )
    embeddings = np.asarray(features.documents, dtype=np.float64)
    mean = embeddings.mean(axis=0)
    _, spread, directions = np.linalg.svd(embeddings - mean, full_matrices=False)
    kept = min(components, int((spread > spread.max(initial=0.0) * 1e-8).sum()))
    # Scaled to deviation 1: the penalty then shrinks every component alike.
    basis = directions[:kept].T * (np.sqrt(len(embeddings)) / spread[:kept])
    queries = _with_one((np.asarray(features.queries, dtype=np.float64) - mean) @ basis)
    rate, documents = mean_rate(runs), _with_one((embeddings - mean) @ basis)
    center = float(np.mean(np.concatenate([run.losses[run.measured[:-1]] for run in runs])))
    each = [_Sums.of(run, documents, queries, features, rate, center) for run in runs]
    dealt = [sum(some[1:], some[0]) for some in (each[first::folds] for first in range(min(folds, len(each))))]
    whole = sum(dealt[1:], dealt[0])
    errors = np.zeros(len(PENALTIES))
    for held in dealt:
        errors += held.errors((whole - held).solve(PENALTIES))
    penalty = float(PENALTIES[int(np.argmin(errors))])
    solution = whole.solve(np.array([penalty]))[0]
    size = documents.shape[1]
    bilinear = solution[: 2 * size * size].reshape(2, size, size)
    similarity = solution[2 * size * size :].reshape(2, -1)
    return FeaturisedSimulator(mean, basis, bilinear, similarity, rate, center, penalty)


@dataclass(frozen=True)
class _Sums:
    """Normal equations on the columns A, B (document times query), a', b'; columns are penalised but the constants."""

    gram: np.ndarray
    cross: np.ndarray
    square: float
    free: np.ndarray

    @classmethod
    def of(
        cls, run: RunRecord, documents: np.ndarray, queries: np.ndarray, features: Features, rate: float, center: float
    ) -> _Sums:
        part = intervals(run, len(documents))
        weights = part.weights / rate
        read, size, extra = weights @ documents, queries.shape[1], features.similarities.shape[2]
        bilinear = 2 * read.shape[1] * size
        gram, cross = np.zeros((bilinear + 2 * extra,) * 2), np.zeros(bilinear + 2 * extra)
        square = 0.0
        for query, vector in enumerate(queries):
            level = (part.before[:, query] - center)[:, None]
            change = part.after[:, query] - part.before[:, query]
            steps = np.concatenate([read * level, read], axis=1)
            alike = weights @ features.similarities[query]
            alike = np.concatenate([alike * level, alike], axis=1)
            gram[:bilinear, :bilinear] += np.kron(steps.T @ steps, np.outer(vector, vector))
            gram[:bilinear, bilinear:] += np.kron(steps.T @ alike, vector[:, None])
            gram[bilinear:, bilinear:] += alike.T @ alike
            cross[:bilinear] += np.kron(steps.T @ change, vector)
            cross[bilinear:] += alike.T @ change
            square += float(change @ change)
        gram[bilinear:, :bilinear] = gram[:bilinear, bilinear:].T
        free = np.zeros(len(cross), dtype=np.bool_)
        free[[size * size - 1, 2 * size * size - 1]] = True
        return cls(gram, cross, square, free)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.gram + other.gram, self.cross + other.cross, self.square + other.square, self.free)

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.gram - other.gram, self.cross - other.cross, self.square - other.square, self.free)

    def solve(self, penalties: np.ndarray) -> np.ndarray:
        """Return float64 ``[P, F]``: the ridge solution for each penalty, on columns of one scale."""
        scale = np.sqrt(np.maximum(np.diag(self.gram), 1e-300))
        gram, cross = self.gram / np.outer(scale, scale), self.cross / scale
        found = [
            np.linalg.solve(gram + np.diag(np.where(self.free, 1e-9, penalty)), cross) / scale for penalty in penalties
        ]
        return np.array(found)

    def errors(self, solutions: np.ndarray) -> np.ndarray:
        """Return the squared error of each solution on these equations' rows, float64 ``[P]``."""
        explained = np.einsum("pf,pf->p", solutions @ self.gram, solutions)
        return self.square - 2.0 * solutions @ self.cross + explained


def _unit(embeddings: np.ndarray) -> np.ndarray:
    values = np.asarray(embeddings, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _with_one(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)
