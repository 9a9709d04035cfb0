"""Positions of documents in the order of their ids: what the arrays of duplicate detection refer to."""

from __future__ import annotations

import numpy as np

from winnow.errors import UserError

MAX_DOCUMENTS = 2**31 - 1
"""Positions are int32."""
BUCKET_BITS = 22


class Positions:
    """Sorted ids, asked for the positions of others: memory 16 bytes a document and 32 MiB at most.

    ``ids``: uint8 ``[N, 16]`` in any order, without repetitions; ``order`` int64 ``[N]`` are their rows sorted by id,
    so that position p is the document of row ``order[p]``. Raises ``UserError`` for more than ``MAX_DOCUMENTS``.
    """

    def __init__(self, ids: np.ndarray) -> None:
        _require_positions(len(ids))
        high, low = _halves(ids)
        self.order = np.argsort(high)
        high = high[self.order]
        if len(high) > 1 and (high[1:] == high[:-1]).any():
            high, low = _halves(ids)
            self.order = np.lexsort((low, high))
            high = high[self.order]
        self.high, self.low = high, low[self.order]
        bits = min(max(len(high).bit_length(), 1), BUCKET_BITS)
        self.shift = 64 - bits
        bounds = np.arange(1 << bits, dtype=np.uint64) << np.uint64(self.shift)
        self.starts = np.append(np.searchsorted(high, bounds), len(high)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.high)

    @property
    def ids(self) -> np.ndarray:
        """The ids in their order, uint8 ``[N, 16]``."""
        return ids_at(self, np.arange(len(self)))

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions int32 ``[M]`` of ids uint8 ``[M, 16]``, -1 where one is not among the sorted ones."""
        from winnow.dedup import _bucket_kernels

        out = np.empty(len(ids), np.int32)
        _bucket_kernels.locate(self.high, self.low, self.starts, self.shift, *_halves(ids), out)
        return out


class IdTable:
    """A hash table of ids uint8 ``[N, 16]``, distinct, in any order; 24 to 32 bytes an id.

    Raises ``UserError`` for more than ``MAX_DOCUMENTS``.
    """

    def __init__(self, ids: np.ndarray) -> None:
        from winnow.dedup import _bucket_kernels

        _require_positions(len(ids))
        self._halves = _halves(ids)
        self._slots = np.full(1 << (2 * len(ids)).bit_length(), -1, np.int32)
        _bucket_kernels.enter(*self._halves, self._slots)

    def __len__(self) -> int:
        return len(self._halves[0])

    def marks(self) -> np.ndarray:
        """Return fresh marks, bool ``[N]``, for :meth:`mark`."""
        return np.zeros(len(self), np.bool_)

    def mark(self, marks: np.ndarray, ids: np.ndarray) -> None:
        """Set the marks of ids uint8 ``[M, 16]``; those that are not among the ``N`` are passed over."""
        from winnow.dedup import _bucket_kernels

        _bucket_kernels.mark(*self._halves, self._slots, *_halves(ids), marks)

    def among(self, ids: np.ndarray) -> np.ndarray:
        """Return which of ids uint8 ``[M, 16]`` are in the table, bool ``[M]``."""
        from winnow.dedup import _bucket_kernels

        out = np.zeros(len(ids), np.bool_)
        _bucket_kernels.among(*self._halves, self._slots, *_halves(ids), out)
        return out

    def rest(self, marks: np.ndarray) -> np.ndarray:
        """Return the ids without a mark, uint8 ``[R, 16]``, sorted."""
        high, low = (half[~marks] for half in self._halves)
        order = np.lexsort((low, high))
        return _joined(high[order], low[order])


def ids_at(positions: Positions, places: np.ndarray) -> np.ndarray:
    """Return the ids uint8 ``[M, 16]`` at positions integer ``[M]``."""
    return _joined(positions.high[places], positions.low[places])


def _require_positions(count: int) -> None:
    if count > MAX_DOCUMENTS:
        raise UserError(
            f"{count:,} documents are compared at once, more than {MAX_DOCUMENTS:,}; divide the corpus among stores"
        )


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, 16)


def _halves(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ids uint8 ``[N, 16]`` as two native uint64 ``[N]`` that sort as the bytes do."""
    pairs = np.ascontiguousarray(ids, np.uint8).reshape(-1, 16).view(">u8")
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)


def pack(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return pairs of positions integer ``[P]``, left < right, as codes uint64 ``[P]`` that sort by (left, right)."""
    return (left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64)


def unpack(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of :func:`pack`: two int64 ``[P]``."""
    return (codes >> np.uint64(32)).astype(np.int64), (codes & np.uint64(0xFFFFFFFF)).astype(np.int64)
