"""What a policy is told of the arms before the first pull."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Prior:
    """What earlier rounds, or the checkpoint before, learnt of the arms, in the units in which rewards are observed.

    ``mean`` float64 ``[K]``, the reward expected; ``variance`` float64 ``[K]``, of one document's reward; ``count``
    float64 ``[K]``, how many probes that knowledge is worth (0: nothing is known, then the others are not read);
    ``freedom`` float64 ``[K]``, the degrees of freedom of the variance, None = ``count`` - 1. Means age, see
    :func:`winnow.selection.belief.aged`; variances do not, so their freedom may outlast the count.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    freedom: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ArmFacts:
    """K arms: ``sizes`` int64 ``[K]`` documents, ``tokens`` int64 ``[K]``, and what else is known of them.

    ``centroids`` float32 ``[K, D]`` in the space of the embeddings; ``features`` float64 ``[K, F]``, such as the arm's
    mean scores; ``prior`` as its class says. The simulator runs R runs at once: then every array has R in front of K.
    """

    sizes: np.ndarray
    tokens: np.ndarray
    centroids: np.ndarray | None = None
    features: np.ndarray | None = None
    prior: Prior | None = None

    def __post_init__(self) -> None:
        shape = self.sizes.shape
        tables = {"tokens": self.tokens, "centroids": self.centroids, "features": self.features}
        if self.prior is not None:
            tables |= {"prior mean": self.prior.mean, "variance": self.prior.variance, "count": self.prior.count}
        for name, table in tables.items():
            if table is not None and table.shape[: len(shape)] != shape:
                raise ValueError(f"{shape} arms, but {name} of shape {table.shape}")
