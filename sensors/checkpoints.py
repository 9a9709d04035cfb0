"""A new complete checkpoint of the model in training becomes a ``checkpoints`` partition, and the current one."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.workspace import Workspace


@dg.sensor(job_name="register", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def checkpoint_folders(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Register folders below ``WINNOW_HOME/checkpoints``, oldest first, once they are complete and at rest.

    At rest: no file changed between two looks (the cursor), as a copy may still be under way.
    """
    from winnow.train.checkpoint import problem

    root = workspace.paths.checkpoints
    known = set(context.instance.get_dynamic_partitions("checkpoints"))
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    unknown = sorted((path for path in folders if path.name not in known), key=lambda path: path.stat().st_mtime_ns)
    before = json.loads(context.cursor) if context.cursor else {}
    listings = {path.name: _listing(path) for path in unknown}
    problems = {
        path.name: problem(path) or (None if before.get(path.name) == listings[path.name] else "still being written")
        for path in unknown
    }
    cursor = json.dumps(listings)
    fresh = [name for name, why in problems.items() if why is None]
    if not fresh:
        waiting = [f"{name}: {why}" for name, why in problems.items() if why and not name.startswith(".")]
        reason = "; ".join(waiting) or f"{len(known)} checkpoints, none new"
        return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=cursor)
    return dg.SensorResult(
        dynamic_partitions_requests=[CHECKPOINTS.build_add_request(fresh)],
        run_requests=[dg.RunRequest(run_key=f"register:{name}", partition_key=name) for name in fresh],
        cursor=cursor,
    )


def _listing(folder: Path) -> list[list[str | int]]:
    """Return name, size and time of every file of a checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.name, (status := path.stat()).st_size, status.st_mtime_ns] for path in files]
