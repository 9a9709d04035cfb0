"""Distinct pairs of positions, collected in bounded memory and given back in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np

from winnow.dedup.scratch_file import ScratchFile

HELD_PAIRS = 1 << 24
"""Pairs (8 bytes each) that are held before they are sorted, and written out if they are still many."""
MARK = 4096


class PairSpool:
    """Takes codes of pairs (``positions.pack``) from several threads, repeats allowed; use it in a ``with`` block.

    Sorted runs of distinct codes go to files in ``scratch`` (None: everything stays in memory).
    """

    def __init__(self, scratch: Path | None = None, held: int = HELD_PAIRS) -> None:
        self.scratch, self.held = scratch, held
        self._buffer = np.empty(min(held, 1 << 16), np.uint64)
        self._filled = 0
        self._file: ScratchFile | None = None
        self._runs: list[_Run] = []
        self._lock = Lock()

    def __enter__(self) -> PairSpool:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffer = np.empty(0, np.uint64)
        if self._file is not None:
            self._file.close()

    def add(self, codes: np.ndarray) -> None:
        """Take codes uint64 ``[P]``."""
        with self._lock:
            if self._filled + len(codes) > len(self._buffer):
                self._make_room(len(codes))
            self._buffer[self._filled : self._filled + len(codes)] = codes
            self._filled += len(codes)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the distinct codes in ascending order, at most about ``held`` at a time; may be asked again."""
        self._compact()
        held = self._buffer[: self._filled]
        if self._file is None:
            if len(held):
                yield held
            return
        for first, last in self._cuts(held):
            pieces = [run.between(self._file, first, last) for run in self._runs]
            pieces.append(held[slice(*np.searchsorted(held, [first, last]))])
            yield np.unique(np.concatenate(pieces))

    def _make_room(self, wanted: int) -> None:
        self._compact()
        needed = self._filled + wanted
        if needed > self.held and self._filled > self.held // 2 and self.scratch is not None:
            self._write_out(self.scratch)
            needed = wanted
        if needed > len(self._buffer) or (needed > len(self._buffer) // 2 and len(self._buffer) < self.held):
            grown = np.empty(max(needed, min(2 * needed, self.held)), np.uint64)
            grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown

    def _compact(self) -> None:
        from winnow.dedup import _bucket_kernels

        self._buffer[: self._filled].sort()
        self._filled = int(_bucket_kernels.distinct(self._buffer, self._filled))

    def _write_out(self, scratch: Path) -> None:
        if self._file is None:
            self._file = ScratchFile(scratch, "pairs-")
        run = self._buffer[: self._filled]
        self._runs.append(_Run(self._file.append(run), len(run), run[::MARK].copy()))
        self._filled = 0

    def _cuts(self, held: np.ndarray) -> Iterator[tuple[np.uint64, np.uint64]]:
        """Yield ranges of codes that hold about half of ``self.held`` together; they end at 2**63, above all codes."""
        marks = np.sort(np.concatenate([held[::MARK], *(run.marks for run in self._runs)]))
        cuts = np.unique(marks[:: max(1, self.held // (2 * MARK))])
        yield from pairwise([np.uint64(0), *cuts[cuts > 0], np.uint64(1 << 63)])


@dataclass(frozen=True)
class _Run:
    """Sorted codes in a file; ``marks`` is every ``MARK``-th of them."""

    place: int
    length: int
    marks: np.ndarray

    def between(self, file: ScratchFile, first: np.uint64, last: np.uint64) -> np.ndarray:
        """Return the codes ``first <= code < last``."""
        begin = MARK * max(0, int(np.searchsorted(self.marks, first)) - 1)
        end = min(self.length, MARK * int(np.searchsorted(self.marks, last)))
        codes = file.read(self.place + 8 * begin, max(0, end - begin))
        return codes[slice(*np.searchsorted(codes, [first, last]))]
