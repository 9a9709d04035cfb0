"""Shingles of texts, straight from Arrow buffers to sets of hashes.

A text is normalised into words, words are cut into units, and a shingle is ``size`` consecutive units (``winnow.dedup
.normalizations``). A text of fewer units is one shingle of all it has. A text without units has no shingle: it is never
a near-duplicate of anything (equal texts share a doc_id anyway).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from winnow.dedup.normalizations import rules, units, words
from winnow.errors import UserError

RANGE_BYTES = 4 << 20  # text that a kernel call takes: long enough to hide the call, short enough to balance threads

Result = TypeVar("Result")


@dataclass(frozen=True)
class Shingling:
    """What a shingle is: ``size`` consecutive units of a text normalised as ``normalization`` names.

    ``unit``: ``words``, ``characters`` (code points of the words joined by one space) or ``tokens`` (runs of letters,
    runs of numbers, single other characters). Raises ``UserError`` for unknown names or a size below 1.
    """

    normalization: str = "datasketch-words"
    unit: str = "words"
    size: int = 5

    def __post_init__(self) -> None:
        units("", self.normalization, self.unit)
        if self.size < 1:
            raise UserError(f"the shingle size is {self.size}; a shingle has at least 1 unit (5 words are usual)")

    @property
    def name(self) -> str:
        """Everything that two comparable sets of shingles share, with the version of its definition."""
        return f"{self.normalization}/{self.unit}{self.size}/1"


DEFAULT_SHINGLING = Shingling()


def shingle_hashes(
    texts: pa.Array | pa.ChunkedArray, shingling: Shingling = DEFAULT_SHINGLING, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct 64-bit hashes of every text's shingles, for exact Jaccard similarity.

    ``texts``: string or large_string, N rows; a null counts as an empty text. Returns ``offsets`` int64 ``[N + 1]`` and
    ``hashes`` uint64 ``[offsets[N]]``; text i owns ``hashes[offsets[i]:offsets[i + 1]]``, none if it has no units. The
    hash is ``winnow.dedup.one_text.rolled_hashes``. Two different shingles of a pair of texts collide with probability
    about n**2 / 2**65 for n shingles in all (3e-10 for two texts of 50,000 words): the similarity is exact in practice.
    Raises ``UserError`` for another Arrow type.
    """
    from winnow.dedup import _shingle_kernels

    tables = rules(shingling.normalization, shingling.unit)
    lengths, parts = [np.zeros(1, np.int64)], []
    for data, offsets, ready in normalising_buffers(texts, shingling, threads):
        counts = np.zeros(len(offsets) - 1, np.int64)

        def part(
            first: int,
            last: int,
            data: np.ndarray = data,
            offsets: np.ndarray = offsets,
            ready: np.ndarray = ready,
            counts: np.ndarray = counts,
        ) -> np.ndarray:
            return _shingle_kernels.shingle_hashes(
                data, offsets, first, last, ready, tables.compiled, shingling.size, counts
            )

        parts += over_ranges(part, offsets, threads)
        lengths.append(counts)
    hashes = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint64), *parts])
    return np.cumsum(np.concatenate(lengths)), hashes


def normalising_buffers(
    texts: pa.Array | pa.ChunkedArray, shingling: Shingling, threads: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield per chunk bytes uint8, offsets int64 ``[n + 1]`` and which texts are normalised already, bool ``[n]``.

    Normalised are the texts that Python has to do, because a character's result depends on its neighbours; the bytes of
    a chunk without such texts are not copied.
    """
    from winnow.dedup import _text_kernels

    tables = rules(shingling.normalization, shingling.unit)
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        data, offsets = text_buffers(chunk)
        special = np.zeros(len(offsets) - 1, np.bool_)

        def scan(
            first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, special: np.ndarray = special
        ) -> None:
            _text_kernels.find_special(data, offsets, first, last, tables.flags, tables.marks, special)

        over_ranges(scan, offsets, threads)
        if special.any():
            import pyarrow.compute as pc  # slow to import, and seldom needed

            mask = pa.array(special)
            plain = [" ".join(words(text, shingling.normalization)) for text in chunk.filter(mask).to_pylist()]
            large = chunk.cast(pa.large_string())
            data, offsets = text_buffers(pc.replace_with_mask(large, mask, pa.array(plain, pa.large_string())))
        yield data, offsets, special


def text_buffers(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes uint8 and the offsets int64 ``[N + 1]`` of a string array, nulls as empty texts, without a copy.

    Raises ``UserError`` for another Arrow type.
    """
    if not (pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type)):
        raise UserError(f"the texts are of type {chunk.type}; expected string or large_string (cast the column)")
    if chunk.null_count:
        chunk = chunk.fill_null("")
    _, offsets, data = chunk.buffers()
    if not len(chunk) or offsets is None:
        return np.frombuffer(b"", np.uint8), np.zeros(1, np.int64)
    kind = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    raw = np.frombuffer(offsets, kind)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    return np.frombuffer(data or b"", np.uint8), raw


def over_ranges(kernel: Callable[[int, int], Result], offsets: np.ndarray, threads: int | None = None) -> list[Result]:
    """Call ``kernel(first, last)`` for ranges of rows of about equal weight, on threads; results in the rows' order.

    ``offsets`` int64 ``[N + 1]`` are the running weights. ``threads`` defaults to the cores this process may use.
    """
    threads = threads or usable_cores()
    rows, weight = len(offsets) - 1, int(offsets[-1] - offsets[0])
    marks = np.arange(RANGE_BYTES, weight, RANGE_BYTES) + offsets[0]
    bounds = np.unique(np.concatenate([[0], np.searchsorted(offsets, marks), [rows]]))
    pairs = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
    if threads == 1 or len(pairs) == 1:
        return [kernel(first, last) for first, last in pairs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda pair: kernel(*pair), pairs))


def usable_cores() -> int:
    """Return the cores this process may use, which in a container or a batch job are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
