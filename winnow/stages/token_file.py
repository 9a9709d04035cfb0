"""Token arrays of any number of documents in one unnamed file, mapped: what is looked at is in memory, the rest not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np


class TokenFile(Sequence[np.ndarray]):
    """N token arrays int32 ``[n]`` by place. The file goes with the object, and with the process if it is killed."""

    def __init__(self, folder: Path, count: int, found: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]]) -> None:
        """Write ``count`` arrays, which come as some places (int64 ``[R]``) with their arrays, in any order.

        ``folder`` is where the file takes its space, 4 bytes a token. A place that never comes is an empty array.
        """
        self._starts, self._lengths = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        written = 0
        with tempfile.TemporaryFile(dir=folder) as file:
            for places, arrays in found:
                for place, array in zip(places.tolist(), arrays, strict=True):
                    self._starts[place], self._lengths[place] = written, len(array)
                    file.write(np.asarray(array, dtype="<i4").tobytes())
                    written += len(array)
            file.flush()
            self._tokens = np.memmap(file, "<i4", "r") if written else np.empty(0, dtype="<i4")

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[np.ndarray]: ...

    def __getitem__(self, place: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        start = self._starts[place]
        return np.asarray(self._tokens[start : start + self._lengths[place]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[place] for place in range(len(self)))
