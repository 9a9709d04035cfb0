"""The base world of the tests that need a finished run, made once, and the order in which the files are tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from worlds import Finished, World

WITH_BASE = (
    "tests/assets/test_costs_of_change.py",
    "tests/assets/test_duplicate_checks.py",
    "tests/assets/test_main_job.py",
    "tests/cli/test_attribution_validate.py",
    "tests/cli/test_reading_commands.py",
    "tests/cli/test_run.py",
    "tests/sensors/test_checkpoint_folders.py",
    "tests/sensors/test_curation.py",
    "tests/stages/test_checkpoints.py",
)
"""Files of which tests use the base world: one worker takes them all, so that only one makes it."""
LONGEST_FIRST = (
    *WITH_BASE,
    "tests/store/test_garbage.py",
    "tests/store/test_backup.py",
    "tests/store/test_migrations.py",
    "tests/faults/",  # after those: a fresh clone's kernels are compiled by the base world meanwhile, not twice
    "tests/stages/",
    "tests/store/",
    "tests/contamination/",
    "tests/attribution/",
    "tests/cli/",
    "tests/dedup/",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    places = {start: place for place, start in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: next((at for start, at in places.items() if item.nodeid.startswith(start)), len(places))
    )
    using = {item.nodeid.partition("::")[0] for item in items if "finished" in getattr(item, "fixturenames", ())}
    if missing := using - set(WITH_BASE):
        raise pytest.UsageError(f"{sorted(missing)} use the base world: name them in WITH_BASE of {__file__}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker a file at a time, and the files that use the base world as one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "base world" if file in WITH_BASE else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A world after ingest, curate and train, with what those runs reported."""
    from worlds import finished_world

    return finished_world(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def copy_of_base(finished: Finished, tmp_path: Path) -> Callable[[str], World]:
    """Make worlds of one's own that start where the base world stands."""
    return lambda name: finished.world.copy(tmp_path / name)
