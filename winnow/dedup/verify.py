"""Exact Jaccard similarity of candidate pairs: every text is read and hashed once, in bounded memory.

The documents of all candidate pairs are read in one sequential pass, whatever order their reader has. Their shingle
hashes stay in memory up to a budget, and beyond it go to one scratch file. Pairs are then compared block by block:
documents are ordered by the component of candidate pairs that they are in, so that nearly every pair is inside a block.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import unpack
from winnow.dedup.scratch_file import ScratchFile
from winnow.dedup.shingles import DEFAULT_SHINGLING, Shingling, over_ranges, shingle_hashes, usable_cores

log = logging.getLogger(__name__)

HELD_BYTES = 384 << 20

Reader = Callable[[np.ndarray], Iterable[tuple[np.ndarray, "pa.Array | pa.ChunkedArray"]]]
"""``read(positions)`` gives (positions, texts) of sorted distinct positions int32, in any order and batches."""


@dataclass(frozen=True)
class Verified:
    """Pairs that reach the threshold: ``codes`` uint64 ``[P]`` ascending, ``similarity`` float64 ``[P]``, exact.

    ``candidates`` is how many distinct pairs were compared.
    """

    codes: np.ndarray
    similarity: np.ndarray
    candidates: int


def jaccard(
    left: np.ndarray, right: np.ndarray, offsets: np.ndarray, hashes: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """Return the Jaccard similarity of pairs of shingle sets as float64 ``[P]``.

    ``left`` and ``right``: integer ``[P]`` rows of the sets; ``offsets`` int64 ``[N + 1]`` and ``hashes`` uint64 as
    from ``winnow.dedup.shingles.shingle_hashes``. A pair of empty sets has similarity 0.
    """
    sets = _Block(offsets[:-1], offsets[1:], hashes)
    return _compare(np.asarray(left), np.asarray(right), sets, sets, 0.0, threads)


def verify_pairs(
    pairs: PairSpool,
    count: int,
    read: Reader,
    threshold: float,
    shingling: Shingling = DEFAULT_SHINGLING,
    scratch: Path | None = None,
    held_bytes: int = HELD_BYTES,
    threads: int | None = None,
) -> Verified:
    """Return the pairs of ``count`` documents whose exact Jaccard similarity reaches ``threshold``.

    ``scratch`` is the folder for what ``held_bytes`` of shingle hashes do not hold (None: all stays in memory).
    Memory: ``held_bytes``, a chunk of pairs, and 16 bytes a document and verified pair.
    """
    from winnow.dedup import _graph_kernels

    parent, wanted, compared = np.arange(count, dtype=np.int32), np.zeros(count, np.bool_), 0
    for codes in pairs.chunks():
        left, right = unpack(codes)
        wanted[left] = wanted[right] = True
        _graph_kernels.unite(parent, left, right)
        compared += len(codes)
    _graph_kernels.flatten(parent)
    documents = np.flatnonzero(wanted)
    rank = np.full(count, -1, np.int32)
    rank[documents[np.argsort(parent[documents], kind="stable")]] = np.arange(len(documents), dtype=np.int32)
    del parent, wanted
    began = time.monotonic()
    with _ShingleSets(len(documents), scratch, held_bytes) as sets:
        if len(documents):
            for places, offsets, hashes in _shingled(read(documents.astype(np.int32)), shingling, threads):
                sets.add(rank[places], offsets, hashes)
        sets.end()
        log.info("%d documents shingled in %.1f s", len(documents), time.monotonic() - began)
        kept = [_verify(codes, rank, sets, threshold, threads) for codes in pairs.chunks()]
    log.info("%d candidate pairs verified in %.1f s", compared, time.monotonic() - began)
    return Verified(
        np.concatenate([np.zeros(0, np.uint64), *(codes for codes, _ in kept)]),
        np.concatenate([np.zeros(0, np.float64), *(similarity for _, similarity in kept)]),
        compared,
    )


def _shingled(
    batches: Iterable[tuple[np.ndarray, pa.Array | pa.ChunkedArray]], shingling: Shingling, threads: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield places, offsets and hashes of batches in order; a batch is read while others are hashed, one a core."""
    cores = threads or usable_cores()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(cores) as pool:
        iterator = iter(batches)
        reading = reader.submit(next, iterator, None)
        hashing: deque[tuple[np.ndarray, Future[tuple[np.ndarray, np.ndarray]]]] = deque()
        while (batch := reading.result()) is not None:
            reading = reader.submit(next, iterator, None)
            hashing.append((batch[0], pool.submit(shingle_hashes, batch[1], shingling, 1)))
            if len(hashing) > cores:
                places, hashed = hashing.popleft()
                yield places, *hashed.result()
        for places, hashed in hashing:
            yield places, *hashed.result()


@dataclass(frozen=True)
class _Block:
    """Shingle sets: set i is ``hashes[starts[i]:ends[i]]``."""

    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray


def _compare(
    left: np.ndarray, right: np.ndarray, one: _Block, other: _Block, threshold: float, threads: int | None
) -> np.ndarray:
    """Return the similarities of pairs, the left set of each in ``one`` and the right in ``other``."""
    from winnow.dedup import _graph_kernels

    left, right = left.astype(np.int64), right.astype(np.int64)
    out = np.empty(len(left), np.float64)
    sizes_one, sizes_other = one.ends - one.starts, other.ends - other.starts
    weights = np.concatenate([[0], np.cumsum(4 * (sizes_one[left] + sizes_other[right] + 1))])
    sets = tuple((block.starts, block.ends, block.hashes) for block in (one, other))

    def part(first: int, last: int) -> None:
        _graph_kernels.jaccard(left, right, *sets, threshold, first, last, out)

    over_ranges(part, weights, threads)
    return out


def _verify(
    codes: np.ndarray, rank: np.ndarray, sets: _ShingleSets, threshold: float, threads: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return those of the pairs that reach the threshold, in their order."""
    left, right = (rank[side] for side in unpack(codes))
    cuts = sets.cuts
    similarity = np.empty(len(codes), np.float64)
    if len(cuts) == 2:
        every = sets.load(0, cuts[1])
        similarity = _compare(left, right, every, every, threshold, threads)
    else:
        block_left = np.searchsorted(cuts, left, "right") - 1
        block_right = np.searchsorted(cuts, right, "right") - 1
        swapped = block_left > block_right
        left, right = np.where(swapped, right, left), np.where(swapped, left, right)
        low, high = np.minimum(block_left, block_right), np.maximum(block_left, block_right)
        order = np.lexsort((high, low))
        edges = np.flatnonzero(np.diff(low[order]) | np.diff(high[order])) + 1
        for rows in np.split(order, edges):
            one, other = int(low[rows[0]]), int(high[rows[0]])
            block = sets.load(cuts[one], cuts[one + 1])
            second = block if other == one else sets.load(cuts[other], cuts[other + 1])
            similarity[rows] = _compare(
                left[rows] - cuts[one], right[rows] - cuts[other], block, second, threshold, threads
            )
    found = similarity >= threshold
    return codes[found], similarity[found]


class _ShingleSets:
    """Shingle sets of documents by rank, taken once in batches and given back in ranges of ranks."""

    def __init__(self, count: int, scratch: Path | None, held_bytes: int) -> None:
        self.scratch, self.held_bytes = scratch, held_bytes
        self.cuts = np.zeros(0, np.int64)
        self._sizes = np.zeros(count, np.int64)
        self._hashes, self._filled, self._seen = np.empty(0, np.uint64), 0, 0
        self._held: list[tuple[np.ndarray, np.ndarray]] = []  # ranks, offsets into the hashes, batch by batch
        self._written: list[tuple[np.ndarray, np.ndarray, int]] = []  # ascending ranks, offsets, place in the file
        self._file: ScratchFile | None = None
        self._loaded: tuple[int, int, _Block] | None = None

    def __enter__(self) -> _ShingleSets:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()
        self._loaded = None
        if self._file is not None:
            self._file.close()

    def add(self, ranks: np.ndarray, offsets: np.ndarray, hashes: np.ndarray) -> None:
        """Take the sets of a batch of documents: set i is ``hashes[offsets[i]:offsets[i + 1]]``."""
        self._sizes[ranks] = np.diff(offsets)
        first, last = self._filled, self._filled + len(hashes)
        self._seen += len(ranks)
        if last > len(self._hashes):
            # What all documents will take if they are like those so far: memory that is not used is not there.
            expected = last * len(self._sizes) // max(self._seen, 1) * 5 // 4
            grown = np.empty(
                max(last, expected if self.scratch is None else min(expected, self.held_bytes // 8)), np.uint64
            )
            grown[:first] = self._hashes[:first]
            self._hashes = grown
        self._hashes[first:last] = hashes
        self._held.append((ranks, offsets + first))
        self._filled = last
        if self.scratch is not None and 8 * last > self.held_bytes:
            self._write_out(self.scratch)

    def end(self) -> None:
        """Take no more: cut the ranks into blocks of at most half the budget each, or hold all as one.

        ``cuts`` int64 are then the first ranks of the blocks, and the end.
        """
        count = len(self._sizes)
        if self._file is not None and self.scratch is not None:
            self._write_out(self.scratch)
            self._release()
            load = np.cumsum(8 * self._sizes) // max(1, self.held_bytes // 2)
            self.cuts = np.concatenate([[0], np.flatnonzero(np.diff(load)) + 1, [count]])
            return
        starts = np.zeros(count, np.int64)
        for ranks, offsets in self._held:
            starts[ranks] = offsets[:-1]
        self.cuts = np.array([0, count])
        self._loaded = 0, count, _Block(starts, starts + self._sizes, self._hashes[: self._filled])
        self._release()

    def load(self, first: int, last: int) -> _Block:
        """Return the sets of ranks ``first <= rank < last``, the bounds of a block; the last one asked for is held."""
        if self._loaded is not None and self._loaded[:2] == (first, last):
            return self._loaded[2]
        self._loaded = None
        sizes = self._sizes[first:last]
        hashes = np.empty(int(sizes.sum()), np.uint64)
        starts, filled = np.zeros(last - first, np.int64), 0
        for ranks, offsets, place in self._written:
            rows = slice(*np.searchsorted(ranks, [first, last]))
            begin, end = int(offsets[rows.start]), int(offsets[rows.stop])
            if self._file is not None:
                self._file.fill(place + 8 * begin, hashes[filled : filled + end - begin])
            starts[ranks[rows] - first] = filled + offsets[rows.start : rows.stop] - begin
            filled += end - begin
        block = _Block(starts, starts + sizes, hashes)
        self._loaded = first, last, block
        return block

    def _write_out(self, scratch: Path) -> None:
        """Write what is held, every batch in the order of ranks, so that a block is one piece of each."""
        from winnow.dedup import _graph_kernels

        if self._file is None:
            self._file = ScratchFile(scratch, "shingles-")
        for ranks, offsets in self._held:
            order = np.argsort(ranks)
            starts, ends = offsets[:-1][order], offsets[1:][order]
            places = np.concatenate([[0], np.cumsum(ends - starts)])
            sorted_hashes = np.empty(places[-1], np.uint64)
            _graph_kernels.gather(self._hashes, starts, ends, sorted_hashes)
            self._written.append((ranks[order], places, self._file.append(sorted_hashes)))
        self._held.clear()
        self._filled = 0

    def _release(self) -> None:
        self._held.clear()
        self._hashes, self._filled = np.empty(0, np.uint64), 0
