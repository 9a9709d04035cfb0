"""The n-gram model against a slow one of dictionaries, and its probabilities as probabilities."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.quality.kneser_ney import END, HashTable, KneserNey
from winnow.quality.ngrams import hash_words

SENTENCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), min_size=1, max_size=6)


class SlowModel:
    """Interpolated Kneser-Ney as the formula stands."""

    def __init__(self, texts: list[str], order: int) -> None:
        rows = Counter(gram for text in texts for gram in self.grams(text, order))
        self.counts = {order: rows}
        for length in range(order - 1, 0, -1):
            rows = Counter(gram[1:] for gram in rows)
            self.counts[length] = rows
        self.order, self.vocabulary = order, len(rows)

    @staticmethod
    def grams(text: str, order: int) -> list[tuple[str, ...]]:
        words = ["<"] * (order - 1) + text.split() + [">"]
        return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]

    def probability(self, gram: tuple[str, ...]) -> float:
        if not gram:
            return 1.0 / (self.vocabulary + 1)
        counts = self.counts[len(gram)]
        once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        followed = [count for other, count in counts.items() if other[:-1] == gram[:-1]]
        if not followed:
            return self.probability(gram[1:])
        shorter = discount * len(followed) / sum(followed) * self.probability(gram[1:])
        return max(counts[gram] - discount, 0.0) / sum(followed) + shorter

    def perplexity(self, text: str) -> float:
        grams = self.grams(text, self.order)
        return math.exp(-sum(math.log(self.probability(gram)) for gram in grams) / len(grams))


@given(SENTENCES, SENTENCES, st.sampled_from([1, 2, 3]))
@settings(max_examples=40, deadline=None)
def test_perplexities_are_those_of_the_slow_model(texts: list[str], others: list[str], order: int) -> None:
    slow, fast = SlowModel(texts, order), KneserNey.fit([texts], order)
    asked = [*others, "a zebra b", ""]
    assert fast.vocabulary == slow.vocabulary
    assert fast.perplexity(asked) == pytest.approx([slow.perplexity(text) for text in asked], rel=1e-9)


def test_the_probabilities_after_any_context_add_up_to_one() -> None:
    model = KneserNey.fit([["the cat sat on the mat", "the dog sat", "a cat"]], 3)
    words = np.append(hash_words(["the cat sat on mat dog a unseen"]).hashes, END)
    for context in ("the cat", "cat unseen", "unseen unseen"):
        before = np.tile(hash_words([context]).hashes, (len(words), 1))
        total = model.probability(np.column_stack([before, words])).sum()
        assert total == pytest.approx(1.0, abs=1e-12)


def test_two_words_by_hand() -> None:
    # Unigrams: a (after the beginning, after a: 2), the end (after a: 1). D = 1 / (1 + 2) of counts 2 and 1.
    model = KneserNey.fit([["a a"]], 2)
    discount = 1 / (1 + 2 * 1)
    below = 1 / 3
    unigram = (2 - discount) / 3 + discount * 2 / 3 * below
    # Bigrams (begin a), (a a), (a end), each once: no count of two, so D = 0.5; a was seen twice as a context.
    after_a = (1 - 0.5) / 2 + 0.5 * 2 / 2 * unigram
    windows = np.array([[hash_words(["a"]).hashes[0]] * 2])
    assert model.probability(windows)[0] == pytest.approx(after_a)


def test_neither_order_nor_batches_change_a_bit() -> None:
    texts = [f"word{i % 7} is {i % 5} of {i % 3}" for i in range(40)]
    once, again = KneserNey.fit([texts], 3), KneserNey.fit([texts[20:], [], texts[:20][::-1]], 3)
    asked = ["word1 is 2 of 0", "unknown is 4"]
    assert np.array_equal(once.perplexity(asked), again.perplexity(asked))
    assert np.array_equal(once.perplexity(asked), np.concatenate([once.perplexity([text]) for text in asked]))


def test_a_model_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="needs texts"):
        KneserNey.fit([[]])


def test_the_table_finds_what_is_there_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    keys = np.unique(draw.integers(0, 2**64, 3_000, dtype=np.uint64))
    clustered = np.unique(np.concatenate([keys[:50], keys[0] + np.arange(40, dtype=np.uint64)]))
    for known in (keys, clustered, keys[:1], keys[:0]):
        places = defaultdict(lambda: -1, {int(key): place for place, key in enumerate(known)})
        asked = np.concatenate([keys[::7], clustered, draw.integers(0, 2**64, 100, dtype=np.uint64)])
        assert HashTable.of(known).find(asked).tolist() == [places[int(key)] for key in asked]
