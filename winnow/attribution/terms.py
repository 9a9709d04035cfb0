"""Texts as counts of words, for the lexical baselines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_WORD = re.compile(r"\w+")


class Vocabulary:
    """The words of N texts (runs of word characters, in lower case), and the counts of any texts in them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._places: dict[str, int] = {}
        for word in sorted({word for text in texts for word in _words(text)}):
            self._places[word] = len(self._places)

    def counts(self, texts: Sequence[str]) -> csr_matrix:
        """Return float64 ``[T, words]``: how often each text has each word; words that are not of the N are none."""
        from scipy.sparse import csr_matrix

        rows = [Counter(self._places[word] for word in _words(text) if word in self._places) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        columns = np.array([word for row in rows for word in sorted(row)], dtype=np.int64)
        values = np.array([float(row[word]) for row in rows for word in sorted(row)])
        return csr_matrix((values, columns, starts), shape=(len(texts), len(self._places)))


def count_words(texts: Sequence[str]) -> np.ndarray:
    """Return how many words each text has, int64 ``[T]``."""
    return np.fromiter((len(_words(text)) for text in texts), dtype=np.int64, count=len(texts))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
