"""The base world of the tests that need a finished run; it is made once, and nobody changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from worlds import Finished, World, finished_world

LONGEST_FIRST = ("tests/faults/", "tests/assets/", "tests/stages/", "tests/sensors/", "tests/store/", "tests/cli/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    places = {folder: place for place, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: next((at for folder, at in places.items() if folder in item.nodeid), len(places)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A world after ingest, curate and train, with what those runs reported."""
    return finished_world(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def copy_of_base(finished: Finished, tmp_path: Path) -> Callable[[str], World]:
    """Make worlds of one's own that start where the base world stands."""
    return lambda name: finished.world.copy(tmp_path / name)
