"""The tables' dictionary says what the schema and a real published store say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store.dictionary import SCORES_WIDE, STAGES, render
from winnow.store.published import open_published
from winnow.store.schema import tables
from winnow.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def documented() -> dict[str, list[tuple[str, str]]]:
    """Return table -> (column, type) as the page lists them."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in render().splitlines():
        if heading := re.fullmatch(r"### `(\w+)`", line):
            name = heading[1]
            found[name] = []
        elif row := re.match(r"\| `([^`]+)` \| ([A-Z\[\]]+) \| .+ \|$", line):
            found[name].append((row[1], row[2]))
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """Return table or view -> (column, type) of an empty store's published file."""
    home = Home(tmp_path_factory.mktemp("home"))
    store = Store(home, StoreSettings())
    with store.write():
        pass
    store.publish()
    with open_published(home) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " ORDER BY table_name, ordinal_position"
        ).fetchall()
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in rows:
        found.setdefault(table, []).append((column, kind))
    return found


def test_the_committed_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m winnow.store.dictionary > docs/tables.md"


def test_every_published_table_is_documented_with_its_columns_and_types(
    published: dict[str, list[tuple[str, str]]],
) -> None:
    assert documented() == published


def test_every_public_table_of_the_schema_is_documented_and_no_internal_one() -> None:
    page = documented()
    for table in tables().values():
        if table.internal:
            assert table.name not in page
        else:
            assert page[table.name] == [(name, kind) for name, kind, _ in table.columns]


def test_scores_wide_is_documented_as_it_is_published(published: dict[str, list[tuple[str, str]]]) -> None:
    assert [(name, kind) for name, kind, _ in SCORES_WIDE] == published["scores_wide"]


def test_every_stage_of_the_schema_has_its_section_and_its_page() -> None:
    assert {table.stage for table in tables().values()} == set(STAGES)
    for page in STAGES.values():
        assert (PAGE.parent / page).is_file()


def test_keys_name_columns_of_their_table() -> None:
    for table in tables().values():
        assert set(table.key) <= {name for name, _, _ in table.columns}, table.name
