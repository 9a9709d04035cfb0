"""Normalisations: the compiled tables against the definitions, the definitions against those they are named after."""

from __future__ import annotations

import re
import string
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup import _text_kernels, _unit_kernels
from winnow.dedup.normalizations import NORMALIZATIONS, rules, units, words

# Every code point of the planes that have letters other than ideographs, some of the rest.
CODES = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 101), *range(0xE0000, 0xE0200)]
POINTS = list(map(chr, CODES))
NUMBERS = st.lists(
    st.sampled_from(["1", "٣", "𝟘", "１", ".", ",", "،", "٫", "⎖", "a", " ", "\u0301", "½", "²", "-"]), max_size=12
).map("".join)


def compiled_units(text: str, normalization: str, unit: str) -> list[str] | None:
    """The units that the kernels cut, or None if they leave the text to Python."""
    data = np.frombuffer(text.encode(), np.uint8)
    offsets, special = np.array([0, len(data)]), np.zeros(1, np.bool_)
    tables = rules(normalization, unit)
    _text_kernels.find_special(data, offsets, 0, 1, tables.flags, tables.marks, special)
    if special[0]:
        return None
    scratch = _unit_kernels.make_scratch(offsets, 0, 1, tables.unit)
    raw, starts, count, gap = _unit_kernels.cut(data, 0, len(data), False, tables.compiled, scratch)
    return [raw[starts[u] : starts[u + 1] - gap].tobytes().decode() for u in range(count)]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_tables_treat_every_code_point_as_the_definition_does(normalization):
    flags = rules(normalization, "words").flags
    plain = [point for point in POINTS if not flags[ord(point)] & 0x200]
    assert len(POINTS) - len(plain) < 50
    for start in range(0, len(plain), 8192):
        text = " ".join(f"{point}a b{point}c1 {point}" for point in plain[start : start + 8192])
        assert compiled_units(text, normalization, "words") == words(text, normalization), f"from {plain[start]!r}"


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_tables_give_characters_and_tokens_as_the_definition_does(normalization, unit, multilingual):
    compared = 0
    for text in [
        *multilingual,
        "é\x00é\x00 \x00é\x1fé-é",
        "".join(POINTS[0x100:0x3000:3]),
        "I don't re-use 3.14e5 x² №５ «a»b naïve",
    ]:
        found = compiled_units(text, normalization, unit)
        compared += found is not None
        assert found is None or found == units(text, normalization, unit)
    assert compared > len(multilingual) // 2


def test_tokens_are_runs_of_letters_runs_of_numbers_and_single_others():
    assert units("Don't say x2_3!", "datasketch-words", "tokens") == ["don", "t", "say", "x", "2", "_", "3"]
    expected = ["a", "€", "b", "10", "€", "€", "naïve", "अनुच्छेद", "½५"]
    assert units("A€b 10€€ naïve अनुच्छेद ½५", "dolma", "tokens") == expected


def test_datatrove_words_are_those_of_its_own_simplification(multilingual, library):
    text_module = pytest.importorskip("datatrove.utils.text")
    every = " ".join(f"{point}a b{point}" for point in POINTS if unicodedata.category(point) != "Cn")
    for text in [*multilingual, *library[:200], every, "1\u03012 12,345,6.7 ٣٫٤ 5⎖6 7 .8 9. a1b2"]:
        assert words(text, "datatrove") == text_module.simplify_text(text).split()


@given(text=NUMBERS)
@settings(max_examples=300, deadline=None)
def test_numbers_have_at_most_one_decimal_part(text):
    found = compiled_units(text, "datatrove", "words")
    assert found is None or found == words(text, "datatrove")


def test_rpv2_words_follow_its_published_steps(multilingual, library):
    for text in [*multilingual, *library[:100]]:
        bare = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
        assert words(text, "rpv2") == unicodedata.normalize("NFD", re.sub(r"\s+", " ", bare)).split()


def test_dolma_words_follow_its_published_steps(multilingual, library):
    spaces = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
    for text in [*multilingual, *library[:100], "a\x1cb\x85c\u200bd"]:
        bare = text.lower().translate(str.maketrans("", "", string.punctuation))
        assert words(text, "dolma") == [word for word in spaces.split(bare) if word]


@given(text=st.text(st.sampled_from("aé\u0301\u0323\u0344\u05b0 .e\u1e0a\u0f73ắ"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_marks_out_of_canonical_order_are_left_to_python_and_no_others(text):
    found = compiled_units(text, "rpv2", "words")
    if found is None:
        bare = text.lower().replace(".", "")
        parts = "".join(unicodedata.normalize("NFD", character) for character in bare)
        assert parts != unicodedata.normalize("NFD", bare) or set("\u0344\u0f73") & set(text)
    else:
        assert found == words(text, "rpv2")
