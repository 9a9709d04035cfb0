"""docs/configuration.md names every section and key of winnow.toml with its default and what is allowed."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from winnow.config import LOCATIONS, Config, Location, Source
from winnow.quality.gopher import GopherThresholds

PAGE = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
NESTED: dict[str, type[BaseModel]] = {"[corpus.locations]": Location, "corpus.sources.NAME": Source}
SIGNS = ((annotated_types.Gt, ">", "gt"), (annotated_types.Ge, ">=", "ge"), (annotated_types.Lt, "<", "lt"),
         (annotated_types.Le, "<=", "le"))  # fmt: skip
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def tables_of_the_page() -> dict[str, list[list[str]]]:
    """Return heading -> rows of its table, cells stripped."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in PAGE.splitlines():
        if title := re.fullmatch(r"## (?:`\[(.+)\]`|(.+))", line):
            heading = title[1] or title[2]
        elif line.startswith("| `"):
            found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def sections() -> dict[str, type[BaseModel]]:
    """Return every section of winnow.toml by its heading."""
    own = {name: field.annotation for name, field in Config.model_fields.items()}
    return {**{name: kind for name, kind in own.items() if isinstance(kind, type)}, **NESTED}


def allowed(field: FieldInfo) -> str | None:
    """Return what the model says is allowed, in the page's words; None for lists and tables."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for kind, sign, name in SIGNS
        for rule in field.metadata
        if isinstance(rule, kind)
    ]
    if bounds:
        return ", ".join(bounds)
    if any(isinstance(rule, annotated_types.MinLen) for rule in field.metadata):
        return "text, not empty"
    return KINDS.get(field.annotation) if isinstance(field.annotation, type) else None


def plain(value: Any) -> Any:
    """Return a default as TOML reads it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def test_the_page_has_every_section_and_no_other() -> None:
    assert set(tables_of_the_page()) == {*sections(), "Gopher's thresholds"}


@pytest.mark.parametrize("section", sections())
def test_every_key_of_a_section_is_there_in_order_with_its_default(section: str) -> None:
    rows, model = tables_of_the_page()[section], sections()[section]
    assert [row[0].strip("`") for row in rows] == list(model.model_fields)
    for name, default, *_ in rows:
        said = tomllib.loads(f"value = {default.strip('`')}")["value"]
        field = model.model_fields[name.strip("`")]
        assert said == plain(field.get_default(call_default_factory=True)), f"{section}.{name}"


@pytest.mark.parametrize("section", sections())
def test_what_is_allowed_is_what_the_model_checks(section: str) -> None:
    for name, _, said, meaning in tables_of_the_page()[section]:
        expected = allowed(sections()[section].model_fields[name.strip("`")])
        assert expected in (None, said), f"{section}.{name}"
        assert meaning


def test_gophers_thresholds_are_all_there_with_the_papers_values() -> None:
    rows = tables_of_the_page()["Gopher's thresholds"]
    defaults = {field.name: plain(field.default) for field in fields(GopherThresholds)}
    assert {row[0].strip("`"): tomllib.loads(f"value = {row[1].strip('`')}")["value"] for row in rows} == defaults
    assert [row[0].strip("`") for row in rows] == list(defaults)


def test_the_rules_columns_are_named_beside_their_thresholds() -> None:
    columns = dict.fromkeys(column for column, _, _ in GopherThresholds().rules())
    named = dict.fromkeys(
        name for row in tables_of_the_page()["Gopher's thresholds"] for name in re.findall(r"`(\w+)`", row[2])
    )
    assert set(named) <= set(columns)
    spanned = {column for column in columns if re.search(r"_\d+gram_", column)}
    assert set(columns) - spanned <= set(named)


def test_the_locations_that_enter_no_digest_are_named() -> None:
    for section, keys in LOCATIONS.items():
        for key in keys:
            assert f"`{section}.{key}`" in PAGE
