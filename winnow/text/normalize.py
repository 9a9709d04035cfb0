"""Normalization of text on arrival: an explicit, versioned choice; by default nothing is done.

A step is a function from text to text with a version. The steps asked for are done in the order of ``STEPS``, and again
until the text stays the same (one step may uncover work for an earlier one), so normalizing twice changes nothing. A
step never changes what its docstring does not name: quotes, ligatures, width, case and HTML entities stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from winnow.errors import UserError

# ftfy copies what is left of a segment at each odd sequence: bounded segments keep that linear.
SEGMENT = 2**14
MOST_ROUNDS = 100
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
_C0 = bytes((*range(0x09), *range(0x0E, 0x20), 0x7F))
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")


def repair_mojibake(text: str) -> str:
    """Return the text with UTF-8 that was decoded as another encoding (``schÃ¶n``) as it was meant.

    This is ftfy's ``fix_encoding`` on each line. On: ``restore_byte_a0`` (a space that was a no-break space, inside a
    broken character only), ``decode_inconsistent_utf8`` (a broken part in a sound line), ``fix_c1_controls`` (C1
    controls as Windows-1252, in lines that look broken only). Off: ``replace_lossy_sequences``, which puts U+FFFD for
    what cannot be repaired, and all of ftfy's other fixes (quotes, ligatures, width, entities, line breaks, terminal
    escapes, controls, NFC). A repair that would give a NUL or half a surrogate pair is not done.
    """
    if text.isascii():
        return text
    return "\n".join([line if line.isascii() else _repair_line(line) for line in text.split("\n")])


def repair_line_ends(text: str) -> str:
    r"""Return the text with ``\n`` for CR LF, CR, NEL (U+0085), LINE and PARAGRAPH SEPARATOR (U+2028, U+2029).

    Vertical tabs and form feeds stay, and so does white space before a line's end.
    """
    if not any(end in text for end in "\r\x85\u2028\u2029"):
        return text
    return _LINE_ENDS.sub("\n", text)


def remove_control_characters(text: str) -> str:
    r"""Return the text without C0 and C1 controls that are not white space, without DEL and without U+FEFF.

    Removed: U+0000-0008, U+000E-001F, U+007F-0084, U+0086-009F, and the byte order mark U+FEFF wherever it is. White
    space that separates words or lines stays: tab, ``\n``, vertical tab, form feed, ``\r``, NEL (U+0085). So do
    joiners (U+200C, U+200D), marks of direction and soft hyphens, which scripts need.
    """
    if text.isascii():
        raw = text.encode()
        kept = raw.translate(None, _C0)
        return text if len(kept) == len(raw) else kept.decode()
    return _CONTROLS.sub("", text)


def compose(text: str) -> str:
    """Return the text in Normalization Form C (Unicode Standard Annex 15)."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


class Step(NamedTuple):
    """A function from text to text, its version, and the library that its results depend on."""

    function: Callable[[str], str]
    version: int
    depends_on: Callable[[], str] = str


def _ftfy() -> str:
    return "ftfy" + ".".join(version("ftfy").split(".")[:2])


STEPS = {
    "mojibake": Step(repair_mojibake, 1, _ftfy),
    "line_ends": Step(repair_line_ends, 1),
    "control_characters": Step(remove_control_characters, 1),
    "nfc": Step(compose, 1, lambda: f"unicode{unicodedata.unidata_version}"),
}


class Normalization:
    """The steps done to each text, in the order of ``STEPS`` whatever the order here; false when there is none.

    Raises ``UserError`` for a step that does not exist.
    """

    def __init__(self, steps: Sequence[str] = ()) -> None:
        if unknown := sorted(set(steps) - STEPS.keys()):
            raise UserError(f"there is no normalization '{unknown[0]}'; there is: {', '.join(STEPS)}")
        self.steps = tuple(name for name in STEPS if name in steps)
        self._functions = [STEPS[name].function for name in self.steps]

    @property
    def name(self) -> str:
        """What is recorded with a shard: ``none``, or the steps with version and library (``mojibake1-ftfy6.3+nfc1``).

        The same name means the same results: ftfy's heuristics change with its releases, NFC with Python's Unicode.
        """
        return "+".join(map(_described, self.steps)) or "none"

    def __bool__(self) -> bool:
        return bool(self.steps)

    def apply(self, text: str) -> str:
        """Return the text after all steps; ``apply(apply(text)) == apply(text)``.

        Each round with a change decodes mojibake into fewer or non-Latin characters, so a few are enough. A text that
        still changes after ``MOST_ROUNDS`` is returned as it is then.
        """
        for _ in range(MOST_ROUNDS):
            before = text
            for function in self._functions:
                text = function(text)
            if text == before:
                break
        return text


def _described(name: str) -> str:
    step = STEPS[name]
    return "-".join(filter(None, (f"{name}{step.version}", step.depends_on())))


@cache
def _fixer() -> tuple[Callable[[str], object], Callable[..., str], Any]:
    """Return a quick test that every line with a repair passes, ftfy's function and its configuration.

    Each repair decodes a lead byte with the byte after it, or a C1 control: the test looks for two characters that
    could be those bytes in one of the single-byte encodings that ftfy knows. ftfy's own test is ten times slower.
    """
    import ftfy
    from ftfy import chardata

    def characters(*values: int) -> str:
        found = {bytes((value,)).decode(encoding) for value in values for encoding in chardata.CHARMAP_ENCODINGS}
        return "".join(map(re.escape, sorted(found)))

    lead, after = characters(0xC0, *range(0xC2, 0xF5)), characters(*range(0x80, 0xC0))
    before_space = characters(0xC2, 0xC3, 0xC5, 0xCE, 0xD0, 0xD9, 0xE2, 0xE3, 0xF0)
    suspect = re.compile(f"[{lead}][{after}]|[{before_space}] |[\x80-\x9f]")
    config = ftfy.TextFixerConfig(
        fix_encoding=True,
        restore_byte_a0=True,
        replace_lossy_sequences=False,
        decode_inconsistent_utf8=True,
        fix_c1_controls=True,
        explain=False,
    )
    return suspect.search, ftfy.fix_encoding, config


def _repair_line(line: str) -> str:
    if len(line) > SEGMENT:
        return "".join(map(_repair_line, _segments(line)))
    suspect, fix, config = _fixer()
    if not suspect(line):
        return line
    fixed = fix(line, config)
    return line if fixed == line or "\0" in fixed or not _storable(fixed) else fixed


def _segments(line: str) -> list[str]:
    """Cut a long line, after a space where there is one."""
    segments, start = [], 0
    while start < len(line):
        end = start + SEGMENT
        if end < len(line):
            end = line.rfind(" ", start, end) + 1 or end
        segments.append(line[start:end])
        start = end
    return segments


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
