"""The fields of a shard's records and their JSON types, and whether two shards of a source contradict each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from winnow.identity import canonical_json

_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}
_SHAPES = 10_000
"""Shapes remembered: files of more kinds of records than that are looked at record by record."""

MOST_NAMES = 10_000
MOST_CHARACTERS = 2**20
"""What is noted of the names of fields, all together: where keys are data, there is no end of them."""

_OPEN = "open"
"""What stands in JSON among the types of the field of no name where not all fields are noted."""


class FieldTypes:
    """Top-level field -> set of JSON types, gathered from records.

    Records of one shape (the same names and Python types in the same order) are looked at once. After ``MOST_NAMES``
    names, or ``MOST_CHARACTERS`` in them, no new name is noted and ``open`` is true: there are more fields than these,
    which came first. So memory is bounded where keys are data.
    """

    def __init__(self, types: Mapping[str, Iterable[str]] | None = None) -> None:
        self.types: dict[str, set[str]] = {name: set(kinds) for name, kinds in (types or {}).items()}
        self.open = False
        self._characters = sum(map(len, self.types))
        self._shapes: set[int] = set()

    def add(self, record: Mapping[str, Any]) -> None:
        """Note the fields of one record as Python's ``json`` gives it."""
        shape = hash((*record, *map(type, record.values())))  # a shape itself may be of any size
        if shape in self._shapes:
            return
        if len(self._shapes) < _SHAPES:
            self._shapes.add(shape)
        for name, value in record.items():
            self.note(name, _TYPES.get(type(value), "string"))

    def note(self, name: str, kind: str) -> None:
        """Note that a field is of a JSON type."""
        kinds = self._of(name)
        if kinds is not None:
            kinds.add(kind)

    def _of(self, name: str) -> set[str] | None:
        """Return the types noted of a field, None of one that is not to be noted."""
        kinds = self.types.get(name)
        if kinds is not None or self.open:
            return kinds
        self._characters += len(name)
        if len(self.types) >= MOST_NAMES or self._characters > MOST_CHARACTERS:
            self.open = True
            return None
        return self.types.setdefault(name, set())

    def merge(self, other: FieldTypes) -> None:
        """Add what was noted of further records."""
        for name, new in other.types.items():
            kinds = self._of(name)
            if kinds is not None:
                kinds |= new
        self.open |= other.open

    def to_json(self) -> str:
        """Return canonical JSON: field -> sorted types; where there are more fields, ``""`` has the type ``open``."""
        types = self.types | ({"": {*self.types.get("", ()), _OPEN}} if self.open else {})
        return _storable(canonical_json({name: sorted(kinds) for name, kinds in types.items()}))

    @classmethod
    def from_json(cls, text: str | None) -> FieldTypes:
        types: dict[str, list[str]] = json.loads(text) if text else {}
        nameless = types.pop("", [])
        kinds = [kind for kind in nameless if kind != _OPEN]
        found = cls(types | ({"": kinds} if kinds else {}))
        found.open = _OPEN in nameless
        return found


def contradictions(known: FieldTypes, new: FieldTypes, apart: Iterable[str] = ()) -> list[str]:
    """Return the fields whose types in two shards cannot be one column, sorted; ``apart`` names fields to leave out.

    Null widens to every type and integers to numbers; a field that only one shard has is null in the other: only names
    that both have noted are compared. What a shard mixes itself is one type of its own: another shard may bring any
    part of it.
    """
    skip = set(apart)
    found = []
    for name in known.types.keys() & new.types.keys() - skip:
        a, b = _widened(known.types[name]), _widened(new.types[name])
        if a and b and not (a <= b or b <= a):
            found.append(name)
    return sorted(found)


def _widened(kinds: set[str]) -> set[str]:
    return {"number" if kind == "integer" else kind for kind in kinds} - {"null"}


def described(types: FieldTypes, names: Iterable[str]) -> str:
    """Return the types of some fields for people: ``score: string, tags: array or null``.

    A field that is not noted is ``absent``; where there are more fields than are noted, it is ``not noted``, and
    ``further fields`` end the list.
    """
    missing = {"not noted" if types.open else "absent"}
    told = [f"{name}: {' or '.join(sorted(types.types.get(name, missing)))}" for name in names]
    return ", ".join([*told, "further fields"] if types.open else told)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
