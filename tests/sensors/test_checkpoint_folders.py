"""The checkpoint sensor: a complete folder becomes a partition once, an incomplete one waits with a reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg
from worlds import Finished

from resources.workspace import Workspace
from sensors.checkpoints import checkpoint_folders


def tick(root: Path, instance: dg.DagsterInstance) -> dg.SensorResult:
    """Look twice, as a folder counts only when nothing changed between two looks; return what the second look said."""
    return look(root, instance, look(root, instance, None).cursor)


def look(root: Path, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    resources = {"workspace": Workspace(home=str(root))}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        result = checkpoint_folders(context)
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions("checkpoints", list(request.partition_keys))
    return result


def keys(result: dg.SensorResult) -> list[str | None]:
    return [request.partition_key for request in result.run_requests or ()]


def trained(finished: Finished) -> Path:
    return next(path for path in finished.world.home.checkpoints.iterdir() if path.name.startswith("v0001-"))


def test_a_home_without_checkpoints_is_skipped(tmp_path: Path) -> None:
    result = tick(tmp_path, dg.DagsterInstance.ephemeral())
    assert result.skip_reason is not None and "0 checkpoints" in str(result.skip_reason.skip_message)


def test_an_incomplete_folder_waits_with_a_reason_and_is_taken_when_complete(
    finished: Finished, tmp_path: Path
) -> None:
    instance = dg.DagsterInstance.ephemeral()
    folder = tmp_path / "checkpoints" / "step-100"
    shutil.copytree(trained(finished), folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    result = tick(tmp_path, instance)
    assert keys(result) == [] and "step-100: model.safetensors" in str(result.skip_reason.skip_message)  # type: ignore[union-attr]
    assert instance.get_dynamic_partitions("checkpoints") == []
    (folder / "model.safetensors").write_bytes(weights)
    result = tick(tmp_path, instance)
    assert keys(result) == ["step-100"]
    assert [request.run_key for request in result.run_requests or ()] == ["register:step-100"]


def test_a_folder_that_is_still_being_copied_waits(finished: Finished, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    folder = tmp_path / "checkpoints" / "step-100"
    shutil.copytree(trained(finished), folder)
    (folder / "optimizer.safetensors").rename(tmp_path / "not-copied-yet")
    first = look(tmp_path, instance, None)
    (tmp_path / "not-copied-yet").rename(folder / "optimizer.safetensors")
    second = look(tmp_path, instance, first.cursor)
    assert keys(first) == keys(second) == []
    assert "still being written" in str(second.skip_reason.skip_message)  # type: ignore[union-attr]
    assert keys(look(tmp_path, instance, second.cursor)) == ["step-100"]


def test_a_folder_becomes_a_partition_once(finished: Finished, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    shutil.copytree(trained(finished), tmp_path / "checkpoints" / "step-100")
    assert keys(tick(tmp_path, instance)) == ["step-100"]
    result = tick(tmp_path, instance)
    assert keys(result) == [] and "1 checkpoints, none new" in str(result.skip_reason.skip_message)  # type: ignore[union-attr]


def test_several_folders_are_registered_oldest_first(finished: Finished, tmp_path: Path) -> None:
    for age, name in enumerate(("zeta", "alpha", "middle")):
        folder = tmp_path / "checkpoints" / name
        shutil.copytree(trained(finished), folder)
        os.utime(folder, (1_000_000 + age, 1_000_000 + age))
    assert keys(tick(tmp_path, dg.DagsterInstance.ephemeral())) == ["zeta", "alpha", "middle"]


def test_a_save_under_way_is_invisible(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(trained(finished), tmp_path / "checkpoints" / ".step-100.partial")
    result = tick(tmp_path, dg.DagsterInstance.ephemeral())
    assert keys(result) == [] and "step-100" not in str(result.skip_reason.skip_message)  # type: ignore[union-attr]
