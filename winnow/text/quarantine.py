"""Why a record is no document: reasons for machines, details and excerpts for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EXCERPT_LENGTH = 200
DETAIL_LENGTH = 500

Reason = Literal[
    "broken_payload",
    "broken_record",
    "decompression_bomb",
    "digest_mismatch",
    "duplicate_attributes",
    "empty_text",
    "file_failed",
    "http_error",
    "invalid_attributes",
    "invalid_csv",
    "invalid_json",
    "invalid_utf8",
    "lone_surrogate",
    "missing_text",
    "no_main_text",
    "not_an_object",
    "not_text",
    "nul_byte",
    "record_too_large",
    "text_not_string",
    "truncated_stream",
    "unreadable_file",
    "withdrawn",
]

EXPECTED: frozenset[Reason] = frozenset(("http_error", "no_main_text", "not_text"))
"""Reasons that every sound crawl has: such records are counted as quarantined, but never make a file fail."""


@dataclass(frozen=True)
class Quarantined:
    """A record, or the unreadable rest of a file, that is no document.

    ``row`` is the 0-based position of the (first) record where it is known; ``offset`` its first byte in the
    decompressed stream (JSON Lines and text files). ``detail`` is for people and names the mend; ``excerpt`` is at
    most 200 printable characters. ``records`` is how many records the row stands for.
    """

    row: int | None
    offset: int | None
    reason: Reason
    detail: str
    excerpt: str
    records: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", printable(self.detail, DETAIL_LENGTH))
        object.__setattr__(self, "excerpt", printable(self.excerpt, EXCERPT_LENGTH))


class BadRecordError(Exception):
    """A record is no document: machine reason, detail for people, and where in the record to take the excerpt."""

    def __init__(self, reason: Reason, detail: str, position: int = 0) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.position = position


class FileFailedError(Exception):
    """A whole file is no corpus file; carries the one quarantine row that stands for it (for its unread rest)."""

    def __init__(self, quarantined: Quarantined) -> None:
        super().__init__(quarantined.detail)
        self.quarantined = quarantined


def printable(text: str, length: int) -> str:
    """Return at most ``length`` characters, white space as a space and whatever else cannot be printed as U+FFFD."""
    if len(text) > length:
        text = text[: length - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def excerpt(data: bytes, position: int = 0) -> str:
    """Return readable text of a record's bytes around ``position``."""
    start = max(0, position - EXCERPT_LENGTH // 2)
    return data[start : start + 4 * EXCERPT_LENGTH].decode(errors="replace")


def kind_of(value: object) -> str:
    """Name a JSON value's kind with its article."""
    if value is None:
        return "null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def missing_text_detail(name: str, present: list[str]) -> str:
    """Say that the text field is missing, which fields there are, and the mend."""
    fields = ", ".join(present[:20]) + (", ..." if len(present) > 20 else "")
    return f"field {name!r} is missing (set text_field=...); fields present: {fields or 'none'}"


def too_large_detail(limit: int, size: int | None = None) -> str:
    """Say that a record is over the limit, and the mend."""
    length = f"has {size:,} bytes, more than" if size else "is longer than"
    return f"the record {length} {limit:,} bytes; split it, or raise max_record_bytes"
