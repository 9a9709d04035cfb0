"""n-gram overlap of documents with evaluation or reference items.

Words are ``re.findall(r"\\w+", text.lower())``, so case, punctuation and line breaks hide nothing. The items' n-grams
are indexed by 64-bit hashes; where one occurs in a document, the match is followed word by word while the item agrees.

Sources: Brown et al. 2020 (GPT-3), appendix C: n-grams of 8 to 13 words; Chowdhery et al. 2022 (PaLM): 8-grams.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError

SHORTEST_ITEM = 4
CONTAMINATED_WORDS = 13

SCHEMA = pa.schema(
    {
        "position": pa.int64(),
        "item": pa.int64(),
        "matched": pa.int64(),
        "longest_match": pa.int64(),
        "start": pa.int64(),
        "end": pa.int64(),
        "coverage": pa.float64(),
    }
)


@dataclass(frozen=True, eq=False)
class NgramIndex:
    """The n-grams of a list of items, ready to be searched (:func:`build_index`).

    ``item_words`` uint64 ``[W]`` are the items' words as hashes, ``bounds`` int64 ``[items + 1]`` cuts them into items
    and ``items`` int64 ``[W]`` names each word's item. ``keys`` uint64 ``[K]`` are the distinct n-grams, the words at
    which n-gram k starts are ``firsts[groups[k]:groups[k + 1]]``; ``table`` finds k by its key. ``lengths`` holds n and
    the sizes of the shorter items.
    """

    n: int
    lengths: np.ndarray
    table: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    firsts: np.ndarray
    items: np.ndarray
    item_words: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def ignored(self) -> int:
        """Items too short to be matched: fewer than 4 words (and fewer than n)."""
        return int((np.diff(self.bounds) < min(self.n, SHORTEST_ITEM)).sum())


def build_index(items: Sequence[str], n: int = 8) -> NgramIndex:
    """Return the index of the items' n-grams of ``n`` words.

    An item of 4 to n - 1 words counts as one n-gram of its own size; a shorter one is ignored. Raises ``UserError`` for
    n < 1.
    """
    from winnow.contamination import _kernels as kernels

    if n < 1:
        raise UserError(f"n = {n} words; an n-gram has at least one")
    offsets, data = _buffers(pa.array(list(items), pa.large_string()))
    words, bounds = kernels.split_all(data, offsets, _lower_table())
    keys, firsts = kernels.item_ngrams(words, bounds, n, SHORTEST_ITEM)
    order = np.argsort(keys, kind="stable")
    distinct, starts = np.unique(keys[order], return_index=True)
    sizes = np.diff(bounds)
    return NgramIndex(
        n=n,
        lengths=np.unique(np.minimum(sizes[sizes >= min(n, SHORTEST_ITEM)], n)),
        table=kernels.fill_table(distinct, 1 << int(2 * len(distinct)).bit_length()),
        keys=distinct,
        groups=np.append(starts, len(order)).astype(np.int64),
        firsts=firsts[order],
        items=np.repeat(np.arange(len(sizes)), sizes),
        item_words=words,
        bounds=bounds,
    )


def find_overlap(texts: pa.Array | pa.ChunkedArray, index: NgramIndex, threads: int = 2) -> pa.Table:
    """Return one row for each of N texts that shares an n-gram with the index, by ``position`` in ``texts``.

    ``matched``: places in the document at which an indexed n-gram starts. ``longest_match``: words in the longest run
    that the document shares with one item (ties: the earlier in the document, then the smaller item); ``item`` is that
    item's position in the index, ``start`` and ``end`` the run's characters: ``text[start:end]``. ``coverage``: share
    of the document's words inside any matched n-gram, in (0, 1]. All int64 but ``coverage`` (float64). A row depends on
    its own text and the index alone. Of an n-gram that occurs in more than 256 places of the items only the first 256
    are followed, so a match made of such n-grams alone may be longer than stated. Raises ``UserError`` for a null or a
    column that is no text.
    """
    from winnow.contamination import _kernels as kernels

    offsets, data = _buffers(texts)
    found = np.zeros((len(offsets) - 1, 7), dtype=np.int64)
    lower = _lower_table()

    def work(bounds: tuple[int, int]) -> None:
        kernels.search(
            data, offsets, *bounds, lower, index.lengths, index.table, index.keys, index.groups, index.firsts,
            index.items, index.item_words, index.bounds, found,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, _pieces(offsets)))
    position = np.flatnonzero(found[:, 1])
    words, matched, covered, longest, item, start, end = found[position].T
    columns = [position, item, matched, longest, start, end, covered / np.maximum(words, 1)]
    return pa.table([pa.array(column) for column in columns], schema=SCHEMA)


def contaminated(overlap: pa.Table, index: NgramIndex, min_words: int = CONTAMINATED_WORDS) -> np.ndarray:
    """Return bool ``[rows]`` for rows of :func:`find_overlap`: does each share ``min_words`` words in a row?

    The default 13 is GPT-3's largest n (Brown et al. 2020, appendix C). An item of fewer words, but at least the
    index's n, counts when it stands in the document whole; a shorter one is too common to tell.
    """
    words = np.diff(index.bounds)[overlap["item"].to_numpy()]
    return overlap["longest_match"].to_numpy() >= np.minimum(min_words, np.maximum(words, index.n))


@lru_cache(maxsize=1)
def _lower_table() -> np.ndarray:
    """Lower case of each code point as int32, -1 where that is no word character.

    Planes 4 to 16 hold no word character. The lower case of U+0130 is "i" and a combining dot; the kernel ends the word
    there.
    """
    lowered = [chr(code).lower()[0] for code in range(0x40000)]
    return np.array([ord(small) if small.isalnum() or small == "_" else -1 for small in lowered], dtype=np.int32)


def _settle_sigmas(text: str) -> str:
    """Lower-case the capital sigmas as their neighbours demand (final or not), and nothing else."""
    lowered = text.replace("\u0130", "I").lower()  # of the same length
    return "".join(small if large == "\u03a3" else large for large, small in zip(text, lowered, strict=True))


def _buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 ``[N + 1]`` and UTF-8 bytes of the texts, capital sigmas settled."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise UserError(f"texts are {array.type}; expected string or large_string")
    if array.null_count:
        raise UserError(f"{array.null_count} of {len(array)} texts are null; quarantine them or pass empty strings")
    array = array.cast(pa.large_string())
    sigmas = pc.match_substring(array, "\u03a3")
    if pc.any(sigmas).as_py():
        settled = pa.array([_settle_sigmas(text) for text in array.filter(sigmas).to_pylist()], pa.large_string())
        array = pc.replace_with_mask(array, sigmas, settled)
    if not len(array):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return starts, np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)


def _pieces(offsets: np.ndarray, size: int = 4 << 20) -> list[tuple[int, int]]:
    """Cut the rows into stretches of about ``size`` bytes."""
    marks = np.arange(offsets[0], offsets[-1] + 1, size)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(offsets[:-1], marks), [len(offsets) - 1]]))
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(cuts)]
