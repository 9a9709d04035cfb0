"""Arms: the clusters of the candidate pool, with their documents and what those cost in tokens.

A *position* is a candidate's place in the arrays the caller passed. Everything here that is ordered is ordered by
cluster and then by doc_id or by a seeded hash of it, so no result depends on the order of the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys
from winnow.selection.budget import sorted_by

PROBE_SALT = "probe"


@dataclass(frozen=True, eq=False)
class Arms:
    """K clusters over N candidate documents; made by :func:`build_arms`.

    ``clusters`` int64 ``[K]`` ascending; ``doc_ids`` uint8 ``[N, 16]``; ``tokens`` int64 ``[N]``; ``arm_of`` int64
    ``[N]``, the index into ``clusters`` of each candidate; ``positions`` int64 ``[N]``, the candidates grouped by arm
    and by doc_id within; ``starts`` int64 ``[K + 1]``, where each arm begins in ``positions``.
    """

    clusters: np.ndarray
    doc_ids: np.ndarray
    tokens: np.ndarray
    arm_of: np.ndarray
    positions: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.clusters)

    @property
    def pool_tokens(self) -> int:
        """Tokens of all candidates together."""
        return int(self.tokens.sum())

    def arm_tokens(self) -> np.ndarray:
        """Return the tokens of each arm, int64 ``[K]``."""
        total = np.zeros(len(self), dtype=np.int64)
        np.add.at(total, self.arm_of, self.tokens)
        return total

    def seeded_positions(self, seed: int, salt: str) -> list[np.ndarray]:
        """Return for each arm its positions in the random order of ``(seed, salt)``; ties break by doc_id."""
        keys = seeded_keys(self.doc_ids, seed, salt)[self.positions]
        # A stable sort by (arm, key) over positions that stand in doc_id order.
        order = np.lexsort((keys, self.arm_of[self.positions]))
        return np.split(self.positions[order], self.starts[1:-1]) if len(self) else []


def build_arms(
    doc_ids: np.ndarray, clusters: np.ndarray, tokens: np.ndarray, all_clusters: np.ndarray | None = None
) -> Arms:
    """Group candidate documents into arms.

    ``doc_ids`` uint8 ``[N, 16]`` distinct, ``clusters`` integer ``[N]``, ``tokens`` integer ``[N]``. ``all_clusters``
    names clusters that may have lost all their candidates; they become empty arms. Raises :class:`UserError` on
    arrays of unequal length, a repeated document, a negative token count or a cluster not in ``all_clusters``.
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
    keys = ids_as_keys(ids)
    by_id = sorted_by(ids)
    repeated = keys[by_id][1:] == keys[by_id][:-1]
    if repeated.any():
        twin = ids[by_id[int(np.argmax(repeated))]].tobytes().hex()
        raise UserError(f"candidate {twin}: occurs twice; pass each document once")
    positions = by_id[np.argsort(arm_of[by_id], kind="stable")].astype(np.int64)
    starts = np.searchsorted(arm_of[positions], np.arange(len(names) + 1)).astype(np.int64)
    return Arms(names, ids, counts, arm_of, positions, starts)


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
