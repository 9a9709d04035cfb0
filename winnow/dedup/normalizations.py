"""Normalisations of text before it is cut into shingles, named after whom they follow.

Each maps a text to words, in Unicode, and is defined twice: :func:`words` is the definition in plain Python,
:func:`rules` the tables of the compiled loops, which give the same (a text whose result depends on more than its
single characters is left to :func:`words`).

- ``datasketch-words``: ``re.findall(r"\\w+", text.lower())``, the usual shingling in front of datasketch.
- ``datatrove``: ``simplify_text`` of datatrove with its defaults (FineWeb): lower case, numbers with at most one
  decimal part become 0, its list of punctuation becomes spaces, canonical decomposition, marks (Mn) dropped; then
  words end at whitespace, where datatrove runs a language's tokeniser. Its English one (spaCy 3.8) agrees on 99.8% of
  the words of Wikipedia and 99.6% of those of web text; it also cuts units off numbers (0km), contractions and a few
  symbols.
- ``rpv2``: RedPajama-V2's ``normalize``: ASCII punctuation deleted, lower case, split at whitespace, canonical
  decomposition with marks kept.
- ``dolma``: ``clean_text`` of AI2's duplodocus (Dolma 3), after SlimPajama: lower case, ASCII punctuation deleted,
  split at whitespace (Unicode's White_Space). Its sample configuration then takes 5-grams of a tokeniser's tokens;
  the unit ``tokens`` stands in for those.

Letters, digits and marks are those of the running Python (``unicodedata.unidata_version``); interpreters of different
Unicode versions can differ on recently added scripts only.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from winnow.errors import UserError

NORMALIZATIONS = ("datasketch-words", "datatrove", "rpv2", "dolma")
UNITS = ("words", "characters", "tokens")

# Values of the tables, as winnow.dedup._text_kernels reads them.
SEPARATOR, DELETED, DIGIT, EXPANDED = 0, -1, -2, -16
MARK, SPECIAL, TRANSPARENT = 0x100, 0x200, 0x400

ASCII_PUNCTUATION = frozenset(string.punctuation)
# datatrove's list: ASCII and some wide punctuation, the commonest quotes and dashes, and controls but tab and newline.
DATATROVE_PUNCTUATION = frozenset(
    [
        *string.punctuation,
        *map(chr, (*range(9), *range(11, 32), *range(127, 160))),
        *"«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～",
    ]
)

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,\u060c\u066b\u2396\u2397\u2398]\d+)?")
_WHITE_SPACE = re.compile(r"[^\S\x1c-\x1f]+")
_TOKEN_LETTER, _TOKEN_NUMBER = 1, 2


def words(text: str, normalization: str) -> list[str]:
    """Return the normalised words of a text: the definition. Raises ``UserError`` for an unknown normalisation."""
    if normalization == "datasketch-words":
        return _WORD.findall(text.lower())
    if normalization == "datatrove":
        simple = _NUMBER.sub("0", text.lower()).translate(dict.fromkeys(map(ord, DATATROVE_PUNCTUATION), " "))
        plain = (c for c in unicodedata.normalize("NFD", simple) if unicodedata.category(c) != "Mn")
        return "".join(plain).split()
    if normalization == "rpv2":
        bare = text.translate(dict.fromkeys(map(ord, ASCII_PUNCTUATION))).lower()
        return unicodedata.normalize("NFD", bare).split()
    if normalization == "dolma":
        bare = text.lower().translate(dict.fromkeys(map(ord, ASCII_PUNCTUATION)))
        return [word for word in _WHITE_SPACE.split(bare) if word]
    raise UserError(f"the normalization is {normalization!r}; expected one of {', '.join(NORMALIZATIONS)}")


def units(text: str, normalization: str, unit: str) -> list[str]:
    """Return the units of which shingles are made: the definition.

    ``words``: the normalised words. ``characters``: the code points of the words joined by one space. ``tokens``: in
    each word the runs of letters and marks, the runs of numbers, and every other character by itself (the categories
    L and M, N, and the rest), much as GPT-2 cuts text before it looks up its vocabulary.
    """
    found = words(text, normalization)
    if unit == "words":
        return found
    if unit == "characters":
        return list(" ".join(found))
    if unit == "tokens":
        return [token for word in found for token in _tokens(word)]
    raise UserError(f"the shingle unit is {unit!r}; expected one of {', '.join(UNITS)}")


def _tokens(word: str) -> list[str]:
    out: list[str] = []
    before = 0
    for character in word:
        kind = _token_class(character)
        if kind and kind == before:
            out[-1] += character
        else:
            out.append(character)
        before = kind
    return out


def _token_class(character: str) -> int:
    return {"L": _TOKEN_LETTER, "M": _TOKEN_LETTER, "N": _TOKEN_NUMBER}.get(unicodedata.category(character)[0], 0)


@dataclass(frozen=True, eq=False)
class Rules:
    """The tables of one normalisation and unit for the compiled loops (``winnow.dedup._unit_kernels``)."""

    table: np.ndarray
    expansions: np.ndarray
    flags: np.ndarray
    classes: np.ndarray
    unit: int
    ascii_words: bool

    @property
    def marks(self) -> bool:
        """Whether more than 'İ' and 'Σ' is flagged: the decomposing normalisations look at combining marks."""
        return bool(np.count_nonzero(self.flags) > 2)

    @property
    def compiled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, bool]:
        """What the kernels take."""
        return self.table, self.expansions, self.classes, self.unit, self.ascii_words


@lru_cache(maxsize=16)
def rules(normalization: str, unit: str) -> Rules:
    """Return the tables that give the units of :func:`units`. Raises ``UserError`` for unknown names."""
    units("", normalization, unit)
    table, expansions, flags = _tables(normalization)
    classes = _token_classes() if unit == "tokens" else np.zeros(1, np.uint8)
    return Rules(table, expansions, flags, classes, UNITS.index(unit), normalization == "datasketch-words")


@lru_cache(maxsize=4)
def _tables(normalization: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``table`` int32, ``expansions`` uint8 ``[E, 16]`` and ``flags`` uint16 of a normalisation."""
    lower = _lower()
    flags = np.zeros(0x110000, np.uint16)
    # Σ is lowered by what stands around it, İ becomes two characters.
    flags[[ord("Σ"), ord("İ")]] = SPECIAL
    expansions: list[bytes] = []
    if normalization == "datasketch-words":
        return np.where(_matches(_WORD, lower), lower, SEPARATOR).astype(np.int32), np.zeros((1, 16), np.uint8), flags
    if normalization == "dolma":
        table = np.where(_matches(_WHITE_SPACE, lower), SEPARATOR, lower).astype(np.int32)
        table[[ord(c) for c in ASCII_PUNCTUATION]] = DELETED
        table[0] = EXPANDED  # U+0000 is kept, and 0 means a separator
        return table, _rows([b"\0"]), flags
    table = np.where(_matches(re.compile(r"\s"), lower), SEPARATOR, lower).astype(np.int32)
    if normalization == "rpv2":
        table[0] = EXPANDED
        expansions.append(b"\0")
    for code in (*range(0xC0, 0xD800), *range(0xE000, 0x30000), *range(0xE0000, 0xE1000)):  # the rest has no marks
        character = chr(int(lower[code]))
        if flags[code] or table[code] == SEPARATOR:
            continue
        parts = unicodedata.normalize("NFD", character)
        if normalization == "datatrove":
            if unicodedata.category(character) == "Nd":
                table[code] = DIGIT
                continue
            kept = "".join(part for part in parts if unicodedata.category(part) != "Mn")
            if any(map(unicodedata.combining, kept)):
                flags[code] = SPECIAL
        else:
            kept = parts
            first, last = unicodedata.combining(parts[0]), unicodedata.combining(parts[-1])
            flags[code] = last | (MARK if first else 0) | (SPECIAL if first and len(parts) > 1 else 0)
        if kept != character:
            table[code] = DELETED if not kept else ord(kept) if len(kept) == 1 else EXPANDED - len(expansions)
            if len(kept) > 1:
                expansions.append(kept.encode())
    if normalization == "datatrove":
        table[ord("0") : ord("9") + 1] = DIGIT
        table[[ord(c) for c in DATATROVE_PUNCTUATION if not c.isdecimal()]] = SEPARATOR
    else:
        punctuation = [ord(c) for c in ASCII_PUNCTUATION]
        table[punctuation] = DELETED
        flags[punctuation] = TRANSPARENT
    return table, _rows(expansions), flags


def _rows(expansions: list[bytes]) -> np.ndarray:
    out = np.zeros((max(1, len(expansions)), 16), np.uint8)
    for row, raw in zip(out, expansions, strict=False):
        row[0] = len(raw)
        row[1 : 1 + len(raw)] = list(raw)
    return out


@lru_cache(maxsize=1)
def _lower() -> np.ndarray:
    """Return the lower case of every code point, int32; Σ and İ stand for themselves."""
    every = "".join(map(chr, range(0x110000))).replace("İ", " ").replace("Σ", " ").lower()
    lower = np.frombuffer(every.encode("utf-32-le", "surrogatepass"), np.int32).copy()
    lower[[ord("Σ"), ord("İ")]] = [ord("Σ"), ord("İ")]
    return lower


def _matches(pattern: re.Pattern[str], codes: np.ndarray) -> np.ndarray:
    """Return which of the code points a pattern matches, one by one."""
    text = codes.astype("<i4").tobytes().decode("utf-32-le", "surrogatepass")
    out = np.zeros(len(codes), np.bool_)
    for match in pattern.finditer(text):
        out[match.start() : match.end()] = True
    return out


@lru_cache(maxsize=1)
def _token_classes() -> np.ndarray:
    categories = "".join(category[0] for category in map(unicodedata.category, map(chr, range(0x110000))))
    initial = np.frombuffer(categories.encode(), np.uint8)
    letters = (initial == ord("L")) | (initial == ord("M"))
    return np.where(letters, _TOKEN_LETTER, np.where(initial == ord("N"), _TOKEN_NUMBER, 0)).astype(np.uint8)
