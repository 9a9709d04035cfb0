"""Arms: the clusters of the candidate pool, with their documents and what those cost in tokens.

A *position* is a candidate's place in the arrays the caller passed. Everything here that is ordered is ordered by
cluster and then by doc_id or by a seeded hash of it, so no result depends on the order of the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.identity import seeded_keys
from winnow.selection.budget import coded, sorted_by

PROBE_SALT = "probe"


@dataclass(frozen=True, eq=False)
class Arms:
    """K clusters over N candidate documents; made by :func:`build_arms`.

    ``clusters`` int64 ``[K]`` ascending; ``doc_ids`` uint8 ``[N, 16]``; ``tokens`` int64 ``[N]``; ``arm_of`` int64
    ``[N]``, the index into ``clusters`` of each candidate; ``positions`` int64 ``[N]``, the candidates grouped by arm
    and by doc_id within; ``starts`` int64 ``[K + 1]``, where each arm begins in ``positions``; ``available`` bool
    ``[N]``, false for a document that an earlier stage of training has consumed: it is neither probed nor taken, and
    its tokens count nowhere.
    """

    clusters: np.ndarray
    doc_ids: np.ndarray
    tokens: np.ndarray
    arm_of: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    available: np.ndarray

    def __len__(self) -> int:
        return len(self.clusters)

    @property
    def pool_tokens(self) -> int:
        """Tokens of all available candidates together."""
        return int(self.tokens[self.available].sum())

    def arm_tokens(self) -> np.ndarray:
        """Return the available tokens of each arm, int64 ``[K]``."""
        # float64 sums of integers are exact up to 2**53 tokens an arm.
        costs = np.where(self.available, self.tokens, 0)
        return np.bincount(self.arm_of, weights=costs, minlength=len(self)).astype(np.int64)

    def sizes(self) -> np.ndarray:
        """Return the available documents of each arm, int64 ``[K]``."""
        return np.bincount(self.arm_of[self.available], minlength=len(self)).astype(np.int64)

    def members(self, arm: int) -> np.ndarray:
        """Return the available positions of an arm in the order of their doc_ids, int64."""
        positions = self.positions[self.starts[arm] : self.starts[arm + 1]]
        return positions[self.available[positions]]

    def seeded_positions(self, seed: int, salt: str) -> list[np.ndarray]:
        """Return for each arm its available positions in the random order of ``(seed, salt)``; ties break by doc_id."""
        positions = self.positions[self.available[self.positions]]
        arms, keys = self.arm_of[positions], seeded_keys(self.doc_ids[positions], seed, salt)
        # A stable sort by (arm, key) over positions that stand in doc_id order.
        drawn = positions[np.lexsort((keys, arms))]
        return np.split(drawn, np.searchsorted(arms, np.arange(1, len(self)))) if len(self) else []


def build_arms(
    doc_ids: np.ndarray,
    clusters: np.ndarray,
    tokens: np.ndarray,
    all_clusters: np.ndarray | None = None,
    consumed: np.ndarray | None = None,
) -> Arms:
    """Group candidate documents into arms.

    ``doc_ids`` uint8 ``[N, 16]`` distinct, ``clusters`` integer ``[N]``, ``tokens`` integer ``[N]``. ``all_clusters``
    names clusters that may have lost all their candidates; they become empty arms. ``consumed`` bool ``[N]``: what
    earlier manifests of the line have taken. Raises :class:`UserError` on arrays of unequal length, a repeated
    document, a negative token count or a cluster not in ``all_clusters``.
    """
    ids = np.ascontiguousarray(doc_ids, dtype=np.uint8).reshape(-1, 16)
    labels = np.asarray(clusters, dtype=np.int64)
    counts = np.asarray(tokens, dtype=np.int64)
    if not len(ids) == len(labels) == len(counts):
        raise UserError(
            f"candidates: {len(ids)} doc ids, {len(labels)} clusters and {len(counts)} token counts; pass one of each"
        )
    if (counts < 0).any():
        raise UserError(f"candidate {ids[np.argmax(counts < 0)].tobytes().hex()}: negative token count; count it again")
    names = np.unique(labels if all_clusters is None else np.asarray(all_clusters, dtype=np.int64))
    unknown = np.setdiff1d(labels, names)
    if len(unknown):
        raise UserError(f"candidates: cluster {unknown[0]} is not one of the clustering; assign the documents again")
    arm_of = np.searchsorted(names, labels).astype(np.int64)
    available = np.ones(len(ids), dtype=bool) if consumed is None else ~np.asarray(consumed, dtype=bool)
    if available.shape != labels.shape:
        raise ValueError(f"{len(ids)} candidates, but {available.shape} marks of consumption")
    by_id = sorted_by(ids)
    halves = np.ascontiguousarray(ids[by_id]).view(np.uint64).reshape(-1, 2)
    repeated = (halves[1:] == halves[:-1]).all(axis=1)
    if repeated.any():
        twin = ids[by_id[int(np.argmax(repeated))]].tobytes().hex()
        raise UserError(f"candidate {twin}: occurs twice; pass each document once")
    positions = by_id[np.argsort(arm_of[by_id], kind="stable")].astype(np.int64)
    starts = np.searchsorted(arm_of[positions], np.arange(len(names) + 1)).astype(np.int64)
    return Arms(names, ids, counts, arm_of, positions, starts, available)


def arm_labels(kind: str, clusters: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the arm of each candidate, int64 ``[N]``, and the names of arms that are not clusters, by label.

    ``clusters`` integer ``[N]``, ``sources`` str ``[N]``. ``kind``: ``clusters``; ``pool``, one arm for all, so that a
    ranking of the whole pool decides; ``sources``, an arm a source, in the order of their names. Raises
    :class:`UserError` for another.
    """
    if kind == "clusters":
        return np.asarray(clusters, dtype=np.int64), []
    if kind == "pool":
        return np.zeros(len(clusters), dtype=np.int64), ["pool"]
    if kind == "sources":
        names, labels = coded(sources)
        return labels, names
    raise UserError(f"selection arms '{kind}': no such grouping; choose one of clusters, pool, sources")


def opening_probes(arms: Arms, probes_per_arm: int, seed: int) -> np.ndarray:
    """Return the positions (int64) of every arm's first pull: up to ``probes_per_arm`` random documents of each.

    Drawn without replacement by seeded hash, grouped by arm in the order of ``arms.clusters``. The bandit's later
    pulls with the same seed go on in the same random order, so probes never repeat. Raises :class:`UserError` when
    ``probes_per_arm`` is below 1.
    """
    if probes_per_arm < 1:
        raise UserError(f"probes_per_arm: {probes_per_arm}; expected at least 1, an arm never probed has no reward")
    drawn = [members[:probes_per_arm] for members in arms.seeded_positions(seed, PROBE_SALT)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *drawn])
