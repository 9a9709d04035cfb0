"""Records on disk by bucket, so that all of a bucket are met together in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

BUCKETS = 1024

HIT = np.dtype([("hash", "u8"), ("position", "u8"), ("check", "u4"), ("length", "u4")])
"""A unit of text: 96 bits of its content, its first character in the whole corpus, its length in characters."""
REPEAT = np.dtype([("position", "u8"), ("length", "u4"), ("copies", "u4"), ("kind", "u4")])
"""A unit that occurs ``copies`` times, at one of its places."""


class Spill:
    """Collects records of one ``dtype`` and gives them back by bucket, whatever order they came in.

    At most about ``memory`` bytes are held: as much is written to ``path`` at a time, in the order of the buckets, and
    :meth:`groups` reads as many buckets at a time as fit (one at least, so a single unit with more copies than fit is
    the exception).
    """

    def __init__(self, path: Path, dtype: np.dtype, memory: int) -> None:
        self.path, self.dtype, self.memory = path, dtype, memory
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._held = 0
        self._blocks: list[np.ndarray] = []  # int64 [BUCKETS + 1]: record numbers in the file
        self.records = 0

    def add(self, records: np.ndarray, buckets: np.ndarray) -> None:
        """Take records with the bucket, uint16 below ``BUCKETS``, of each."""
        if not len(records):
            return
        self._waiting.append((records, buckets))
        self._held += records.nbytes
        if 3 * self._held >= self.memory:  # writing them in order takes as much again, twice
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        buckets = np.concatenate([part for _, part in self._waiting])
        records = np.concatenate([part for part, _ in self._waiting])
        self._waiting.clear()
        self._held = 0
        counts = np.bincount(buckets, minlength=BUCKETS)
        with self.path.open("ab") as file:
            records[np.argsort(buckets, kind="stable")].tofile(file)
        self._blocks.append(self.records + np.concatenate([[0], np.cumsum(counts)]))
        self.records += len(records)

    def groups(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (first bucket, bucket after the last, records) until every bucket was met, also empty ones."""
        self._write()
        sizes = np.zeros(BUCKETS, np.int64)
        for block in self._blocks:
            sizes += np.diff(block)
        most = max(1, self.memory // (3 * self.dtype.itemsize))
        first = 0
        while first < BUCKETS:
            total = np.cumsum(sizes[first:])
            last = first + max(1, int(np.searchsorted(total, most, side="right")))
            yield first, last, self._read(first, last)
            first = last

    def _read(self, first: int, last: int) -> np.ndarray:
        parts = [
            np.fromfile(
                self.path, self.dtype, int(block[last] - block[first]), offset=int(block[first]) * self.dtype.itemsize
            )
            for block in self._blocks
        ]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def close(self) -> None:
        """Remove the file."""
        self._waiting.clear()
        self._blocks.clear()
        self.path.unlink(missing_ok=True)
