"""A check of the duplicates that fails stops what selects from them, in its run and in every later one."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest
from worlds import World, metadata_by_asset

import definitions
from winnow.cli import main

FROM_THE_POOL = {"tokenizer", "checkpoints", "clusters", "probes", "scores", "bandit_rounds", "decisions", "manifests"}


@pytest.fixture
def world(copy_of_base: Callable[[str], World], monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with near duplicates and a limit that every group of them passes."""
    world = copy_of_base("alarming")
    monkeypatch.setenv("WINNOW_HOME", str(world.home.root))
    limit_groups(world, 1)
    return world


def limit_groups(world: World, most: int) -> None:
    settings = world.config.duplicates.model_copy(update={"alarm_group": most})
    world.configure(world.config.model_copy(update={"duplicates": settings}))


def curate(world: World, *assets: str) -> dg.ExecuteInProcessResult:
    """Materialize some assets of the main job, as the UI does."""
    world.instance.add_dynamic_partitions("checkpoints", [world.checkpoint])
    return definitions.defs.resolve_job_def("curate").execute_in_process(
        instance=world.instance,
        partition_key=world.checkpoint,
        asset_selection=[dg.AssetKey(name) for name in assets],
        raise_on_error=False,
    )


def evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "duplicates_within_reason"]
    return found


def test_a_failed_check_stops_its_run_and_later_ones_until_the_limit_is_raised(world: World) -> None:
    stopped = world.curate(raise_on_error=False)
    assert not stopped.success and not FROM_THE_POOL & set(metadata_by_asset(stopped))
    found = evaluation(stopped)
    assert not found.passed and found.blocking and found.severity == dg.AssetCheckSeverity.ERROR
    assert "raise duplicates.alarm_group" in (found.description or "") and "largest groups" in found.metadata

    later = curate(world, "probes")
    (failure,) = [event for event in later.all_events if event.is_step_failure]
    told = failure.step_failure_data.error
    assert told is not None and "raise duplicates.alarm_group" in (told.cause or told).message

    limit_groups(world, 100)
    gone_on = curate(world, "duplicates", "probes")
    assert gone_on.success and evaluation(gone_on).passed


def test_the_command_line_says_it_in_one_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(world.home.root), "run", "--until", "duplicates"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("winnow: near duplicates: ") and "raise duplicates.alarm_group" in err
