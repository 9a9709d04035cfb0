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


class FieldTypes:
    """Top-level field -> set of JSON types, gathered from records.

    Records of one shape (the same names and Python types in the same order) are looked at once.
    """

    def __init__(self, types: Mapping[str, Iterable[str]] | None = None) -> None:
        self.types: dict[str, set[str]] = {name: set(kinds) for name, kinds in (types or {}).items()}
        self._shapes: set[tuple[Any, ...]] = set()

    def add(self, record: Mapping[str, Any]) -> None:
        """Note the fields of one record as Python's ``json`` gives it."""
        shape = (*record, *map(type, record.values()))
        if shape in self._shapes:
            return
        if len(self._shapes) < _SHAPES:
            self._shapes.add(shape)
        for name, value in record.items():
            self.note(name, _TYPES.get(type(value), "string"))

    def note(self, name: str, kind: str) -> None:
        """Note that a field is of a JSON type."""
        self.types.setdefault(name, set()).add(kind)

    def merge(self, other: FieldTypes) -> None:
        for name, kinds in other.types.items():
            self.types.setdefault(name, set()).update(kinds)

    def to_json(self) -> str:
        """Return canonical JSON: field -> sorted types."""
        return _storable(canonical_json({name: sorted(kinds) for name, kinds in self.types.items()}))

    @classmethod
    def from_json(cls, text: str | None) -> FieldTypes:
        return cls(json.loads(text) if text else {})


def contradictions(known: FieldTypes, new: FieldTypes, apart: Iterable[str] = ()) -> list[str]:
    """Return the fields whose types in two shards cannot be one column, sorted; ``apart`` names fields to leave out.

    Null widens to every type and integers to numbers; a field that only one shard has is null in the other. What a
    shard mixes itself is one type of its own: another shard may bring any part of it.
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
    """Return the types of some fields for people: ``score: string, tags: array or null``."""
    return ", ".join(f"{name}: {' or '.join(sorted(types.types.get(name, {'absent'})))}" for name in names)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
