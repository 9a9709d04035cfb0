"""One record of an evaluation set as question, answers and passage: which fields they are in, what is scaffolding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from winnow.text.records import MISSING, value_at

QUESTIONS = ("question", "prompt", "query", "problem", "instruction", "input", "sentence", "text")
"""Fields that the question is looked for in when none is named, in this order."""
ANSWERS = ("answer", "answers", "target", "answerKey", "solution")
PASSAGES = ("passage", "context", "support", "paragraph", "article", "story")
MOST_ANSWERS = 50

_LABEL = re.compile(r"\A\s*(?:question|problem|q)\s*:\s*", re.IGNORECASE)
_ASKING = re.compile(r"\s*\b(?:answer|a)\s*:\s*\Z", re.IGNORECASE)
_PASSAGE = re.compile(r"\A\s*(?:passage|context|article)\s*:\s*(.+?)\n\s*question\s*:\s*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Item:
    """What an evaluation item asks: its question, the answers that count as right, the passage it is about."""

    question: str
    answers: tuple[str, ...] = ()
    passage: str = ""

    @property
    def whole(self) -> str:
        """The item as one text."""
        return "\n".join(part for part in (self.passage, self.question, *self.answers[:1]) if part)


def item_from(text: str, record: Mapping[str, Any], answer_field: str = "", passage_field: str = "") -> Item:
    """Return the item of a record whose question is ``text`` and whose other fields are ``record``.

    Without a field's name the first of ``ANSWERS`` and of ``PASSAGES`` that the record has is taken; ``aliases`` are
    further answers. Labels (``Question:``, ``Answer:``) are no part of the text; ``Passage: ... Question: ...`` in one
    field is cut in two.
    """
    fields = dict(record)
    passage = _first(fields, (passage_field,) if passage_field else PASSAGES)
    passage = "\n".join(_texts(passage)) if passage is not MISSING else ""
    answers = list(_answers(_first(fields, (answer_field,) if answer_field else ANSWERS), fields))
    answers += _texts(fields.get("aliases"))
    inner = _PASSAGE.match(text)
    if inner and not passage:
        passage, text = inner[1], text[inner.end() :]
    question = _ASKING.sub("", _LABEL.sub("", text)).strip()
    unique = list(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    return Item(question, tuple(unique[:MOST_ANSWERS]), passage.strip())


def _first(fields: dict[str, Any], names: Iterable[str]) -> Any:
    for name in names:
        value = value_at(fields, name)
        if value is not MISSING and value is not None:
            return value
    return MISSING


def _answers(value: Any, fields: dict[str, Any]) -> list[str]:
    """Return the answer texts: of a number or a letter among choices, the choice that it names."""
    choices, labels = _choices(fields.get("choices", fields.get("options")))
    if not isinstance(value, bool) and isinstance(value, int | str) and str(value) in labels:
        return [choices[labels.index(str(value))]]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return [choices[value]]
    return _texts(value)


def _choices(given: Any) -> tuple[list[str], list[str]]:
    """Return the choices and their labels: those that are given, else A, B, C and so on.

    Known are a list of texts, a list of ``{"text", "label"}``, ``{"text": [...], "label": [...]}`` (ARC, OpenBookQA)
    and ``{"A": ..., "B": ...}``.
    """
    labels: Any = None
    if isinstance(given, dict):
        if isinstance(given.get("text"), list):
            given, labels = given["text"], given.get("label")
        else:
            given, labels = list(given.values()), list(given)
    elif isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        named = [one.get("label") for one in given]
        given, labels = [one.get("text") for one in given], named if None not in named else None
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        return [], []
    if not isinstance(labels, list) or len(labels) != len(given):
        return given, [chr(ord("A") + k) for k in range(len(given))]
    return given, [str(label) for label in labels]


def _texts(value: Any) -> list[str]:
    """Return the strings of a value: itself, those of a list, or those under ``text``, ``value`` and ``aliases``."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    if isinstance(value, dict):
        return [text for name in ("text", "value", "aliases") for text in _texts(value.get(name))]
    return []
