"""What the words of an evaluation item weigh: boilerplate nothing, a quotation little, what few items say most.

The formulas are those of :mod:`winnow.contamination.gapped`. Everything is counted in the set itself, so a document's
score depends on no other document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from winnow.contamination.words import Words

N = 4
COMMON_SEGMENTS, COMMON_SHARE = 5, 0.01
FOLLOWED = 256
"""Segments that are looked at for one n-gram at most: what more of them hold is boilerplate in any set."""
TELLING_LETTERS, TELLING_WORDS = 3, 2
_QUOTATION = re.compile(
    r"“[^”]*”|„[^“”]*[“”]|«[^»]*»|``.*?''|\"[^\"]*\"|「[^」]*」|‘[^\n]*?’(?!\w)|(?<![\w'`])'(?=\w)[^\n]*?'(?![\w'])",
    re.DOTALL,
)
_WORD = re.compile(r"\w+")
_TELLS = re.compile(r"\d|[^\W\d_]{3}|(?=[\u0e00-\U0003ffff])[^\W\d_]")


def telling_words(split: Words, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Mask of the segments' words with at least three letters, or of a script without spaces."""
    told: list[bool] = []
    for row, text in zip(rows, texts, strict=True):
        first, last = split.bounds[row], split.bounds[row + 1]
        for start, end in zip(split.starts[first:last].tolist(), split.ends[first:last].tolist(), strict=True):
            word = text[start:end]
            letters = sum(map(str.isalpha, word))
            told.append(letters >= TELLING_LETTERS or (letters == len(word) == 1 and word > "\u0dff"))
    return np.array(told, bool)


def ngram_weights(
    words: np.ndarray, bounds: np.ndarray, parts: np.ndarray, telling: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return key uint64 ``[W]`` and weight float64 ``[W]`` of the n-gram from each word on.

    S segments: ``bounds`` int64 ``[S + 1]`` cuts the words, ``parts`` int64 ``[S]`` are their kinds, ``telling`` bool
    ``[W]`` comes from :func:`telling_words`. Boilerplate weighs 0, and so do the last words of a segment.
    """
    from winnow.contamination import _gapped as kernels

    keys = kernels.ngram_keys(words, bounds, N)
    sizes = np.diff(bounds)
    segment_of = np.repeat(np.arange(len(sizes)), sizes)
    whole = np.arange(len(words)) + N <= bounds[1:][segment_of] if len(words) else np.zeros(0, bool)
    idf = np.zeros(len(words))
    for part in np.unique(parts):
        places = np.flatnonzero(whole & (parts[segment_of] == part))
        if not len(places):
            continue
        segments = int((parts == part).sum())
        order = places[np.lexsort((places, segment_of[places], keys[places]))]
        new_key = np.append(True, keys[order][1:] != keys[order][:-1])
        first = new_key | np.append(True, segment_of[order][1:] != segment_of[order][:-1])
        group = np.cumsum(new_key) - 1
        df = np.bincount(group[first])[group]
        value = np.log((segments + 1) / df) / np.log(segments + 1)
        value[~first | (df > max(COMMON_SEGMENTS, min(COMMON_SHARE * segments, FOLLOWED)))] = 0
        idf[order] = value
    windows = np.lib.stride_tricks.sliding_window_view
    if len(words) >= N:
        own, tells = windows(words, N), windows(telling, N)
        fresh = tells.copy()
        for later in range(1, N):
            for earlier in range(later):
                fresh[:, later] &= ~(tells[:, earlier] & (own[:, later] == own[:, earlier]))
        idf[: len(own)][fresh.sum(axis=1) < TELLING_WORDS] = 0
    return keys, idf


def word_weights(idf: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Mean weight of the n-grams that hold each word."""
    weight = np.zeros(len(idf))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        grams = last - first - N + 1
        if grams < 1:
            continue
        for shift in range(N):
            weight[first + shift : first + shift + grams] += idf[first : first + grams]
        place = np.arange(last - first)
        weight[first:last] /= np.minimum(place, grams - 1) - np.maximum(place - N + 1, 0) + 1
    return np.where(weight > 0, weight, 0.0)


def discount_quotations(text: str, starts: np.ndarray, weight: np.ndarray) -> None:
    """Scale, in place, the weights of quotations of at least n words to a third of what stands outside them."""
    if text.count('"') % 2:
        text = text.replace('"', " ")
    quoted = np.zeros(len(starts), bool)
    for found in _QUOTATION.finditer(text):
        own = (starts >= found.start()) & (starts < found.end())
        quoted |= own if own.sum() >= N else False
    inside, outside = weight[quoted].sum(), weight[~quoted].sum()
    if outside > 0 and inside > outside / 3:
        weight[quoted] *= outside / 3 / inside


def telling_texts(candidates: Sequence[Sequence[str]], beside: Sequence[str]) -> list[list[str]]:
    """The texts of each item that tell something beside another text of it, and are not those of many items."""
    split = [[frozenset(_WORD.findall(text.lower())) for text in own] for own in candidates]
    counts: dict[frozenset[str], int] = {}
    for own in split:
        for words in set(own):
            counts[words] = counts.get(words, 0) + 1
    most = max(COMMON_SEGMENTS, COMMON_SHARE * len(candidates))
    kept = []
    for texts, own, other in zip(candidates, split, beside, strict=True):
        known = set(_WORD.findall(other.lower()))
        kept.append(
            [
                text
                for text, words in zip(texts, own, strict=True)
                if words - known and counts[words] <= most and _TELLS.search(text)
            ]
        )
    return kept
