r"""A word n-gram model by interpolated Kneser-Ney, of word hashes, without a loop over words.

With the counts c of the n-grams of the highest order, and for the lower orders the number of different words that come
before an n-gram instead of its count,

    p(w | h) = max(c(h w) - D, 0) / c(h .) + D N(h .) / c(h .) p(w | h')

h' is the context h without its first word, N(h .) the number of different words seen after h, D = n1 / (n1 + 2 n2) from
the n-grams of that order seen once and twice. Below the unigrams is 1 / (V + 1): an unseen word has the probability of
one more word, and all probabilities of a context, of V known words and one unknown, add up to 1. A context that was not
seen leaves it to the shorter one. Each text begins with n - 1 marks and ends with one, which is a word.

Source: Kneser and Ney 1995; Chen and Goodman 1999, section 2.7 (interpolated, one discount an order).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError
from winnow.quality.ngrams import NEXT, hash_words, mixed

BEGIN, END = np.uint64(0x0123456789ABCDEF), np.uint64(0xFEDCBA9876543210)


@dataclass(frozen=True, eq=False)
class HashTable:
    """Distinct uint64 ``keys``, ascending, found by their upper bits: ``starts`` says where those of each begin."""

    keys: np.ndarray
    starts: np.ndarray
    shift: np.uint64

    @classmethod
    def of(cls, keys: np.ndarray) -> HashTable:
        """Make one of sorted distinct keys."""
        bits = min(24, max(1, len(keys).bit_length()))
        shift = np.uint64(64 - bits)
        return cls(keys, np.searchsorted(keys >> shift, np.arange((1 << bits) + 1, dtype=np.uint64)), shift)

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return the row of each hash, int64, -1 where it is not among the keys."""
        upper = (hashes >> self.shift).astype(np.int64)
        place, end = self.starts[upper], self.starts[upper + 1]
        found = np.full(len(hashes), -1)
        left = np.flatnonzero(place < end)
        while len(left):
            here = self.keys[place[left]] == hashes[left]
            found[left[here]] = place[left[here]]
            left = left[~here]
            place[left] += 1
            left = left[place[left] < end[left]]
        return found


@dataclass(frozen=True, eq=False)
class Order:
    """One order of the model: ``share`` float64 of each n-gram, (c - D) / c(h .), and ``left`` of each context."""

    ngrams: HashTable
    share: np.ndarray
    contexts: HashTable
    left: np.ndarray

    @classmethod
    def of(cls, grams: np.ndarray, counts: np.ndarray) -> Order:
        """Estimate it from distinct n-grams uint64 ``[G, m]`` of word hashes and their counts int64 ``[G]``."""
        once, twice = int(np.count_nonzero(counts == 1)), int(np.count_nonzero(counts == 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        contexts, context = np.unique(_folded(grams[:, :-1]), return_inverse=True)
        total, different = np.bincount(context, weights=counts), np.bincount(context)
        hashes = _folded(grams)
        by_hash = np.argsort(hashes)
        share = ((counts - discount) / total[context])[by_hash]
        return cls(HashTable.of(hashes[by_hash]), share, HashTable.of(contexts), discount * different / total)


@dataclass(frozen=True, eq=False)
class KneserNey:
    """A fitted model; ``orders``: unigrams first; ``vocabulary``: V, the different words with the end among them."""

    orders: tuple[Order, ...]
    vocabulary: int

    @classmethod
    def fit(cls, batches: Iterable[Sequence[str]], order: int = 3) -> KneserNey:
        """Fit the model to texts; neither their order nor how they are cut into batches changes a bit.

        Memory: about 100 bytes a word. Raises :class:`UserError` when there is no text.
        """
        streams = [_windows(texts, order)[0] for texts in batches]
        if not sum(map(len, streams)):
            raise UserError("an n-gram model needs texts; there are none to count")
        grams, counts = _distinct(np.concatenate(streams))
        orders = [Order.of(grams, counts)]
        for _ in range(order - 1):
            grams, counts = _distinct(grams[:, 1:])
            orders.insert(0, Order.of(grams, counts))
        return cls(tuple(orders), len(grams))

    def perplexity(self, texts: Sequence[str]) -> np.ndarray:
        """Return exp of the mean negative log probability of each text's words and its end, float64 ``[N]``."""
        windows, counts = _windows(texts, len(self.orders))
        logarithms = np.log(self.probability(windows))
        owner = np.repeat(np.arange(len(texts)), counts)
        return np.exp(-np.bincount(owner, weights=logarithms, minlength=len(texts)) / np.maximum(counts, 1))

    def probability(self, windows: np.ndarray) -> np.ndarray:
        """Return p(last word | those before), float64 ``[G]``, of windows of word hashes uint64 ``[G, order]``."""
        found = np.full(len(windows), 1.0 / (self.vocabulary + 1))
        for length, order in enumerate(self.orders, start=1):
            window = windows[:, windows.shape[1] - length :]
            before = _folded(window[:, :-1])
            context = order.contexts.find(before)
            ngram = order.ngrams.find(_folded(window))
            share = np.where(ngram >= 0, order.share[ngram], 0.0)
            found = np.where(context >= 0, share + order.left[context] * found, found)
        return found


def _windows(texts: Sequence[str], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every word with those before it, uint64 ``[G, order]``, text by text, and how many each has, int64."""
    words = hash_words(texts)
    place = np.arange(len(words.hashes)) + words.owner * order + order - 1
    ends = np.cumsum(words.counts + order) - 1
    stream = np.full(len(words.hashes) + order * len(texts), BEGIN)
    stream[place], stream[ends] = words.hashes, END
    predicted = np.insert(place, np.cumsum(words.counts), ends)
    return stream[predicted[:, None] + np.arange(1 - order, 1)], words.counts + 1


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows and how often each occurs, in the order of their hashes."""
    _, first, counts = np.unique(_folded(rows), return_index=True, return_counts=True)
    return rows[first], counts


def _folded(rows: np.ndarray) -> np.ndarray:
    """Return one hash uint64 ``[G]`` of each row of word hashes ``[G, m]``; 0 of an empty one."""
    if not rows.shape[1]:
        return np.zeros(len(rows), np.uint64)
    found = rows[:, 0]
    for column in range(1, rows.shape[1]):
        found = mixed(found * NEXT + rows[:, column])
    return found
