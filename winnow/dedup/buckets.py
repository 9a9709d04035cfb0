"""Band keys by column: in memory, or in one scratch file above a budget, so that a band at a time is held.

Rows keep the order in which they were added; ``places`` says which document each one is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from winnow.dedup.scratch_file import ScratchFile

HELD_BYTES = 256 << 20
FILTER_KEY_BYTES, FILTER_BYTES = 8 + 48, 512 << 20
"""Most bytes of a key and its place in a :class:`KeyFilter`, and of a filter that is made of new keys."""


class BandColumns:
    """Keys uint64 of up to ``capacity`` rows and ``bands`` bands; use it in a ``with`` block.

    ``scratch`` is the folder of the file that holds them when they are more than ``held_bytes`` (None: always memory).
    """

    def __init__(self, bands: int, capacity: int, scratch: Path | None = None, held_bytes: int = HELD_BYTES) -> None:
        self.bands, self.capacity, self.rows = bands, capacity, 0
        self._places = np.empty(capacity, np.int32)
        self._held: np.ndarray | None = None
        self._file: ScratchFile | None = None
        if scratch is None or 8 * bands * capacity <= held_bytes:
            self._held = np.empty((bands, capacity), np.uint64)
        else:
            self._file = ScratchFile(scratch, "bands-")

    @classmethod
    def of(cls, keys: np.ndarray, places: np.ndarray) -> BandColumns:
        """Hold keys uint64 ``[N, B]`` of documents at ``places`` integer ``[N]``."""
        columns = cls(keys.shape[1], len(keys))
        columns.add(keys, places)
        return columns

    def __enter__(self) -> BandColumns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and file."""
        self._held = None
        if self._file is not None:
            self._file.close()

    def add(self, keys: np.ndarray, places: np.ndarray) -> None:
        """Append rows: keys uint64 ``[n, bands]``, places integer ``[n]``."""
        first, last = self.rows, self.rows + len(keys)
        self._places[first:last] = places
        if self._held is not None:
            self._held[:, first:last] = keys.T
        elif self._file is not None:
            for band in range(self.bands):
                self._file.write(8 * (band * self.capacity + first), keys[:, band])
        self.rows = last

    def place(self, places: np.ndarray) -> None:
        """Say anew which documents the rows are: places integer ``[rows]``."""
        self._places[: self.rows] = places

    @property
    def places(self) -> np.ndarray:
        """The positions of the rows' documents, int32 ``[rows]``."""
        return self._places[: self.rows]

    def column(self, band: int) -> np.ndarray:
        """Return the keys of one band, uint64 ``[rows]``."""
        if self._file is not None:
            return self._file.read(8 * band * self.capacity, self.rows)
        if self._held is None:
            raise ValueError("the band keys are closed")
        return self._held[band, : self.rows]


class KeyFilter:
    """A set of keys uint64 that tells fast which rows of keys hold one of them: 24 to 48 bytes a key."""

    def __init__(self, keys: np.ndarray) -> None:
        from winnow.dedup import _bucket_kernels

        self.size = len(keys)
        size = max(len(keys), 1)
        self.bits = min(max((64 * size - 1).bit_length(), 10), 30)
        self.bitmap = np.zeros(1 << (self.bits - 6), np.uint64)
        self.slots = np.zeros(1 << (2 * size - 1).bit_length(), np.uint64)
        self.zero = bool((keys == 0).any())
        _bucket_kernels.fill_filter(keys, self.bits, self.bitmap, self.slots)

    def __bool__(self) -> bool:
        return self.size > 0

    def hits(self, keys: np.ndarray) -> np.ndarray:
        """Return bool ``[n]``: which rows of keys uint64 ``[n, B]`` hold a key of the set."""
        from winnow.dedup import _bucket_kernels

        out = np.empty(len(keys), np.bool_)
        flat = np.ascontiguousarray(keys).reshape(-1)
        _bucket_kernels.probe(flat, len(keys), keys.shape[1], self.bits, self.bitmap, self.slots, self.zero, out)
        return out
