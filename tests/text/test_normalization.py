"""Normalization: each step does what its docstring names and nothing else, and doing it twice changes nothing."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.text import Limits, ShardReader
from winnow.text.formats import Reading
from winnow.text.normalize import MOST_ROUNDS, SEGMENT, STEPS, Normalization, repair_mojibake

step_choices = st.lists(st.sampled_from(sorted(STEPS)), max_size=4)
# Characters that steps act on, alone and together: what bytes of UTF-8 become, controls, line ends, combining marks.
odd = st.text(
    st.sampled_from(
        [*"Aaé ÃÂâ€™œ©³¶¼ï»¿\u00a0\u0080\u0085\u009d\r\n\t\ufeff\u0303\u0301\u2028\u2029ðŸ˜€í Ð±ã‚¿Å¡\x1b\x7f"]
    ),
    max_size=40,
)
any_text = st.one_of(odd, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))


@pytest.mark.parametrize(
    ("steps", "text", "expected"),
    [
        (["mojibake"], "schÃ¶n und schÃ¶ner", "schön und schöner"),
        (["mojibake"], "voilÃ  le travail", "voilà le travail"),
        (["mojibake"], "itâ€™s", "it\u2019s"),
        (["mojibake"], "schÃƒÂ¶n", "schön"),
        (["mojibake"], "sound: größer, cœur, 東京, ½ €", "sound: größer, cœur, 東京, ½ €"),
        (["line_ends"], "a\r\nb\rc\x85d\u2028e\u2029f\n\rg", "a\nb\nc\nd\ne\nf\n\ng"),
        (["line_ends"], "a\x0bb\x0cc \n", "a\x0bb\x0cc \n"),
        (["control_characters"], "a\x00\x08\x0e\x1b[1m\x1f\x7f", "a[1m"),
        (["control_characters"], "\ufeffa\x80é\x84\x86\x9fb\ufeff", "aéb"),
        (
            ["control_characters"],
            "\t\n\x0b\x0c\r\x85\xa0\u200c\u200d\u2028",
            "\t\n\x0b\x0c\r\x85\xa0\u200c\u200d\u2028",
        ),
        (["nfc"], "e\u0301 \u1100\u1161 \u212b", "é 가 Å"),
    ],
)
def test_a_step_changes_what_it_names(steps: list[str], text: str, expected: str) -> None:
    assert Normalization(steps).apply(text) == expected


@pytest.mark.parametrize(
    "text", ["“curly” ‘quotes’", "ﬁ ﬂ Ǆ", "Ａ ﾊﾝ　", "&amp; &eacute; &#233;", "x² ½ ™", "\x1b[31mred"]
)
def test_quotes_ligatures_width_entities_and_compatibility_characters_stay(text: str) -> None:
    assert Normalization(["mojibake", "line_ends", "nfc"]).apply(text) == text


def test_what_cannot_be_repaired_stays() -> None:
    assert repair_mojibake("lost: â€\ufffd and Ã? here") == "lost: â€\ufffd and Ã? here"
    for nul in ("Ã©Ã© À\u0080", "é Ã© Ã© À\x80 Ã©"):
        assert "\0" not in repair_mojibake(nul)


@settings(max_examples=300, deadline=None)
@given(text=any_text, steps=step_choices)
def test_normalizing_twice_changes_nothing(text: str, steps: list[str]) -> None:
    normalization = Normalization(steps)
    once = normalization.apply(text)
    assert normalization.apply(once) == once
    once.encode()
    if "nfc" in steps:
        assert unicodedata.is_normalized("NFC", once)
    if "line_ends" in steps:
        assert not set(once) & set("\r\x85\u2028\u2029")
    if "control_characters" in steps:
        controls = {c for c in once if unicodedata.category(c) == "Cc" and c not in "\t\n\x0b\x0c\r\x85"}
        assert not controls | (set(once) & {"\ufeff"})


@settings(max_examples=500, deadline=None)
@given(text=any_text)
def test_the_quick_test_for_mojibake_misses_no_repair(text: str) -> None:
    config = ftfy.TextFixerConfig(replace_lossy_sequences=False, explain=False)
    slow = [ftfy.fix_encoding(line, config) for line in text.split("\n")]
    slow = [line if "\0" in fixed else fixed for line, fixed in zip(text.split("\n"), slow, strict=True)]
    assert repair_mojibake(text) == "\n".join(slow)


@given(text=st.text(st.characters(max_codepoint=126, exclude_characters="\r\x00\x1b", min_codepoint=32)))
def test_plain_ascii_stays_the_same_object(text: str) -> None:
    assert Normalization(list(STEPS)).apply(text) is text


def test_the_order_asked_for_does_not_matter() -> None:
    forward, backward = Normalization(list(STEPS)), Normalization([*reversed(list(STEPS)), "nfc"])
    assert forward.steps == backward.steps == tuple(STEPS) and forward.name == backward.name
    # The mark goes before NFC composes what it kept apart.
    assert backward.apply("e\ufeff\u0301\r\n") == "é\n"


def test_the_name_tells_versions_and_libraries() -> None:
    assert Normalization().name == "none" and not Normalization()
    ftfy_version = ".".join(ftfy.__version__.split(".")[:2])
    expected = f"mojibake1-ftfy{ftfy_version}+line_ends1+control_characters1+nfc1-unicode{unicodedata.unidata_version}"
    assert Normalization(list(STEPS)).name == expected and Normalization(["nfc"])


def test_an_unknown_step_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="no normalization 'nfkc'; there is: mojibake, line_ends"):
        Normalization(["nfkc"])


def test_ftfy_is_imported_only_by_a_text_that_needs_it() -> None:
    code = (
        "import sys; from winnow.text.normalize import Normalization\n"
        "Normalization(['mojibake']).apply('plain'); Normalization(['nfc']).name; assert 'ftfy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("filler", ["word ", "x", "schön "])
def test_a_line_of_any_length_is_repaired_to_its_end(filler: str) -> None:
    line = filler * (3 * SEGMENT // len(filler)) + " schÃ¶n"
    assert Normalization(["mojibake"]).apply(line).endswith(" schön")
    assert Normalization(["mojibake"]).apply(line).startswith(filler * 10)


def test_a_text_that_normalization_empties_is_quarantined_and_the_original_of_a_changed_one_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\u001b\\ufeff"}\n{"text": "a\\r\\nb"}\n{"text": "same"}\n')
    reading = Reading(limits=Limits(max_bad_fraction=1.0), normalization=("control_characters", "line_ends"))
    reader = ShardReader(path, reading=reading)
    batches = list(reader)
    rows = [row for batch in batches for row in batch.documents.select(["row", "text", "original"]).to_pylist()]
    assert rows == [
        {"row": 1, "text": "a\nb", "original": "a\r\nb"},
        {"row": 2, "text": "same", "original": None},
    ]
    assert [(row.row, row.reason) for batch in batches for row in batch.quarantined] == [(0, "empty_text")]
    assert (reader.records, reader.occurrences, reader.quarantined) == (3, 2, 1)


def test_steps_that_never_agree_come_to_an_end() -> None:
    normalization = Normalization(["nfc"])
    rounds: list[str] = []

    def turn(text: str) -> str:
        rounds.append(text)
        return text[::-1]

    normalization._functions = [turn]
    assert normalization.apply("ab") == "ab" and len(rounds) == MOST_ROUNDS
