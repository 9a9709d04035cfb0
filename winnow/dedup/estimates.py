"""What near-duplicate detection will cost and find, before anything runs: recall, false candidates, disk, memory.

Everything follows from the number of documents, the mean length of their texts and the band plan. How many pairs of
documents resemble each other a little decides how many false candidates there are: that is a property of the corpus, so
it is taken from a sample of signatures where there are some (:func:`sample_similarity`), else from the density that
``winnow.dedup.bands.pair_density`` states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winnow.dedup import agreement, buckets, verify
from winnow.dedup.bands import BandPlan, Density, pair_density
from winnow.dedup.candidates import MAX_BUCKET
from winnow.dedup.pair_spool import HELD_PAIRS
from winnow.dedup.shingles import usable_cores

TABLE_BYTES, TABLES_HELD = 64 << 20, 3
"""Text that is read and hashed at once; tables of rows that wait for the writer of parts."""
ID_BYTES, KEY_BYTES, PAIR_BYTES = 16, 8, 8
ROW_BYTES = 24
"""Of a row beside its signature or keys: id, lengths, scheme. Both are hashes, which do not compress."""
DOCUMENT_BYTES, SORTED_BYTES = 32, 40
"""Held for each document (id, order, place, marks), and besides for each that a thread sorts by the keys of a band."""
WORD_BYTES = 6
"""Of text for each shingle."""
DUPLICATED = 0.3
"""Share of a corpus that is taken to have a true near duplicate, one pair each."""


@dataclass(frozen=True)
class SimilaritySample:
    """Similarities of pairs of documents drawn at random, as their signatures estimate them.

    ``agreeing`` int64 ``[K + 1]``: how many of ``pairs`` agree in 0, 1, ... K positions of K.
    """

    agreeing: np.ndarray
    pairs: int

    def false_candidates(self, plan: BandPlan, refused: bool = False) -> float:
        """Chance that two documents drawn at random are a candidate pair below the plan's threshold.

        ``refused``: without those that their signatures refuse (:mod:`winnow.dedup.agreement`), so that texts are read.
        """
        similarity = np.arange(len(self.agreeing)) / (len(self.agreeing) - 1)
        below = similarity < plan.threshold
        if refused:
            below &= np.arange(len(self.agreeing)) >= agreement.least_agreement(plan.threshold, plan.permutations)
        chances = np.array([plan.recall(value) for value in similarity[below]])
        return float(self.agreeing[below] @ chances) / max(self.pairs, 1)


def sample_similarity(signatures: np.ndarray) -> SimilaritySample:
    """Compare all pairs of signatures ``[M, K]`` of documents drawn at random; the time grows with ``M * M * K``."""
    count, width = signatures.shape
    agreeing = np.zeros(width + 1, np.int64)
    for first in range(count - 1):
        equal = (signatures[first + 1 :] == signatures[first]).sum(axis=1)
        agreeing += np.bincount(equal, minlength=width + 1)
    return SimilaritySample(agreeing, count * (count - 1) // 2)


@dataclass(frozen=True)
class Estimate:
    """What a band plan will find and cost on a corpus; bytes are upper estimates, nothing here is measured.

    ``false_candidates`` is a mean for each document, of the whole corpus. ``parts`` are the bytes that stay on disk,
    ``scratch`` those that do while documents are compared, ``memory`` the peak of each step.
    """

    plan: BandPlan
    documents: int
    new_documents: int
    mean_bytes: float
    false_candidates: float
    sampled_pairs: int
    parts: Mapping[str, int]
    scratch: Mapping[str, int]
    memory: Mapping[str, int]

    @property
    def disk_bytes(self) -> int:
        """All that is written, whether it stays or not."""
        return sum(self.parts.values()) + sum(self.scratch.values())

    @property
    def memory_bytes(self) -> int:
        """The peak of the step that needs most."""
        return max(self.memory.values())

    @property
    def largest_step(self) -> str:
        return max(self.memory, key=lambda step: (self.memory[step], step))


def estimate(
    documents: int,
    mean_bytes: float,
    plan: BandPlan,
    new_documents: int | None = None,
    value_bytes: int = 4,
    sample: SimilaritySample | None = None,
    threads: int | None = None,
) -> Estimate:
    """Estimate a plan on texts of ``mean_bytes`` UTF-8 bytes: ``documents`` of them, ``new_documents`` not yet banded.

    ``value_bytes``: bytes of one position of a signature (4, or 8 for schemes of 64 bits). Without a ``sample`` the
    false candidates follow ``pair_density``. ``threads`` defaults to the cores this process may use.
    """
    new = documents if new_documents is None else new_documents
    share = sample.false_candidates(plan) if sample else plan.false_candidates()
    read = sample.false_candidates(plan, refused=True) if sample else plan.false_candidates(_resembling(plan))
    # A bucket above the limit is compared with a few documents only, however many resemble each other.
    false = min(share * max(documents - 1, 0), plan.bands * (MAX_BUCKET - 1))
    false_read = min(read * max(documents - 1, 0), false)
    pairs = round(documents * (false_read / 2 + DUPLICATED))
    table = min(TABLE_BYTES, round(documents * mean_bytes))
    rows_of_table = min(new, round(TABLE_BYTES / max(mean_bytes, 1)))
    row = 2 * ROW_BYTES + plan.permutations * value_bytes + plan.bands * KEY_BYTES
    keys = documents * plan.bands * KEY_BYTES
    compared = documents * min(1.0, DUPLICATED + 1 - math.exp(-false_read))
    hashes = round(compared * mean_bytes / WORD_BYTES * KEY_BYTES)
    sorting = min(threads or usable_cores(), plan.bands) * documents * SORTED_BYTES
    touching = min(new * plan.bands * buckets.FILTER_KEY_BYTES, buckets.FILTER_BYTES) if new < documents else 0
    fingerprints = documents * plan.permutations
    held_pairs = 3 * min(pairs, HELD_PAIRS) * PAIR_BYTES
    parts = {
        "sketches": new * (ROW_BYTES + plan.permutations * value_bytes),
        "bands": new * (ROW_BYTES + plan.bands * KEY_BYTES),
    }
    scratch = {
        "band keys": keys if keys > buckets.HELD_BYTES else 0,
        "fingerprints": fingerprints if fingerprints > agreement.HELD_BYTES else 0,
        "pairs": pairs * PAIR_BYTES if pairs > HELD_PAIRS else 0,
        "shingles": hashes if hashes > verify.HELD_BYTES else 0,
    }
    memory = {
        "sketches": 3 * table + TABLES_HELD * rows_of_table * row,
        "pairs": documents * DOCUMENT_BYTES
        + sorting
        + min(keys, buckets.HELD_BYTES)
        + min(fingerprints, agreement.HELD_BYTES)
        + held_pairs
        + touching,
        "verification": documents * DOCUMENT_BYTES + 3 * table + 2 * min(hashes, verify.HELD_BYTES) + held_pairs,
        "keepers": documents * DOCUMENT_BYTES + 6 * round(documents * DUPLICATED) * (ID_BYTES + PAIR_BYTES),
    }
    return Estimate(plan, documents, new, mean_bytes, false, sample.pairs if sample else 0, parts, scratch, memory)


def _resembling(plan: BandPlan) -> Density:
    """Return the assumed density of the pairs whose signatures agree enough for their texts to be read."""
    least = agreement.least_agreement(plan.threshold, plan.permutations)

    def density(similarity: np.ndarray) -> np.ndarray:
        return pair_density(similarity) * agreement.passing(similarity, least, plan.permutations)

    return density
