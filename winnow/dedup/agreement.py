r"""Candidate pairs refused by their signatures, before a text of theirs is read.

Two documents of Jaccard similarity J agree in a position of their signatures with probability J, and the lowest bytes
of two values that differ are equal once in 256: of K positions they agree in about K (J + (1 - J) / 256). A pair is
refused when it agrees in fewer than :func:`least_agreement` of them, a number so low that a pair *at* the threshold
falls short once in 10**9 (every pair above it more seldom). What banding misses is ten million times as much, and the
false candidates of a large corpus, most of which share one bucket and little else, go without being read.

Whether a pair is refused depends on the two texts and the sketching alone, never on what else is in the corpus.

Source: Li and Koenig 2010, "b-bit minwise hashing" (the lowest bits suffice); Satuluri and Parthasarathy 2012,
"Bayesian locality sensitive hashing" (pruning candidates by the signatures at hand).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from winnow.dedup.scratch_file import ScratchFile

REFUSED = 1e-9
"""Share of the pairs at the threshold that are refused, at most."""
HELD_BYTES = 1 << 30
ADDED_ROWS = 1 << 16


def least_agreement(threshold: float, permutations: int) -> int:
    """Return in how many positions a pair must agree: one below it has similarity ``threshold`` with odds ``REFUSED``.

    The number of agreeing positions is taken as binomial; that of scheme ``winnow`` varies less.
    """
    below = np.cumsum(_chances(np.array([threshold]), permutations)[0])
    return int(np.argmax(below > REFUSED))


def passing(similarity: np.ndarray, least: int, permutations: int) -> np.ndarray:
    """Return the chance that a pair of Jaccard similarity s agrees in ``least`` positions or more; s is ``[S]``."""
    return _chances(similarity, permutations)[:, least:].sum(axis=1)


def _chances(similarity: np.ndarray, permutations: int) -> np.ndarray:
    """Return the chance of agreeing in exactly 0, 1, ... K positions, float64 ``[S, K + 1]``."""
    chance = (similarity + (1.0 - similarity) / 256)[:, None]
    agreeing = np.arange(permutations + 1)
    ways = np.array([math.comb(permutations, count) for count in agreeing.tolist()], np.float64)
    return ways * chance**agreeing * (1.0 - chance) ** (permutations - agreeing)


class Fingerprints:
    """The lowest bytes of N signatures, uint8 ``[N, K]``, and how many of them a pair must share; use it in ``with``.

    ``scratch`` is the folder of the file that holds them when they are more than ``held_bytes`` (None: always memory).
    """

    def __init__(
        self, count: int, permutations: int, threshold: float, scratch: Path | None = None, held_bytes: int = HELD_BYTES
    ) -> None:
        self.least = least_agreement(threshold, permutations)
        self._file: ScratchFile | None = None
        if scratch is None or count * permutations <= held_bytes:
            self._rows = np.zeros((count, permutations), np.uint8)
        else:
            self._file = ScratchFile(scratch, "fingerprints-")
            self._rows = self._file.mapped((count, permutations), np.uint8)

    def __enter__(self) -> Fingerprints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and file."""
        self._rows = np.zeros((0, 0), np.uint8)
        if self._file is not None:
            self._file.close()

    def add(self, places: np.ndarray, signatures: np.ndarray) -> None:
        """Take the signatures ``[n, K]`` of the documents at ``places`` integer ``[n]``."""
        for start in range(0, len(places), ADDED_ROWS):
            rows = slice(start, start + ADDED_ROWS)
            self._rows[places[rows]] = signatures[rows].astype(np.uint8)

    def alike(self, codes: np.ndarray) -> np.ndarray:
        """Return which pairs, codes uint64 ``[P]`` of places, agree in enough positions: bool ``[P]``."""
        from winnow.dedup import _band_kernels

        out = np.empty(len(codes), np.bool_)
        _band_kernels.alike(self._rows, codes, self.least, out)
        return out
