"""A new complete checkpoint of the model in training becomes a ``checkpoints`` partition, and the current one."""

from __future__ import annotations

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.workspace import Workspace


@dg.sensor(job_name="register", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def checkpoint_folders(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Register folders below ``WINNOW_HOME/checkpoints`` once they are complete, oldest first."""
    from winnow.train.checkpoint import complete_folders

    known = set(context.instance.get_dynamic_partitions("checkpoints"))
    fresh = [folder.name for folder in complete_folders(workspace.paths.checkpoints) if folder.name not in known]
    if not fresh:
        return dg.SensorResult(skip_reason=dg.SkipReason(f"{len(known)} checkpoints, none new"))
    return dg.SensorResult(
        dynamic_partitions_requests=[CHECKPOINTS.build_add_request(fresh)],
        run_requests=[dg.RunRequest(run_key=f"register:{name}", partition_key=name) for name in fresh],
    )
