"""A new complete checkpoint of the model in training becomes a ``checkpoints`` partition, and the current one."""

from __future__ import annotations

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.workspace import Workspace


@dg.sensor(job_name="register", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def checkpoint_folders(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Register folders below ``WINNOW_HOME/checkpoints`` once they are complete, oldest first."""
    from winnow.train.checkpoint import problem

    root = workspace.paths.checkpoints
    known = set(context.instance.get_dynamic_partitions("checkpoints"))
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    unknown = sorted((path for path in folders if path.name not in known), key=lambda path: path.stat().st_mtime_ns)
    problems = {path.name: problem(path) for path in unknown}
    fresh = [path.name for path in unknown if problems[path.name] is None]
    if not fresh:
        waiting = [f"{name}: {why}" for name, why in problems.items() if why and not name.startswith(".")]
        return dg.SensorResult(skip_reason=dg.SkipReason("; ".join(waiting) or f"{len(known)} checkpoints, none new"))
    return dg.SensorResult(
        dynamic_partitions_requests=[CHECKPOINTS.build_add_request(fresh)],
        run_requests=[dg.RunRequest(run_key=f"register:{name}", partition_key=name) for name in fresh],
    )
