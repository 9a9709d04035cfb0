"""Two presets side by side: what they chose, and how the models that learned from it differ.

Choices are compared by documents and tokens in common, by source, cluster, length and duplicates. Models are compared
by the losses of the same items, paired over items and seeds. Collective outliers are documents that a score prefers as
one: copies of each other, one cluster, one template. Their share among the chosen is told against that in the pool.

Source: Shah et al. 2023 (ModelDiff) for comparing learning algorithms; Karamcheti et al. 2021 and Snijders et al. 2023
for collective outliers among the top of a score.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.attribution.validation.intervals import crossed_interval
from winnow.lab.kept import RunResult
from winnow.lab.pool import LabPool

WORD = re.compile(r"\S+")
LINES = 3
ENRICHED = 3.0
"""Times its share in the pool from which a group among the chosen is told as an outlier."""
NOTABLE = 0.02
"""Share of the chosen documents below which a group is not told, however rare it is in the pool."""


@dataclass(frozen=True)
class Choices:
    """What two choices have in common.

    ``documents`` and ``tokens``: shares of their union that both have; ``sources``: of each source, its share of the
    tokens of the first, the second and the pool; ``cluster_distance``: half the sum of absolute differences of the
    clusters' shares of tokens; ``lengths``: mean tokens a document of the two and the pool; ``planted``: by kind, its
    share of the documents of the two and the pool.
    """

    first: str
    second: str
    documents: float
    tokens: float
    sources: dict[str, tuple[float, float, float]]
    cluster_distance: float
    lengths: tuple[float, float, float]
    planted: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Difference:
    """How the losses of two presets' models differ on one set of items.

    ``mean`` of first less second over items and seeds (negative = the first is better) with its interval, and the share
    of ``items`` on which the first is better.
    """

    measured: str
    first: str
    second: str
    mean: float
    low: float
    high: float
    items: float
    seeds: int


@dataclass(frozen=True)
class Outlier:
    """A group that stands out: ``kind`` near_duplicates, cluster, template or source; ``name`` of the group; its share
    of the ``chosen`` documents and of the ``pool``'s."""

    kind: str
    name: str
    chosen: float
    pool: float

    @property
    def enrichment(self) -> float:
        """How many times its share of the pool it has among the chosen; inf for what the pool shows as nothing."""
        return self.chosen / self.pool if self.pool else float("inf")

    @property
    def collective(self) -> bool:
        """Whether it is told as a collective outlier."""
        return self.chosen >= NOTABLE and self.enrichment >= ENRICHED


def compare_choices(pool: LabPool, first: RunResult, second: RunResult) -> Choices:
    """Return how two runs' choices differ; both are positions in ``pool``. A repeated document counts once."""
    a, b = (np.unique(run.positions) for run in (first, second))
    every = np.arange(len(pool))
    both, either = np.intersect1d(a, b), np.union1d(a, b)
    sets = (a, b, every)
    shares = [_shares(pool.clusters[rows], pool.lengths[rows], pool.clusters) for rows in sets[:2]]
    kinds = np.full(len(pool), "", dtype=object) if pool.planted is None else pool.planted

    def share(labels: np.ndarray, weights: np.ndarray, name: str) -> tuple[float, float, float]:
        return _of_three(lambda rows: _weighted(labels[rows] == name, weights[rows]), sets)

    return Choices(
        first.preset,
        second.preset,
        len(both) / max(1, len(either)),
        float(pool.lengths[both].sum() / max(1, pool.lengths[either].sum())),
        {name: share(pool.sources, pool.lengths, name) for name in sorted(set(pool.sources.tolist()))},
        float(np.abs(shares[0] - shares[1]).sum() / 2),
        _of_three(lambda rows: float(pool.lengths[rows].mean()) if len(rows) else 0.0, sets),
        {name: share(kinds, np.ones(len(pool)), name) for name in sorted(set(kinds.tolist()) - {""})},
    )


def compare_models(first: Sequence[RunResult], second: Sequence[RunResult], seed: int = 0) -> list[Difference]:
    """Return how the losses of two presets' models differ on everything that both measured, seeds paired.

    Raises ValueError when they have no seed in common.
    """
    mine, theirs = ({run.seed: run for run in runs} for runs in (first, second))
    shared = sorted(set(mine) & set(theirs))
    if not shared:
        raise ValueError("the two presets have no seed in common")
    found = []
    for name in sorted(set(mine[shared[0]].items) & set(theirs[shared[0]].items)):
        pairs = np.stack([mine[one].items[name] - theirs[one].items[name] for one in shared], axis=1)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if not len(pairs):
            continue
        low, high = crossed_interval(pairs, seed)
        better = float((pairs.mean(axis=1) < 0).mean())
        found.append(
            Difference(name, first[0].preset, second[0].preset, float(pairs.mean()), low, high, better, len(shared))
        )
    return found


def collective_outliers(pool: LabPool, positions: np.ndarray, near: np.ndarray) -> list[Outlier]:
    """Return, of the chosen documents, the share with a near-duplicate in the pool and the fullest groups of each kind.

    ``positions`` of the choice; ``near`` int64 ``[N]``: a label that near-duplicates share (:func:`near_groups`). The
    three groups of the greatest enrichment of each kind are told, the most enriched first.
    """
    chosen = np.unique(positions)
    copies = np.bincount(near, minlength=len(pool))[near] > 1
    found = [Outlier("near_duplicates", "with a near-duplicate in the pool", _mean(copies[chosen]), _mean(copies))]
    kinds = {
        "cluster": np.array([f"{label}" for label in pool.clusters.tolist()], dtype=object),
        "source": pool.sources,
        "template": np.array([template_of(text) for text in pool.texts.tolist()], dtype=object),
    }
    for kind, labels in kinds.items():
        names, codes = np.unique(labels.astype(str), return_inverse=True)
        mine = np.bincount(codes[chosen], minlength=len(names)) / max(1, len(chosen))
        every = np.bincount(codes, minlength=len(names)) / len(pool)
        groups = [Outlier(kind, str(names[place]), float(mine[place]), float(every[place]))
                  for place in np.argsort(-mine, kind="stable")[:20].tolist() if mine[place] >= NOTABLE]  # fmt: skip
        found += sorted(groups, key=lambda group: (-group.enrichment, group.name))[:3]
    return found


def template_of(text: str) -> str:
    """Return what documents of one template share: the first word of each of the first three lines that have one."""
    words = (WORD.search(line) for line in text.split("\n", 20)[:20])
    return " | ".join([word.group(0)[:24].lower() for word in words if word][:LINES])


def near_groups(pool: LabPool, threshold: float = 0.7) -> np.ndarray:
    """Return a label for each document, int64 ``[N]``, that those joined by near-duplicate pairs share.

    Pairs are of verified Jaccard similarity of at least ``threshold`` on shingles of five words.
    """
    from winnow.config import Duplicates
    from winnow.dedup.bands import band_keys
    from winnow.dedup.groups import near_duplicate_groups
    from winnow.dedup.minhash import signatures
    from winnow.dedup.sketch import make_plan

    texts = pa.array(pool.texts.tolist(), pa.large_string())
    plan = make_plan(Duplicates(threshold=threshold))
    signed, present = signatures(texts, plan.sketching)
    rows = np.flatnonzero(present)
    if not len(rows):
        return np.arange(len(pool))
    found = near_duplicate_groups(
        pool.doc_ids[rows],
        band_keys(signed[rows], plan.bands),
        texts.take(pa.array(rows)),
        threshold,
        plan.sketching.shingling,
    )
    return _components(len(pool), rows[found.pairs])


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the smallest position that each is joined with, int64 ``[count]``."""
    label = np.arange(count)
    while True:
        least = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        np.minimum.at(label, pairs[:, 0], least)
        np.minimum.at(label, pairs[:, 1], least)
        if (label == before).all():
            return label


def _of_three(value: Callable[[np.ndarray], float], sets: Sequence[np.ndarray]) -> tuple[float, float, float]:
    a, b, c = (float(value(rows)) for rows in sets)
    return a, b, c


def _weighted(mask: np.ndarray, weights: np.ndarray) -> float:
    return float(weights[mask].sum() / max(1e-12, weights.sum()))


def _mean(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _shares(labels: np.ndarray, tokens: np.ndarray, every: np.ndarray) -> np.ndarray:
    """Return each cluster's share of the tokens, float64, in the order of the pool's clusters."""
    names = np.unique(every)
    total = np.bincount(np.searchsorted(names, labels), weights=tokens, minlength=len(names))
    return total / max(1.0, total.sum())
