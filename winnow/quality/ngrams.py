"""Words of texts as 64-bit hashes, and n-grams of them: numpy over whole batches of texts, no loop over words.

A *word* is a run of letters, digits and underscores, or a run of other characters that are no white space (the regular
expression ``\\w+|[^\\w\\s]+``), of the text in lower case. Its hash is a polynomial in its code points modulo 2^64,

    h = mix(sum_k c_k B^k),

and comes from one running sum over all characters: what a word adds to it, divided by B^start, is the same wherever
the word stands. Two different words have one hash with a chance of about 2^-64. Nothing depends on how texts are put
together in batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from winnow.quality.unicode_classes import ALNUM, CODE_POINTS, SPACE, class_table

CHARACTERS = 1 << 17
"""Characters hashed together: their arrays of 8 bytes each stay in the cache."""

BASE = 0x9E3779B97F4A7C15
NEXT = np.uint64(0xD6E8FEB86659FD93)
WHITE = re.compile(r"\s")
GAP, WORD, OTHER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Words:
    """The words of N texts, one after the other: ``hashes`` uint64 ``[W]``, and how many each has, int64 ``[N]``."""

    hashes: np.ndarray
    counts: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """Int64 ``[W]``: the text that a word is from."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes uint64 ``[G]`` of all runs of ``n`` words inside one text, and the text of each, int64."""
        hashes, owner = self.hashes, self.owner
        joined = hashes
        for step in range(1, n):
            joined = mixed(joined[:-1] * NEXT + hashes[step:])
        inside = owner[n - 1 :] == owner[: len(owner) - n + 1] if n > 1 else slice(None)
        return joined[inside], owner[: len(joined)][inside]


def hash_words(texts: Sequence[str]) -> Words:
    """Return the words of texts in lower case, in their order."""
    found, counts = [np.zeros(0, np.uint64)], np.zeros(len(texts), dtype=np.int64)
    for owners, pieces in _blocks(texts):
        hashes, starts = _hash_block("\n".join(pieces))
        edges = np.cumsum([0, *(len(piece) + 1 for piece in pieces)])
        np.add.at(counts, owners, np.diff(np.searchsorted(starts, edges)))
        found.append(hashes)
    return Words(np.concatenate(found), counts)


def buckets(hashes: np.ndarray, count: int) -> np.ndarray:
    """Return the bucket of each hash, int64 below ``count`` (at most 2^32), by its upper half."""
    return ((hashes >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Return uint64 of which every bit depends on every bit of the one given (MurmurHash3's last step)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashes = (hashes ^ hashes >> np.uint64(33)) * np.uint64(factor)
    return hashes ^ hashes >> np.uint64(33)


def _blocks(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield texts in lower case, long ones in pieces cut at white space, about ``CHARACTERS`` at a time."""
    owners: list[int] = []
    pieces: list[str] = []
    filled = 0
    for owner, text in enumerate(texts):
        for piece in _pieces(text):
            owners.append(owner)
            pieces.append(piece.lower())
            filled += len(piece)
            if filled >= CHARACTERS:
                yield owners, pieces
                owners, pieces, filled = [], [], 0
    if pieces:
        yield owners, pieces


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > 2 * CHARACTERS and (white := WHITE.search(text, start + CHARACTERS)):
        yield text[start : white.start()]
        start = white.start()
    yield text[start:] if start else text


def _hash_block(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash uint64 ``[W]`` and the first character int64 ``[W]`` of every word."""
    codes: np.ndarray
    if text.isascii():
        codes = np.frombuffer(text.encode(), np.uint8)
        kinds = _kinds()[codes]
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = _kinds()[np.minimum(codes, CODE_POINTS - 1)]
    edges = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
    edges = np.concatenate([[0], edges, [len(kinds)]]) if len(kinds) else np.zeros(1, np.int64)
    inside = np.flatnonzero(kinds[edges[:-1]] != GAP)
    starts, ends = edges[inside], edges[inside + 1]
    powers, inverses = _powers(1 << max(18, len(codes).bit_length()))
    running = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.multiply(np.add(codes, np.uint64(1), dtype=np.uint64), powers[: len(codes)], out=running[1:])
    np.cumsum(running, out=running)
    return mixed((running[ends] - running[starts]) * inverses[starts]), starts


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    classes = class_table()
    kinds = np.where(classes & SPACE, GAP, np.where(classes & ALNUM, WORD, OTHER)).astype(np.uint8)
    kinds[ord("_")] = WORD
    return kinds


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return B^k and B^-k modulo 2^64 for k below ``count``, uint64."""
    powers = [np.empty(count, dtype=np.uint64) for _ in range(2)]
    for factor, out in zip((BASE, pow(BASE, -1, 1 << 64)), powers, strict=True):
        out[:] = np.uint64(factor)
        out[0] = 1
        np.cumprod(out, out=out)
    return powers[0], powers[1]
