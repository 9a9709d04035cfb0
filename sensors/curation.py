"""Whatever changed - documents, checkpoint, configuration - the current checkpoint gets one new manifest.

The sensor compares states instead of following events: the manifest that the present state deserves either exists or
is requested once. So five files delivered one by one and five at once end alike, nothing happens twice, and older
checkpoints stay frozen.
"""

from __future__ import annotations

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.workspace import Workspace
from sensors.inbox import active_runs
from winnow.errors import UserError
from winnow.stages.manifests import curation_state
from winnow.store.store import open_published


@dg.sensor(job_name="curate", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def curation(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Request a curate run for the current checkpoint when no manifest answers to the present state."""
    config = workspace.config()
    if active_runs(context.instance, "ingest", "register", "curate"):
        return dg.SensorResult(skip_reason=dg.SkipReason("waiting for runs in progress"))
    try:
        with open_published(workspace.paths) as connection:
            state = curation_state(connection, config, workspace.paths)
    except UserError as nothing:
        return dg.SensorResult(skip_reason=dg.SkipReason(str(nothing)))
    if state.manifest:
        return dg.SensorResult(skip_reason=dg.SkipReason(f"{state.manifest} answers to the present state"))
    if not state.documents:
        return dg.SensorResult(skip_reason=dg.SkipReason("no documents yet"))
    if not state.reference:
        return dg.SensorResult(skip_reason=dg.SkipReason("no reference is configured: set [reference] path"))
    partitions = []
    if state.checkpoint not in context.instance.get_dynamic_partitions("checkpoints"):
        partitions = [CHECKPOINTS.build_add_request([state.checkpoint])]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"curate:{state.newest}:{state.key}", partition_key=state.checkpoint),
        ],
        dynamic_partitions_requests=partitions,
    )
