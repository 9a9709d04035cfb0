"""A network of one hidden layer on what the ridge leaves over.

    score(x) = ridge(x) + w2 . relu(W1 x + b1),    w2 = 0 at first

trained by AdamW on mini-batches with dropout, on one thread and from a seed, so the same probes give the same bits. It
is fitted to the ridge's prediction without the document itself, and how many epochs it takes is decided on a fifth of
the documents, as for the trees. Predictions are made in float64 with numpy, row by row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow.attribution.correlation import spearman
from winnow.attribution.surrogates.interface import Features, Predictor, Surrogate
from winnow.attribution.surrogates.losses import gradients, is_ranking, line
from winnow.attribution.surrogates.ridge import RidgePredictor, fit_ridge
from winnow.attribution.surrogates.trees import inner_holdout

HIDDEN, EPOCHS, BATCH = 64, 60, 64
RATE, DECAY, DROPOUT = 1e-3, 0.1, 0.2
STALLED = 10  # epochs without a better rank correlation after which no better one is expected
LAYERS = ("first", "bias", "second")


@dataclass(frozen=True)
class Network:
    """``first`` float64 ``[H, P]``, ``bias`` ``[H]``, ``second`` ``[H]``."""

    first: np.ndarray
    bias: np.ndarray
    second: np.ndarray

    def predict(self, standard: np.ndarray) -> np.ndarray:
        """Return float64 ``[N]`` for standardised features ``[N, P]``."""
        # einsum's own loop, not a matrix product: the product's rounding depends on the number of rows.
        inner = np.einsum("np,hp->nh", standard, self.first, optimize=False) + self.bias
        return np.ascontiguousarray(np.maximum(inner, 0.0) * self.second).sum(axis=1)

    def moved(self, factor: np.ndarray, shift: np.ndarray) -> Network:
        """Return the network that does the same on features of another scaling (``Scaling.moved_from``)."""
        return Network(self.first * factor, self.bias + self.first @ shift, self.second)


@dataclass(frozen=True)
class MLPPredictor(Predictor, kind="mlp"):
    """A ridge and the network that corrects it: ``slope`` x (ridge + network) + ``intercept``, in z-scored labels."""

    ridge: RidgePredictor
    network: Network
    slope: float
    intercept: float

    @property
    def target_mean(self) -> float:
        return self.ridge.mean

    def centred(self, features: Features) -> np.ndarray:
        return self.ridge.corrected(features, self.network.predict, self.slope, self.intercept)

    def tensors(self) -> dict[str, np.ndarray]:
        return {**self.ridge.tensors(), **{f"network.{name}": getattr(self.network, name) for name in LAYERS}}

    def facts(self) -> dict[str, Any]:
        return {"ridge": self.ridge.facts(), "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> MLPPredictor:
        network = Network(*(tensors[f"network.{name}"] for name in LAYERS))
        return cls(RidgePredictor.restore(tensors, facts["ridge"]), network, facts["slope"], facts["intercept"])


@dataclass(frozen=True)
class MLP(Surrogate, name="mlp"):
    """For smooth influences that are not linear in embedding and signals, with a thousand probes or more."""

    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> MLPPredictor:
        before = previous if isinstance(previous, MLPPredictor) else None
        ridge = fit_ridge(features, targets, None if before is None else before.ridge)
        start = _start(ridge.features.shape[1], self.seed)
        if before is not None:
            start = before.network.moved(*ridge.predictor.scaling.moved_from(before.ridge.scaling))
        held, labels, base = inner_holdout(features.ids, self.seed), ridge.labels.values, ridge.left_out
        best, epochs, scores = spearman(base[held], labels[held]), 0, base[held]
        if before is not None:  # the former network may already do better than the ridge alone
            scores = scores + start.predict(ridge.features[held])
            best = max(best, spearman(scores, labels[held]))
        trial = self._train(start, ridge.features[~held], labels[~held], base[~held], EPOCHS)
        for epoch, network in enumerate(trial, 1):
            reached = base[held] + network.predict(ridge.features[held])
            found = spearman(reached, labels[held])
            if found > best:
                best, epochs, scores = found, epoch, reached
            elif epoch - epochs >= STALLED:
                break
        slope, intercept = line(scores, labels[held]) if is_ranking(self.loss) else (1.0, 0.0)
        final = deque(self._train(start, ridge.features, labels, base, epochs), maxlen=1)
        return MLPPredictor(ridge.predictor, final[0] if final else start, slope, intercept)

    def _train(
        self, start: Network, standard: np.ndarray, labels: np.ndarray, base: np.ndarray, epochs: int
    ) -> Iterator[Network]:
        """Yield the network after each of ``epochs`` epochs."""
        import torch

        weights = [torch.tensor(getattr(start, name), dtype=torch.float32, requires_grad=True) for name in LAYERS]
        first, bias, second = weights
        inputs = torch.from_numpy(standard.astype(np.float32))
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
        generator = torch.Generator().manual_seed(self.seed)
        draw = np.random.default_rng(self.seed)
        for _ in range(epochs):
            with one_thread():
                for rows in np.array_split(draw.permutation(len(labels)), -(-len(labels) // BATCH)):
                    hidden = torch.relu(inputs[torch.from_numpy(rows)] @ first.T + bias)
                    kept = torch.rand(hidden.shape, generator=generator) >= DROPOUT
                    found = (hidden * kept / (1 - DROPOUT)) @ second
                    scores = base[rows] + found.detach().numpy().astype(np.float64)
                    gradient = gradients(self.loss, scores, labels[rows])[0] / len(rows)
                    optimizer.zero_grad()
                    found.backward(torch.from_numpy(gradient).float())
                    optimizer.step()
            yield Network(*(weight.detach().double().numpy().copy() for weight in weights))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, whose sums always round alike."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start(width: int, seed: int) -> Network:
    draw = np.random.default_rng(seed)
    return Network(draw.normal(size=(HIDDEN, width)) / np.sqrt(width), np.zeros(HIDDEN), np.zeros(HIDDEN))
