"""What counts as repeated, by which rule, and the version under which it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.config import Spans

METHOD_VERSION = "2"
KINDS = {"lines": "line", "paragraphs": "paragraph", "substrings": "substring"}
"""The names of the kinds in the settings, and in a row."""


@dataclass(frozen=True)
class SpanPlan:
    """Which kinds are looked for and which copies are recorded.

    ``every_copy``: all copies of a repeated unit (CCNet for lines; Lee et al. 2022 for substrings), else all but the
    first in the corpus. ``length``: bytes (or, with ``words``, words) of a window; ``min_characters``: least normalised
    characters of a line or paragraph that counts. Raises ``UserError`` for what cannot be.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    every_copy: bool = False
    words: bool = False
    length: int = 100
    min_characters: int = 20

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise UserError(f"spans.kinds has {min(unknown)!r}; there are {', '.join(KINDS)}")
        if self.length < 5:
            raise UserError(f"a repeated substring of {self.length} is too short to mean anything; 5 is the least")
        if self.min_characters < 1:
            raise UserError(f"min_characters is {self.min_characters}; a line that counts has at least 1")

    @property
    def gram(self) -> int:
        """Symbols of a k-gram; with ``width`` of them, a window has exactly ``length`` symbols."""
        return max(3, self.length * 5 // 8)

    @property
    def width(self) -> int:
        """K-grams of a window."""
        return self.length - self.gram + 1

    @property
    def version(self) -> str:
        """All that decides which spans are found, besides the texts and their order."""
        return "/".join(
            (
                METHOD_VERSION,
                "+".join(kind for kind in KINDS if kind in self.kinds),
                "every_copy" if self.every_copy else "keep_one",
                f"{'words' if self.words else 'bytes'}{self.length}",
                f"least{self.min_characters}",
            )
        )


def make_span_plan(settings: Spans) -> SpanPlan:
    """Return the plan of the section ``[spans]``."""
    words = settings.unit == "words"
    return SpanPlan(
        tuple(kind for kind in KINDS if kind in settings.kinds),
        settings.rule == "every_copy",
        words,
        settings.min_words if words else settings.min_bytes,
        settings.min_characters,
    )
