"""Words and shingles of texts, straight from Arrow buffers.

The words of a text are ``re.findall(r"\\w+", text.lower())`` in Python's Unicode; a shingle is 5 consecutive words
joined by one space, as UTF-8. A text of 1 to 4 words is one shingle, those words joined. A text without words has no
shingle and therefore no signature: it is never a near-duplicate of anything (equal texts share a doc_id anyway).

Letters and their lower case are those of the running Python (``unicodedata.unidata_version``); interpreters of
different Unicode versions can differ on recently added scripts only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError

SHINGLE_WORDS = 5
RANGE_BYTES = 4 << 20  # text that a kernel call takes: long enough to hide the call, short enough to balance threads

Result = TypeVar("Result")


def shingle_hashes(
    texts: pa.Array | pa.ChunkedArray, shingle_words: int = SHINGLE_WORDS, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct 64-bit hashes of every text's shingles, for exact Jaccard similarity.

    ``texts``: string or large_string, N rows; a null counts as a text without words. Returns ``offsets`` int64
    ``[N + 1]`` and ``hashes`` uint64 ``[offsets[N]]``; text i owns ``hashes[offsets[i]:offsets[i + 1]]``, none if it
    has no words. The hash is xxh64 with seed 0. Two different shingles of a pair of texts collide with probability
    under n**2 / 2**65 for n shingles in all (3e-10 for two texts of 50,000 words): the similarity is exact in practice.
    Raises ``UserError`` for another Arrow type or for ``shingle_words`` below 1.
    """
    from winnow.dedup import _kernels

    check_shingle_words(shingle_words)
    lengths, parts = [np.zeros(1, np.int64)], []
    for data, offsets in text_buffers(texts, threads):
        counts = np.zeros(len(offsets) - 1, np.int64)

        def part(
            first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, counts: np.ndarray = counts
        ) -> np.ndarray:
            return _kernels.shingle_hashes(data, offsets, first, last, word_table(), shingle_words, counts)

        parts += over_ranges(part, offsets, threads)
        lengths.append(counts)
    return np.cumsum(np.concatenate(lengths)), np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def shingles(text: str, shingle_words: int = SHINGLE_WORDS) -> list[bytes]:
    """Return the shingles of one text in their order, repeats included, as the kernels cut them."""
    from winnow.dedup import _kernels

    check_shingle_words(shingle_words)
    ((data, offsets),) = text_buffers(pa.array([text], pa.large_string()), 1)
    out, starts = _kernels.scratch(offsets, 0, 1)
    words, _ = _kernels.normalise(data, 0, len(data), word_table(), out, starts)
    raw, width = out.tobytes(), min(words, shingle_words)
    return [raw[starts[s] : starts[s + width] - 1] for s in range(words - width + 1)] if words else []


def check_shingle_words(shingle_words: int) -> None:
    """Raise ``UserError`` unless a shingle has at least one word."""
    if shingle_words < 1:
        raise UserError(f"shingle_words is {shingle_words}; a shingle has at least 1 word (5 is usual)")


def text_buffers(
    texts: pa.Array | pa.ChunkedArray, threads: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield per chunk the bytes uint8 and the offsets int64 ``[n + 1]`` of its texts, nulls as empty texts.

    No copy of the bytes is made, except for a chunk in which a text holds 'İ' or 'Σ': Python itself lowers those texts.
    """
    from winnow.dedup import _kernels

    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        if not (pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type)):
            raise UserError(f"the texts are of type {chunk.type}; expected string or large_string (cast the column)")
        data, offsets = _buffers(chunk)
        special = np.zeros(len(chunk), np.bool_)

        def scan(
            first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, special: np.ndarray = special
        ) -> None:
            _kernels.needs_python_lower(data, offsets, first, last, special)

        over_ranges(scan, offsets, threads)
        if special.any():
            mask = pa.array(special)
            lowered = [text.lower() for text in chunk.filter(mask).to_pylist()]
            data, offsets = _buffers(
                pc.replace_with_mask(chunk.cast(pa.large_string()), mask, pa.array(lowered, pa.large_string()))
            )
        yield data, offsets


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


@lru_cache(maxsize=1)
def word_table() -> np.ndarray:
    """Return int32 ``[0x110000]``: a code point's lower case if that is a word character, else 0.

    'İ' and 'Σ' have no single lower case that holds in every context; :func:`text_buffers` takes them out first.
    """
    every = "".join(map(chr, range(0x110000))).replace("İ", " ").replace("Σ", " ")
    lower = every.lower()
    table = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), dtype=np.int32).copy()
    word = np.zeros(len(table), np.bool_)
    for match in re.finditer(r"\w+", lower):
        word[match.start() : match.end()] = True
    table[~word] = 0
    return table


def _buffers(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes and the int64 offsets of one string array without copying the bytes."""
    if chunk.null_count:
        chunk = chunk.fill_null("")
    _, offsets, data = chunk.buffers()
    if not len(chunk) or offsets is None:
        return np.frombuffer(b"", np.uint8), np.zeros(1, np.int64)
    kind = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    raw = np.frombuffer(offsets, kind)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    return np.frombuffer(data or b"", np.uint8), raw
