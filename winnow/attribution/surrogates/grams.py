r"""Ridge regression on embedding, signals and the byte n-grams of the text, their shares chosen by leave-one-out.

    f(x) = w . z(x) + u . phi(x),    minimise |y - f|^2 + alpha (|D^-1 w|^2 / (1 - g) + |u|^2 / g)

z are the standardised features of the ridge and D its widths, phi the counts of all 1-, 2- and 3-grams of the first
bytes of the text, hashed into 2^16 buckets: log(1 + count) x idf, to unit length. What a document teaches a language
model is to a good part which tokens it has, and a vector of meaning has lost those. Bytes need no word boundaries, so
every language and code are read alike. It is one kernel ridge, K = (1 - g) Z D^2 Z^T + g Phi Phi^T, solved by its
eigenvectors; g and alpha minimise the exact leave-one-out error as in :mod:`~winnow.attribution.surrogates.ridge`.
Above 1,000 documents g is chosen on 1,000 of them, drawn by a hash of doc_id.

Sources: Weinberger et al. 2009, "Feature hashing for large scale multitask learning"; Saunders et al. 1998, "Ridge
regression learning algorithm in dual variables".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from winnow.attribution.surrogates.interface import SQUARED, Features, Predictor, Surrogate
from winnow.attribution.surrogates.ridge import RidgePredictor, choose_penalty, fit_ridge
from winnow.errors import UserError
from winnow.identity import seeded_keys

ORDERS = (1, 2, 3)
BITS = 16
BYTES_PER_TOKEN = 8  # how many bytes stand for one of the tokens that a surrogate may read
SHARES = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)  # the grid of g
CHOOSING = 1000
ROWS = 512
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: the high bits of a product with it are even


@dataclass(frozen=True)
class Counts:
    """The n-grams of N texts: ``rows``, ``buckets`` int64 and ``values`` float64, log(1 + count), sorted by row."""

    documents: int
    rows: np.ndarray
    buckets: np.ndarray
    values: np.ndarray

    def rarity(self) -> np.ndarray:
        """Return float64 ``[2^BITS]``: 1 + log((1 + N) / (1 + documents with the bucket))."""
        having = np.bincount(self.buckets, minlength=1 << BITS)
        found: np.ndarray = 1.0 + np.log((1 + self.documents) / (1 + having))
        return found

    def weighted(self, rarity: np.ndarray) -> np.ndarray:
        """Return the values times ``rarity``, each document's to unit length, float64 as ``values``."""
        values = self.values * rarity[self.buckets]
        # bincount adds in order, so a document's bits do not depend on the others.
        length = np.sqrt(np.bincount(self.rows, values**2, self.documents))
        found: np.ndarray = values / length[self.rows]
        return found


@dataclass(frozen=True)
class GramsPredictor(Predictor, kind="grams", reads_texts=True):
    """``ridge`` on embedding and signals plus ``weights`` on n-grams, each float64 ``[2^BITS]`` with ``rarity``.

    ``offset``: what both give the mean document they were fitted to, in z-scored labels; ``share``: of the n-grams.
    """

    ridge: RidgePredictor
    weights: np.ndarray
    rarity: np.ndarray
    offset: float
    share: float
    max_tokens: int

    @property
    def target_mean(self) -> float:
        return self.ridge.mean

    def centred(self, features: Features) -> np.ndarray:
        return self.ridge.centred(features) + self.ridge.std * (self.of_texts(features) - self.offset)

    def of_texts(self, features: Features) -> np.ndarray:
        """Return what the n-grams add, float64 ``[N]``, in z-scored labels and before ``offset`` is taken off."""
        texts, found = _texts(features), np.empty(len(features))
        for start in range(0, len(found), ROWS):
            counts = count_grams(texts[start : start + ROWS], self.max_tokens)
            values = counts.weighted(self.rarity) * self.weights[counts.buckets]
            found[start : start + ROWS] = np.bincount(counts.rows, values, counts.documents)
        return found

    def tensors(self) -> dict[str, np.ndarray]:
        return {**self.ridge.tensors(), "grams.weights": self.weights, "grams.rarity": self.rarity}

    def facts(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("offset", "share", "max_tokens")}
        return {"ridge": self.ridge.facts(), **own}

    @classmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> GramsPredictor:
        rest = {name: value for name, value in facts.items() if name != "ridge"}
        ridge = RidgePredictor.restore(tensors, facts["ridge"])
        return cls(ridge, tensors["grams.weights"], tensors["grams.rarity"], **rest)


@dataclass(frozen=True)
class Grams(Surrogate, name="grams"):
    """For any number of probes: the wording tells more than the meaning. As exact as the ridge, and reads the texts."""

    losses = (SQUARED,)
    reads_texts = True

    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> GramsPredictor:
        before = previous if isinstance(previous, GramsPredictor) else None
        texts = _texts(features)
        ridge = fit_ridge(features, targets, None if before is None else before.ridge)
        scaling, labels = ridge.predictor.scaling, ridge.labels.values
        counts = count_grams(texts, self.max_tokens)
        # Weights of an earlier checkpoint belong to its rarities.
        rarity = counts.rarity() if before is None else before.rarity
        phi = _matrix(counts, rarity)
        dense, sparse = np.zeros(ridge.features.shape[1]), np.zeros(len(rarity))
        if before is not None:
            dense = before.ridge.weights * scaling.moved_from(before.ridge.scaling)[0]
            sparse = before.weights
        start = ridge.features @ dense + phi @ sparse
        scaled = ridge.features * ridge.widths
        kernels = scaled @ scaled.T, _products(phi)
        chosen = np.argsort(seeded_keys(features.ids, self.seed, "influence-model-share"), kind="stable")[:CHOOSING]
        some = np.sort(chosen)
        few = [one[np.ix_(some, some)] for one in kernels]
        errors = [_Kernel(share, *few).solve(labels[some], start[some]).error for share in SHARES]
        share = SHARES[int(np.argmin(errors))]
        found = _Kernel(share, *kernels).solve(labels, start)
        dense = found.kept * dense + (1.0 - share) * ridge.widths * (scaled.T @ found.dual)
        sparse = found.kept * sparse + share * (phi.T @ found.dual)
        offset = float((ridge.features @ dense + phi @ sparse).mean())
        head = replace(ridge.predictor, weights=dense, alpha=found.alpha, share=found.kept)
        return GramsPredictor(head, sparse, rarity, offset, share, self.max_tokens)


@dataclass(frozen=True)
class _Solution:
    """The leave-one-out ``error``, ``alpha``, how much was ``kept`` of the former model, and weights a document."""

    error: float
    alpha: float
    kept: float
    dual: np.ndarray


class _Kernel:
    """The centred kernel of a share of n-grams, by its eigenvectors."""

    def __init__(self, share: float, dense: np.ndarray, sparse: np.ndarray) -> None:
        kernel = (1.0 - share) * dense + share * sparse
        means = kernel.mean(axis=0)
        kernel += kernel.mean() - means - means[:, None]
        power, self.left = np.linalg.eigh(kernel)
        self.power = np.maximum(power, 0.0)

    def solve(self, labels: np.ndarray, start: np.ndarray) -> _Solution:
        """Solve for float64 ``[N]`` labels; ``start`` ``[N]``: the former model's. ``dual`` sums to 0."""
        if not self.power.any():
            return _Solution(float(np.mean(labels**2)), 0.0, 0.0, np.zeros(len(labels)))
        start = start - start.mean()
        found = choose_penalty(self.left, self.power, labels, start)
        dual = self.left @ (self.left.T @ (labels - found.share * start) / (self.power + found.alpha))
        return _Solution(found.error, found.alpha, found.share, dual - dual.mean())


def count_grams(texts: Sequence[str], max_tokens: int) -> Counts:
    """Return the hashed n-grams of the first ``BYTES_PER_TOKEN`` x ``max_tokens`` bytes of each text."""
    limit = BYTES_PER_TOKEN * max_tokens
    raw = [np.frombuffer(text[:limit].encode("utf-8", "surrogatepass")[:limit], np.uint8) for text in texts]
    rows = np.repeat(np.arange(len(raw), dtype=np.int64), [len(one) for one in raw])
    flat = np.concatenate([np.zeros(0, np.uint8), *raw]).astype(np.uint64)
    keys = []
    for order in ORDERS:
        count = max(len(flat) - order + 1, 0)
        code = np.full(count, order, np.uint64)
        for place in range(order):
            code = (code << np.uint64(8)) | flat[place : place + count]
        inside = rows[:count] == rows[len(flat) - count :]
        bucket = (code * SPREAD) >> np.uint64(64 - BITS)
        keys.append((rows[:count][inside] << BITS) | bucket[inside].astype(np.int64))
    found, times = np.unique(np.concatenate(keys), return_counts=True)
    return Counts(len(raw), found >> BITS, found & ((1 << BITS) - 1), np.log1p(times))


def _matrix(counts: Counts, rarity: np.ndarray) -> Any:
    """Return the documents' phi as a sparse matrix ``[N, 2^BITS]``."""
    from scipy.sparse import csr_matrix

    shape = counts.documents, len(rarity)
    return csr_matrix((counts.weighted(rarity), (counts.rows, counts.buckets)), shape=shape)


def _products(matrix: Any) -> np.ndarray:
    """Return a sparse matrix times its transpose, float64 ``[N, N]``, by rows at a time."""
    starts = range(0, matrix.shape[0], ROWS)
    return np.concatenate([(matrix[start : start + ROWS] @ matrix.T).toarray() for start in starts])


def _texts(features: Features) -> Sequence[str]:
    if features.texts is None:
        raise UserError("influence model 'grams' reads texts: give the texts of the documents")
    return features.texts
