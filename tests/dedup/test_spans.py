"""Repeated spans: the fast finder gives what dictionaries of all lines, paragraphs and windows give."""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.spans import SpanFinder, SpanPlan, apply_spans, repeated_spans
from winnow.dedup.spans.normal_form import PUNCTUATION
from winnow.errors import UserError

Span = tuple[int, str, int, int, int]
"""document, kind, first character, character after the end, copies"""


def spans(texts: list[str], plan: SpanPlan) -> list[Span]:
    return [tuple(row.values()) for row in repeated_spans(texts, plan, threads=1).to_pylist()]


# -- the definitions, slowly ------------------------------------------------------------------------------------------


def normalised(line: str) -> str:
    """CCNet's normal form of a line, as published."""
    line = re.sub(r"\d", "0", line.strip().lower())
    return re.sub(f"[{PUNCTUATION}\x00-\x1f\x7f-\x9f]", "", line)


def lines(text: str) -> Iterator[tuple[int, int, str]]:
    at = 0
    for line in text.split("\n"):
        end = min(at + len(line) + 1, len(text))
        if line.strip():
            yield at, end, normalised(line)
        at = end


def paragraphs(text: str) -> Iterator[tuple[int, int, str]]:
    blocks: list[list[tuple[int, str]]] = []
    at, inside = 0, False
    for line in text.split("\n"):
        if line.strip():
            if not inside:
                blocks.append([])
            blocks[-1].append((at, normalised(line)))
        inside = bool(line.strip())
        at += len(line) + 1
    ends = [block[0][0] for block in blocks[1:]] + [len(text)]
    for block, end in zip(blocks, ends, strict=False):
        yield block[0][0], end, "\n".join(line for _, line in block)


def byte_windows(text: str, length: int) -> Iterator[tuple[int, int, bytes]]:
    raw = text.encode()
    begins = list(itertools.accumulate((len(character.encode()) for character in text), initial=0))
    for at in range(len(raw) - length + 1):
        yield bisect_left(begins, at), bisect_right(begins, at + length) - 1, raw[at : at + length]


def word_windows(text: str, length: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    words = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    for at in range(len(words) - length + 1):
        part = words[at : at + length]
        yield part[0][0], part[-1][1], tuple(text[start:end] for start, end in part)


def slow(texts: list[str], plan: SpanPlan) -> list[Span]:
    found: list[Span] = []
    for kind in ("lines", "paragraphs", "substrings"):
        if kind not in plan.kinds:
            continue
        places = defaultdict(list)
        for document, text in enumerate(texts):
            if kind == "substrings":
                units = (word_windows if plan.words else byte_windows)(text, plan.length)
            else:
                units = (lines if kind == "lines" else paragraphs)(text)
                units = (unit for unit in units if len(unit[2].replace("\n", "")) >= plan.min_characters)
            for start, end, content in units:
                places[content].append((document, start, end))
        rows = sorted(
            (document, start, end, len(copies))
            for copies in places.values()
            if len(copies) > 1
            for document, start, end in sorted(copies)[0 if plan.every_copy else 1 :]
        )
        if kind == "substrings":
            rows = united(rows)
        found += [(document, kind[:-1], start, end, copies) for document, start, end, copies in rows]
    order = {"line": 0, "paragraph": 1, "substring": 2}
    return sorted(found, key=lambda row: (row[0], order[row[1]], row[2]))


def united(rows: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    merged: list[tuple[int, int, int, int]] = []
    for document, start, end, copies in rows:
        if merged and merged[-1][0] == document and start <= merged[-1][2]:
            before = merged[-1]
            merged[-1] = (document, before[1], max(before[2], end), max(before[3], copies))
        else:
            merged.append((document, start, end, copies))
    return merged


# -- equal to the definitions -----------------------------------------------------------------------------------------

FEW = st.text(alphabet="aé日🙂", max_size=80)
LINES = st.text(alphabet="aB3é日 .»\n\t\x85\u2003Σ", max_size=60)
WORDS = st.lists(st.sampled_from(["on", "é", "日本", " ", "\n", "\u3000", "\x1f "]), max_size=60).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(FEW, max_size=4), every_copy=st.booleans(), length=st.integers(5, 20))
def test_repeated_bytes_are_those_of_a_dictionary_of_all_windows(texts, every_copy, length):
    plan = SpanPlan(("substrings",), every_copy, length=length)
    assert spans(texts, plan) == slow(texts, plan)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS, max_size=4), every_copy=st.booleans())
def test_repeated_words_are_those_of_a_dictionary_of_all_windows(texts, every_copy):
    plan = SpanPlan(("substrings",), every_copy, words=True, length=5)
    assert spans(texts, plan) == slow(texts, plan)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(LINES, max_size=4), every_copy=st.booleans(), least=st.integers(1, 3))
def test_repeated_lines_and_paragraphs_are_those_of_the_published_rule(texts, every_copy, least):
    texts = [text.replace("Σ", "σ") for text in texts]  # its lower case depends on the context, the finder's does not
    plan = SpanPlan(("lines", "paragraphs"), every_copy, min_characters=least)
    assert spans(texts, plan) == slow(texts, plan)


@pytest.mark.parametrize("run", ["a", "ab", "abc ", "é", "日本"])
@pytest.mark.parametrize("length", [20, 33, 100])
def test_overlapping_copies_of_a_periodic_text_are_found(run, length):
    texts = [run * (length + 7), "between", run * length]
    plan = SpanPlan(("substrings",), length=length)
    assert spans(texts, plan) == slow(texts, plan)
    assert spans(texts[:1], plan) == slow(texts[:1], plan)


def test_planted_copies_in_real_text_are_found_to_the_character():
    from pydoc_data.topics import topics

    texts = [text for _, text in sorted(topics.items())][20:36]
    copied = texts[3][200:420]
    texts += [f"日本語{mark}{copied}{mark} ünd so weiter." for mark in "äöü"]
    plan = SpanPlan(("substrings",), length=100)
    found = spans(texts, plan)
    assert [row for row in found if row[0] >= 16] == [(row, "substring", 4, 224, 4) for row in (16, 17, 18)]
    assert found == slow(texts, plan)


# -- rules ------------------------------------------------------------------------------------------------------------

NOTICE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this text."


def test_keep_one_spares_the_first_copy_and_every_copy_none():
    texts = [f"First.\n{NOTICE}\n", f"{NOTICE}\nSecond.\n", f"Third.\n{NOTICE.upper()}"]
    for every_copy, left in (
        (False, [texts[0], "Second.\n", "Third.\n"]),
        (True, ["First.\n", "Second.\n", "Third.\n"]),
    ):
        found = spans(texts, SpanPlan(("lines",), every_copy))
        assert {row[4] for row in found} == {3}
        for document, text in enumerate(texts):
            inside = [(start, end) for number, _, start, end, _ in found if number == document]
            assert apply_spans(text, inside) == left[document]


def test_lines_shorter_than_the_least_do_not_count():
    texts = ["}\n\nreturn None\n" + NOTICE, "}\n\nreturn None\n" + NOTICE]
    assert [row[2:4] for row in spans(texts, SpanPlan(("lines",)))] == [(15, 15 + len(NOTICE))]
    assert len(spans(texts, SpanPlan(("lines",), min_characters=1))) == 3


def test_a_paragraph_repeats_as_a_whole_and_goes_with_the_blank_lines_after_it():
    texts = [f"{NOTICE}\nand more\n\nrest", f"Title\n\n  {NOTICE}\n  And more!\n\n\nother", f"{NOTICE}\nand less"]
    texts[1] = texts[1].replace("!", "")
    (row,) = spans(texts, SpanPlan(("paragraphs",)))
    assert row[:2] == (1, "paragraph")
    assert apply_spans(texts[1], [row[2:4]]) == "Title\n\nother"


def test_a_line_is_compared_in_ccnets_normal_form():
    texts = ["Ça coûte 12 » francs, n'est-ce pas?", "\t ÇA COÛTE 34 » FRANCS, N'EST-CE PAS? \r\n"]
    assert [row[0] for row in spans(texts, SpanPlan(("lines",)))] == [1]
    assert len(spans([texts[0], texts[0].replace("12", "１4")], SpanPlan(("lines",)))) == 1
    assert spans([texts[0], texts[0].replace("ç", "c").replace("Ç", "C")], SpanPlan(("lines",))) == []
    assert spans([texts[0], texts[0].replace(",", "")], SpanPlan(("lines",))) == []


def test_the_version_names_what_decides():
    plans = [SpanPlan(), SpanPlan(("lines",)), SpanPlan(every_copy=True), SpanPlan(words=True), SpanPlan(length=50),
             SpanPlan(min_characters=1)]  # fmt: skip
    assert len({plan.version for plan in plans}) == len(plans)
    assert SpanPlan(("lines", "substrings")).version == SpanPlan(("substrings", "lines")).version


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"kinds": ("words",)}, {"length": 4}, {"min_characters": 0}):
        with pytest.raises(UserError):
            SpanPlan(**wrong)


# -- any order, any cut, any memory -----------------------------------------------------------------------------------


def corpus() -> list[str]:
    from pydoc_data.topics import topics

    texts = [text for _, text in sorted(topics.items())][:60]
    return [*texts, "", *(text[100:700] for text in texts[:20]), "-" * 900, texts[0]]


@pytest.mark.parametrize("words", [False, True])
def test_batches_order_threads_and_memory_change_nothing(tmp_path, words):
    texts = corpus()
    plan = SpanPlan(words=words, length=12 if words else 60)
    whole = repeated_spans(texts, plan, threads=1)
    lengths = np.array([len(text) for text in texts], np.int64)
    with SpanFinder(lengths, sum(map(len, texts)), plan, tmp_path / "spill", memory=30_000, threads=2) as finder:
        order = np.random.default_rng(7).permutation(len(texts))
        for take in (finder.read, finder.compare):
            for part in np.array_split(order, 7):
                take(pa.chunked_array([pa.array([texts[i] for i in part], pa.large_string())]), part)
        parts = list(finder.found())
    assert len(parts) > 3
    assert [(a.last, b.first) for a, b in itertools.pairwise(parts) if a.last != b.first] == []
    assert (parts[0].first, parts[-1].last) == (0, len(texts))
    assert pa.concat_tables([part.spans for part in parts]).equals(whole)
    assert list((tmp_path / "spill").iterdir()) == []
    rows = whole.to_pylist()
    for kind in ("line", "paragraph", "substring"):
        counts = np.concatenate([part.counts[kind] for part in parts])
        assert counts.tolist() == [
            sum(row["document"] == document and row["kind"] == kind for row in rows) for document in range(len(texts))
        ]
    inside = np.concatenate([part.characters for part in parts])
    left = [
        apply_spans(text, [(row["span_start"], row["span_end"]) for row in rows if row["document"] == document])
        for document, text in enumerate(texts)
    ]
    assert [len(text) - len(rest) for text, rest in zip(texts, left, strict=True)] == inside.tolist()


def test_no_text_has_no_spans(tmp_path: Path):
    for texts in ([], [""], ["", ""]):
        assert repeated_spans(texts).num_rows == 0


def test_a_text_of_another_length_is_refused(tmp_path: Path):
    with (
        SpanFinder(np.array([3, 4]), 7, SpanPlan(), tmp_path) as finder,
        pytest.raises(ValueError, match="position 1 has not the length"),
    ):
        finder.read(pa.array(["éab", "abcde"], pa.large_string()), np.array([0, 1]))


# -- leaving spans out ------------------------------------------------------------------------------------------------


@given(text=st.text(max_size=20), data=st.data())
def test_what_is_left_is_the_characters_outside_every_span(text, data):
    place = st.integers(0, len(text))
    found = data.draw(st.lists(st.tuples(place, place).map(sorted).map(tuple), max_size=4))
    inside = {at for start, end in found for at in range(start, end)}
    assert apply_spans(text, found) == "".join(c for at, c in enumerate(text) if at not in inside)


def test_a_span_of_another_text_is_refused():
    with pytest.raises(ValueError, match="does not lie"):
        apply_spans("short", [(2, 9)])


def test_the_digits_of_every_script_are_one():
    from winnow.dedup.spans.normal_form import normal_form

    digits = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Nd"]
    assert {int(normal_form()[ord(digit)]) for digit in digits} == {ord("0")}
