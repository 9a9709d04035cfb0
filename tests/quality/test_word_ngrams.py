"""Words and n-grams by hashes against a regular expression and plain tuples."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.quality import ngrams
from winnow.quality.ngrams import buckets, hash_words

WORDS = re.compile(r"\w+|[^\w\s]+")
TEXTS = st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("aA b_.\n ΣΟ1İ"), max_size=40), max_size=6)


def words_of(text: str) -> list[str]:
    return WORDS.findall(text.lower())


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_words_are_those_of_the_regular_expression_and_equal_when_the_words_are(texts: list[str]) -> None:
    found = hash_words(texts)
    expected = [words_of(text) for text in texts]
    assert found.counts.tolist() == [len(words) for words in expected]
    flat = [word for words in expected for word in words]
    pairs = set(zip(flat, found.hashes.tolist(), strict=True))
    assert len(pairs) == len(set(flat)) == len(set(found.hashes.tolist()))


def test_a_word_has_the_same_hash_wherever_it_stands() -> None:
    together = hash_words(["one two, three", "", "two naïve 中文 two"])
    alone = [hash_words([text]).hashes for text in ("one two, three", "two naïve 中文 two")]
    assert np.array_equal(together.hashes, np.concatenate(alone))
    assert together.hashes[1] == together.hashes[4] == together.hashes[-1]


def test_long_texts_are_cut_at_white_space_only(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["alpha beta-gamma\tdelta " * 9 + "Σ" * 50, "short", "x" * 40]
    whole = hash_words(texts)
    monkeypatch.setattr(ngrams, "CHARACTERS", 7)
    pieces = hash_words(texts)
    assert np.array_equal(whole.hashes, pieces.hashes) and np.array_equal(whole.counts, pieces.counts)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngrams_stay_inside_their_text(n: int) -> None:
    texts = ["a b a b c", "b c", "", "a"]
    hashes, owner = hash_words(texts).ngrams(n)
    expected = [
        (row, tuple(words[start : start + n]))
        for row, words in enumerate(map(words_of, texts))
        for start in range(len(words) - n + 1)
    ]
    assert owner.tolist() == [row for row, _ in expected]
    pairs = set(zip([gram for _, gram in expected], hashes.tolist(), strict=True))
    assert len(pairs) == len({gram for _, gram in expected}) == len(set(hashes.tolist()))


def test_buckets_use_the_whole_range_evenly() -> None:
    hashes = hash_words([" ".join(f"w{i}" for i in range(20_000))]).hashes
    found = buckets(hashes, 10)
    assert np.bincount(found, minlength=10).min() > 1_800 and found.max() == 9
