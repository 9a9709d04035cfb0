"""Exact Jaccard similarity of candidate pairs, in batches that bound the memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from winnow.dedup.shingles import SHINGLE_WORDS, over_ranges, shingle_hashes

log = logging.getLogger(__name__)

BATCH_BYTES = 256 << 20


def jaccard(
    left: np.ndarray, right: np.ndarray, offsets: np.ndarray, hashes: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """Return the Jaccard similarity of pairs of shingle sets as float64 ``[P]``.

    ``left`` and ``right``: integer ``[P]`` rows of the sets; ``offsets`` int64 ``[N + 1]`` and ``hashes`` uint64 as
    from ``winnow.dedup.shingles.shingle_hashes``. A pair of empty sets has similarity 0.
    """
    from winnow.dedup import _kernels

    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    out = np.empty(len(left), np.float64)
    sizes = np.diff(offsets)
    weights = np.concatenate([[0], np.cumsum(sizes[left] + sizes[right] + 1)])
    over_ranges(lambda a, b: _kernels.jaccard(left, right, offsets, hashes, a, b, out), weights, threads)
    return out


def pair_batches(left: np.ndarray, right: np.ndarray, sizes: np.ndarray, limit: int) -> Iterator[slice]:
    """Yield the slices that cut a list of pairs into batches whose distinct documents have at most ``limit`` bytes.

    ``left`` and ``right``: integer ``[P]`` positions into ``sizes`` int64 ``[N]`` (bytes). A pair above the limit is a
    batch by itself. Sorted pairs share documents with their neighbours, so they need the fewest batches.
    """
    from winnow.dedup import _graph_kernels

    bounds = _graph_kernels.batch_bounds(
        np.asarray(left, np.int64), np.asarray(right, np.int64), np.asarray(sizes, np.int64), int(limit)
    ).tolist()
    for first, last in pairwise(bounds):
        yield slice(first, last)


def verify_pairs(
    left: np.ndarray,
    right: np.ndarray,
    sizes: np.ndarray,
    read_texts: Callable[[np.ndarray], pa.Array | pa.ChunkedArray],
    shingle_words: int = SHINGLE_WORDS,
    batch_bytes: int = BATCH_BYTES,
    threads: int | None = None,
) -> np.ndarray:
    """Return the exact Jaccard similarity float64 ``[P]`` of candidate pairs, reading each batch's texts once.

    ``left`` and ``right``: integer ``[P]`` positions of documents, best sorted; ``sizes`` int64 ``[N]`` their bytes.
    ``read_texts(positions)`` returns the texts (string or large_string) of sorted distinct positions int64, in order.
    Memory: the texts and hashes of a batch, about ``3 * batch_bytes``.
    """
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    out = np.empty(len(left), np.float64)
    began = time.monotonic()
    for batch in pair_batches(left, right, sizes, batch_bytes):
        documents, local = np.unique(np.concatenate([left[batch], right[batch]]), return_inverse=True)
        offsets, hashes = shingle_hashes(read_texts(documents), shingle_words, threads)
        half = batch.stop - batch.start
        out[batch] = jaccard(local[:half], local[half:], offsets, hashes, threads)
        rate = batch.stop / max(time.monotonic() - began, 1e-9)
        log.info("verified %d of %d candidate pairs, %.0f pairs/s", batch.stop, len(left), rate)
    return out
