"""n-gram overlap of documents with evaluation or reference items.

Words are ``re.findall(r"\\w+", text.lower())``, so case, punctuation and line breaks hide nothing. The items' n-grams
are indexed by 64-bit hashes; where one occurs in a document, the match is followed word by word while the item agrees.

Sources: Brown et al. 2020 (GPT-3), appendix C: n-grams of 8 to 13 words; Chowdhery et al. 2022 (PaLM): 8-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.contamination.words import PIECE_BYTES, Words, lower_table, pieces, text_buffers
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
    cut: str
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


def build_index(items: Sequence[str], n: int = 8, cut: str = "longest_run") -> NgramIndex:
    """Return the index of the items' n-grams of ``n`` words.

    ``cut`` says what a word is (:mod:`winnow.contamination.words`). An item of 4 to n - 1 words counts as one n-gram of
    its own size; a shorter one is ignored. Raises ``UserError`` for n < 1.
    """
    from winnow.contamination import _kernels as kernels

    if n < 1:
        raise UserError(f"n = {n} words; an n-gram has at least one")
    offsets, data = text_buffers(pa.array(list(items), pa.large_string()))
    words, bounds = kernels.split_all(data, offsets, lower_table(cut))
    keys, firsts = kernels.item_ngrams(words, bounds, n, SHORTEST_ITEM)
    order = np.argsort(keys, kind="stable")
    distinct, starts = np.unique(keys[order], return_index=True)
    sizes = np.diff(bounds)
    return NgramIndex(
        n=n,
        cut=cut,
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

    offsets, data = text_buffers(texts)
    found = np.zeros((len(offsets) - 1, 7), dtype=np.int64)
    lower = lower_table(index.cut)

    def work(bounds: tuple[int, int]) -> None:
        kernels.search(
            data, offsets, *bounds, lower, index.lengths, index.table, index.keys, index.groups, index.firsts,
            index.items, index.item_words, index.bounds, found,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pieces(offsets, PIECE_BYTES)))
    position = np.flatnonzero(found[:, 1])
    words, matched, covered, longest, item, start, end = found[position].T
    columns = [position, item, matched, longest, start, end, covered / np.maximum(words, 1)]
    return pa.table([pa.array(column) for column in columns], schema=SCHEMA)


def find_runs(words: Words, index: NgramIndex, threads: int = 2) -> pa.Table:
    """Return the longest run of at least n words that each text shares with each item.

    ``position``, ``item``, ``longest_match``, ``start``, ``end``, all int64, by position and item: as
    :func:`find_overlap`, which gives the longest of all items only. ``words`` are cut as the index was.
    """
    from winnow.contamination import _kernels as kernels

    def work(rows: tuple[int, int]) -> np.ndarray:
        return kernels.runs(
            words.hashes, words.starts, words.ends, words.bounds, *rows, index.n, index.table, index.keys,
            index.groups, index.firsts, index.items, index.item_words, index.bounds,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        found = np.concatenate([np.zeros((0, 5), np.int64), *pool.map(work, pieces(words.bounds, 1 << 19))])
    return pa.table(list(found.T), names=["position", "item", "longest_match", "start", "end"])


def find_collisions(words: Words, index: NgramIndex, threads: int = 2) -> pa.Table:
    """Return the distinct n-grams of the index that each text holds: ``position`` int64, ``ngram`` uint64 (its hash).

    Only n-grams of the index's n words: shorter items are left out. ``words`` are cut as the index was.
    """
    from winnow.contamination import _gapped as kernels

    bits = max(6, int(16 * len(index.keys)).bit_length())
    bitmap = kernels.fill_filter(index.keys, bits)

    def work(rows: tuple[int, int]) -> np.ndarray:
        start, stop = rows
        return kernels.collisions(
            words.hashes, words.bounds, start, stop, index.n, bits, bitmap, index.table, index.keys
        )

    with ThreadPoolExecutor(threads) as pool:
        found = np.concatenate([np.zeros((0, 2), np.int64), *pool.map(work, pieces(words.bounds, 1 << 19))])
    return pa.table({"position": found[:, 0], "ngram": index.keys[found[:, 1]]})


def contaminated(overlap: pa.Table, index: NgramIndex, min_words: int = CONTAMINATED_WORDS) -> np.ndarray:
    """Return bool ``[rows]`` for rows of :func:`find_overlap`: does each share ``min_words`` words in a row?

    The default 13 is GPT-3's largest n (Brown et al. 2020, appendix C). An item of fewer words, but at least the
    index's n, counts when it stands in the document whole; a shorter one is too common to tell.
    """
    words = np.diff(index.bounds)[overlap["item"].to_numpy()]
    return overlap["longest_match"].to_numpy() >= np.minimum(min_words, np.maximum(words, index.n))
