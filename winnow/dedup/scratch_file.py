"""A file without a name for arrays that do not fit into memory; it is gone with the process, however that ends."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np


class ScratchFile:
    """Holds arrays of uint64 at places in bytes; made in ``folder``, without buffers of its own."""

    def __init__(self, folder: Path, prefix: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=folder, prefix=prefix)
        Path(name).unlink()
        self._number: int | None = number
        self.size = 0

    def close(self) -> None:
        if self._number is not None:
            os.close(self._number)
            self._number = None

    def mapped(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return a file full of zeros as an array of the shape; it holds the file until the array is gone."""
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        os.ftruncate(self._open, size)
        self.size = size
        return np.frombuffer(mmap.mmap(self._open, size), dtype, int(np.prod(shape))).reshape(shape)

    def append(self, values: np.ndarray) -> int:
        """Write values behind all others; return their place."""
        place = self.size
        self.write(place, values)
        return place

    def write(self, place: int, values: np.ndarray) -> None:
        """Write values uint64 at a place."""
        view, done = memoryview(np.ascontiguousarray(values, np.uint64).view(np.uint8)), 0  # type: ignore[arg-type]
        while done < len(view):
            done += os.pwrite(self._open, view[done:], place + done)
        self.size = max(self.size, place + len(view))

    def read(self, place: int, count: int) -> np.ndarray:
        """Return ``count`` values from a place on."""
        values = np.empty(count, np.uint64)
        self.fill(place, values)
        return values

    def fill(self, place: int, out: np.ndarray) -> None:
        """Fill a contiguous array uint64 from a place on."""
        view, done = memoryview(out.view(np.uint8)), 0  # type: ignore[arg-type]
        while done < len(view):
            got = os.preadv(self._open, [view[done:]], place + done)
            if not got:
                raise EOFError(f"the scratch file ends at {self.size} bytes, {place + len(view)} were asked for")
            done += got

    @property
    def _open(self) -> int:
        if self._number is None:
            raise ValueError("the scratch file is closed")
        return self._number
