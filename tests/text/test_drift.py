"""Schema drift: nulls and integers widen, everything else is a contradiction, and both shards are described."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.text.drift import FieldTypes, contradictions, described

KINDS = ["null", "boolean", "integer", "number", "string", "array", "object"]
types = st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from(KINDS), min_size=1), max_size=4)


def of(*records: dict[str, object]) -> FieldTypes:
    seen = FieldTypes()
    for record in records:
        seen.add(record)
    return seen


def test_every_json_type_is_told_apart() -> None:
    record = {"n": None, "b": True, "i": 1, "f": 1.5, "s": "x", "a": [1], "o": {"k": 1}}
    assert json.loads(of(record).to_json()) == {
        "n": ["null"],
        "b": ["boolean"],
        "i": ["integer"],
        "f": ["number"],
        "s": ["string"],
        "a": ["array"],
        "o": ["object"],
    }


def test_records_of_one_shape_with_other_values_add_nothing_and_other_shapes_do() -> None:
    seen = of({"a": 1}, {"a": 2}, {"a": None}, {"b": "x"})
    assert seen.types == {"a": {"integer", "null"}, "b": {"string"}}


@pytest.mark.parametrize(
    ("known", "new"),
    [
        ({"a": 1}, {"a": None}),
        ({"a": None}, {"a": "x"}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": 1}, {"b": "x"}),
        ({"a": [1]}, {"a": []}),
    ],
)
def test_nulls_integers_and_absent_fields_widen(known: dict[str, object], new: dict[str, object]) -> None:
    assert contradictions(of(known), of(new)) == []


@pytest.mark.parametrize(
    ("known", "new"),
    [({"a": 1}, {"a": "1"}), ({"a": [1]}, {"a": {"k": 1}}), ({"a": True}, {"a": 1}), ({"a": 1.5}, {"a": "x"})],
)
def test_another_type_is_a_contradiction_unless_the_field_is_set_apart(
    known: dict[str, object], new: dict[str, object]
) -> None:
    assert contradictions(of(known), of(new)) == ["a"]
    assert contradictions(of(known), of(new), apart=["a"]) == []


def test_a_field_that_a_source_mixes_itself_takes_any_part_of_the_mixture() -> None:
    mixed = of({"a": 1}, {"a": "x"})
    assert contradictions(mixed, of({"a": "y"})) == []
    assert contradictions(mixed, of({"a": [1]})) == ["a"]


@given(types, types)
def test_contradiction_does_not_depend_on_which_shard_came_first(
    a: dict[str, set[str]], b: dict[str, set[str]]
) -> None:
    assert contradictions(FieldTypes(a), FieldTypes(b)) == contradictions(FieldTypes(b), FieldTypes(a))


@given(types)
def test_json_brings_the_types_back(kinds: dict[str, set[str]]) -> None:
    assert FieldTypes.from_json(FieldTypes(kinds).to_json()).types == kinds


def test_fields_are_described_for_people() -> None:
    assert described(of({"a": 1}, {"a": None}), ["a", "b"]) == "a: integer or null, b: absent"


def test_a_name_that_utf8_cannot_hold_can_still_be_stored() -> None:
    assert "?" in of({"\ud800": 1}).to_json()
