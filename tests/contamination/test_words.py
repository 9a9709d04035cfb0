"""Words as each method cuts them, against regular expressions."""

from __future__ import annotations

import re

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_gapped import words_of

from winnow.contamination.words import split_words

texts = st.lists(
    st.text(st.sampled_from("aB_1é ,.'-\n的水かกΣσİß\u0301\U0001f600\U00020000"), max_size=20), min_size=1, max_size=4
)


def shown(given: list[str], cut: str) -> list[list[tuple[int, int]]]:
    words = split_words(pa.array(given, pa.large_string()), cut)
    spans = list(zip(words.starts.tolist(), words.ends.tolist(), strict=True))
    return [spans[words.bounds[k] : words.bounds[k + 1]] for k in range(len(words))]


@settings(max_examples=60, deadline=None)
@given(texts)
@example(["的a水b", "aİb", "ΑΣ. ΑΣ"])
def test_gapped_cuts_words_and_lone_characters(given: list[str]) -> None:
    expected = [[(start, end) for _, start, end in words_of(text)] for text in given]
    assert shown(given, "gapped") == expected


def test_gpt3_cuts_at_white_space_and_drops_punctuation() -> None:
    text = "Don't re-use  “it”, 3.14 -- ok!"
    (spans,) = shown([text], "gpt3")
    words = [re.sub(r"\W", "", text[start:end].lower()) for start, end in spans]
    assert words == ["dont", "reuse", "it", "314", "ok"]
    plain = split_words(pa.array(["dont reuse it 314 ok"]), "gpt3")
    assert split_words(pa.array([text]), "gpt3").hashes.tolist() == plain.hashes.tolist()
    assert [text[start:end] for start, end in spans] == ["Don't", "re-use", "it", "3.14", "ok"]


def test_equal_words_have_equal_hashes_whatever_their_case() -> None:
    words = split_words(pa.array(["ÉTÉ été Été", "其他 其他"], pa.large_string()))
    first, second = words.hashes[:3].tolist(), words.hashes[3:].tolist()
    assert len(set(first)) == 1
    assert second[:2] == second[2:] and len(set(second)) == 2
