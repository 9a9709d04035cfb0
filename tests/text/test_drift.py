"""Schema drift: nulls and integers widen, everything else is a contradiction, and both shards are described."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.text.drift import MOST_CHARACTERS, MOST_NAMES, FieldTypes, contradictions, described

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


def test_names_without_end_are_noted_up_to_a_bound_and_the_fields_are_open() -> None:
    seen = FieldTypes()
    for number in range(MOST_NAMES + 5000):
        seen.add({"text": "a", f"key {number}": number})
    assert seen.open and len(seen.types) == MOST_NAMES and seen.types["text"] == {"string"}
    seen.add({"text": None, "another": 1})
    assert seen.types["text"] == {"string", "null"} and "another" not in seen.types
    back = FieldTypes.from_json(seen.to_json())
    assert back.open and back.types == seen.types
    assert described(back, ["text", "another"]) == "text: null or string, another: not noted, further fields"


def test_long_names_and_wide_records_are_bounded_too() -> None:
    tracemalloc.start()
    seen = FieldTypes()
    for number in range(200):
        seen.add({f"{number} {'x' * 100_000}": 1})
    for number in range(1000):
        seen.add(dict.fromkeys([*map(str, range(1000)), f"n{number}"], 1))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert seen.open and sum(map(len, seen.types)) <= MOST_CHARACTERS
    assert held < 5_000_000


def test_open_fields_contradict_only_in_names_that_both_know() -> None:
    seen = of({"text": "a", "score": 1})
    for number in range(MOST_NAMES):
        seen.note(f"key {number}", "integer")
    assert seen.open
    assert contradictions(seen, of({"text": "a", "never noted": []})) == []
    assert contradictions(seen, of({"score": "high"})) == ["score"]


def test_merging_keeps_to_the_bound_and_an_open_part_makes_an_open_whole() -> None:
    first, second, whole = FieldTypes(), FieldTypes(), FieldTypes()
    for number in range(9000):
        for part in (first, whole):
            part.note(f"a{number}", "string")
    for number in range(9000):
        for part in (second, whole):
            part.note(f"b{number}", "string")
    first.merge(second)
    assert first.open and first.types == whole.types and not second.open
    few = of({"a": 1})
    few.merge(first)
    assert few.open and len(few.types) == MOST_NAMES


def test_the_field_of_no_name_is_told_from_the_mark_of_open_fields() -> None:
    seen = of({"": 1})
    assert FieldTypes.from_json(seen.to_json()).types == {"": {"integer"}}
    seen.open = True
    back = FieldTypes.from_json(seen.to_json())
    assert back.open and back.types == {"": {"integer"}}
    assert FieldTypes.from_json(None).types == {} and not FieldTypes.from_json(None).open
