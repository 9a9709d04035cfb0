"""The signal kernel against a slow twin in plain Python, and its invariants."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.quality import COLUMNS, compute_signals

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
BULLETS = tuple("•‣◦⁃▪●○-*")
TERMINALS = tuple(".!?…\"'”")


def ratio(above: float, below: float) -> float:
    return above / below if below else 0.0


def repeats(items: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    number = characters = 0
    for item in items:
        if item in seen:
            number, characters = number + 1, characters + len(item)
        seen.add(item)
    return number, characters


def covered(words: list[str], n: int, starts: list[int]) -> int:
    inside = {k for start in starts for k in range(start, start + n)}
    return sum(len(words[k]) for k in inside)


def top_ngram(words: list[str], n: int) -> int:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    if not counts or max(counts.values()) < 2:
        return 0
    best = min(counts, key=lambda gram: (-counts[gram], -sum(map(len, gram)), grams.index(gram)))
    return covered(words, n, [i for i, gram in enumerate(grams) if gram == best])


def dup_rpv2(words: list[str], n: int) -> int:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    return covered(words, n, [i for i, gram in enumerate(grams) if counts[gram] > 1])


def dup_datatrove(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    i = characters = 0
    while i + n <= len(words):
        gram = tuple(words[i : i + n])
        if gram in seen:
            characters, i = characters + sum(map(len, gram)), i + n
        else:
            seen.add(gram)
            i += 1
    return characters


def bare(word: str) -> str:
    kept = [i for i, character in enumerate(word) if character.isalnum()]
    return word[kept[0] : kept[-1] + 1].lower() if kept else ""


def slow_signals(text: str) -> dict[str, float]:
    words, size = text.split(), len(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    joined = ["\n".join(paragraph) for paragraph in paragraphs if paragraph]
    dup_lines, dup_line_chars = repeats(lines)
    dup_paragraphs, _ = repeats(joined)
    seen: set[str] = set()
    dup_paragraph_chars = 0
    for paragraph in joined:
        dup_paragraph_chars += len(paragraph.replace("\n", "")) if paragraph in seen else 0
        seen.add(paragraph)
    word_chars = sum(map(len, words))
    counts = Counter(words)
    ellipses = text.count("...") + text.count("…")
    stops = [bare(word) for word in words if bare(word) in STOP_WORDS]
    categories = Counter(unicodedata.category(character)[0] for character in text)
    raw = text.encode()
    signals = {
        "words": len(words),
        "characters": size,
        "mean_word_length": ratio(word_chars, len(words)),
        "lines": len(lines),
        "paragraphs": len(joined),
        "frac_lines_end_ellipsis": ratio(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "frac_lines_bullet": ratio(sum(line.startswith(BULLETS) for line in lines), len(lines)),
        "frac_lines_end_punctuation": ratio(sum(line.endswith(TERMINALS) for line in lines), len(lines)),
        "frac_lines_short": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "newline_word_ratio": ratio(text.count("\n"), len(words)),
        "frac_dup_lines": ratio(dup_lines, len(lines)),
        "frac_dup_line_chars": ratio(dup_line_chars, size),
        "frac_dup_paragraphs": ratio(dup_paragraphs, len(joined)),
        "frac_dup_paragraph_chars": ratio(dup_paragraph_chars, size),
        "hash_symbol_ratio": ratio(text.count("#"), len(words)),
        "ellipsis_word_ratio": ratio(ellipses, len(words)),
        "frac_words_alpha": ratio(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "frac_words_all_caps": ratio(
            sum(any(map(str.isupper, word)) and not any(map(str.islower, word)) for word in words), len(words)
        ),
        "stop_words_distinct": len(set(stops)),
        "frac_stop_words": ratio(len(stops), len(words)),
        "frac_unique_words": ratio(len(counts), len(words)),
        "unigram_entropy": -math.fsum(c / len(words) * math.log(c / len(words)) for c in counts.values()),
        "compression_ratio": ratio(len(zlib.compress(raw, 6)), len(raw)),
        "frac_digits": ratio(sum(map(str.isdecimal, text)), size),
        "frac_upper": ratio(sum(map(str.isupper, text)), size),
        "frac_punctuation": ratio(categories["P"], size),
        "frac_symbols": ratio(categories["S"], size),
        "frac_space": ratio(sum(map(str.isspace, text)), size),
        "frac_curly_brackets": ratio(text.count("{") + text.count("}"), size),
    }
    for n in (2, 3, 4):
        signals[f"frac_chars_top_{n}gram_gopher"] = ratio(top_ngram(words, n), word_chars)
    for n in range(5, 11):
        signals[f"frac_chars_dup_{n}gram_rpv2"] = ratio(dup_rpv2(words, n), word_chars)
        signals[f"frac_chars_dup_{n}gram_datatrove"] = ratio(dup_datatrove(words, n), size)
    return signals


def agree(texts: list[str]) -> None:
    table = compute_signals(pa.array(texts, pa.large_string()))
    assert table.column_names == list(COLUMNS)
    for text, row in zip(texts, table.to_pylist(), strict=True):
        expected = slow_signals(text)
        assert set(expected) == set(row)
        for name, value in expected.items():
            if name == "unigram_entropy":
                assert row[name] == pytest.approx(value, abs=1e-9), (name, text)
            else:
                assert row[name] == value, (name, text)


few_words = st.lists(
    st.sampled_from(
        ["a", "b", "the", "The,", "(of)", "WITH", "x9", "#", "...", "…", "-", "• ", "{}", "\n", "\n\n", "\n \n"]
    ),
    max_size=60,
).map(" ".join)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
odd_text = st.text(
    st.sampled_from("ab.…#-* \n\t\r\x1c\x85\u2028\u00a0İßΣǅ٣²½中\U0001f600\U00020000\U000e0041"), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(few_words, any_text, odd_text), max_size=6))
@example([""])
@example(["\n", " ", "\n\n\n", "x", "a\n", "\na\n\nb\n\na", "a\r\n\r\nb\r\n"])
@example(["a a a a a a a a a a a a a a a a a a a a a a a a a"])
@example(["......", "a....", "a..\n...", "....\n…\n. . ."])
def test_kernel_agrees_with_plain_python(texts: list[str]) -> None:
    agree(texts)


def test_every_code_point_is_classed_as_python_classes_it() -> None:
    points = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    step = 4096
    texts = ["".join(map(chr, points[i : i + step])) for i in range(0, len(points), step)]
    names = ["characters", "words", "frac_digits", "frac_upper", "frac_punctuation", "frac_symbols", "frac_space"]
    table = compute_signals(pa.array(texts, pa.large_string())).select(names)
    for text, row in zip(texts, table.to_pylist(), strict=True):
        categories = Counter(unicodedata.category(character)[0] for character in text)
        assert row["words"] == len(text.split())
        assert row["frac_space"] == sum(map(str.isspace, text)) / len(text)
        assert row["frac_digits"] == sum(map(str.isdecimal, text)) / len(text)
        assert row["frac_upper"] == sum(map(str.isupper, text)) / len(text)
        assert row["frac_punctuation"] == categories["P"] / len(text)
        assert row["frac_symbols"] == categories["S"] / len(text)


def test_long_repetitive_texts_agree_with_plain_python() -> None:
    generator = np.random.default_rng(0)
    texts = []
    for vocabulary in (2, 3, 30, 1000):
        words = [f"w{k}" for k in generator.integers(0, vocabulary, 700)]
        lines = [" ".join(words[i : i + 7]) for i in range(0, 700, 7)]
        texts += ["\n".join(lines + lines[:30]), "\n\n".join(lines[:20] * 2)]
    agree(texts)


def test_signals_depend_on_neither_order_nor_batches_nor_threads() -> None:
    texts = ["", "a b a b a b", "the cat sat on the mat.\n" * 40, "ünï cödé … ###", "x" * 9000, "\n\n"] * 7
    whole = compute_signals(pa.array(texts, pa.large_string()))
    backwards = compute_signals(pa.array(texts[::-1], pa.string()), threads=1)
    assert backwards.take(list(range(len(texts)))[::-1]).equals(whole)
    array = pa.array(texts, pa.large_string())
    parts = [compute_signals(array.slice(start, 5)) for start in range(0, len(texts), 5)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole)
    assert compute_signals(pa.chunked_array([array.slice(0, 11), array.slice(11)])).equals(whole)


def test_pieces_cover_every_row_once_whatever_the_sizes() -> None:
    from winnow.quality.signals import _pieces

    sizes = np.array([0, 0, 9, 0, 30, 1, 0, 100, 0, 0])
    offsets = 5 + np.concatenate([[0], np.cumsum(sizes)])
    rows = [row for start, stop in _pieces(offsets, size=10) for row in range(start, stop)]
    assert rows == list(range(len(sizes)))
    assert _pieces(np.zeros(1, dtype=np.int64)) == []


def test_no_value_is_null_or_infinite_and_fractions_stay_in_the_unit_interval() -> None:
    texts = ["", " ", "\n", "#", "...", "a", "\x00", "a a a a a a a a a a a a", "{}" * 50, "9" * 20]
    table = compute_signals(pa.array(texts, pa.large_string()))
    for name in COLUMNS:
        values = table[name].to_numpy()
        assert table[name].null_count == 0
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        if name.startswith("frac_"):
            assert (values <= 1).all(), name


def test_no_texts_give_a_table_without_rows() -> None:
    table = compute_signals(pa.array([], pa.large_string()))
    assert table.num_rows == 0
    assert table.column_names == list(COLUMNS)


def test_variants_of_duplicate_ngrams_differ_as_documented() -> None:
    row = compute_signals(pa.array(["a b c d e f a b c d e"], pa.large_string())).to_pylist()[0]
    assert row["frac_chars_dup_5gram_rpv2"] == 10 / 11  # both occurrences, over the characters of words
    assert row["frac_chars_dup_5gram_datatrove"] == 5 / 21  # the second one only, over all characters
    assert row["frac_chars_dup_6gram_rpv2"] == 0


def test_a_null_or_a_number_is_refused() -> None:
    with pytest.raises(UserError, match="1 of 2 texts are null"):
        compute_signals(pa.array(["a", None], pa.large_string()))
    with pytest.raises(UserError, match=re.escape("texts are int64")):
        compute_signals(pa.array([1, 2]))
