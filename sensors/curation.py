"""Whatever changed - documents, checkpoint, configuration - the current checkpoint gets one new manifest.

The sensor compares states instead of following events: the manifest that the present state deserves either exists or
is requested once. So five files delivered one by one and five at once end alike, nothing happens twice, and older
checkpoints stay frozen. Documents that lack a judgement of the present configuration are judged first.
"""

from __future__ import annotations

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.runs import bury_dead_runs
from resources.workspace import Workspace
from sensors.jobs import active_runs, curate, ingest, request
from winnow.errors import UserError
from winnow.stages.loop import judged_versions, unjudged_tables
from winnow.stages.manifests import curation_state
from winnow.store.published import open_published


@dg.sensor(jobs=[curate, ingest], minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def curation(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Request a curate run for the current checkpoint when no manifest answers to the present state."""
    config = workspace.config()
    bury_dead_runs(context.instance, workspace.paths)
    if active_runs(context.instance, "ingest", "register", "curate"):
        return dg.SensorResult(skip_reason=dg.SkipReason("waiting for runs in progress"))
    try:
        with open_published(workspace.paths) as connection:
            state = curation_state(connection, config, workspace.paths)
            if state.manifest:
                return dg.SensorResult(skip_reason=dg.SkipReason(f"{state.manifest} answers to the present state"))
            if not state.documents:
                return dg.SensorResult(skip_reason=dg.SkipReason("no documents yet"))
            if not state.reference:
                return dg.SensorResult(skip_reason=dg.SkipReason("no reference is configured: set [reference] path"))
            versions = judged_versions(config, workspace.encoder_location(config))
            unjudged = unjudged_tables(connection, versions)
            batch = connection.execute("SELECT arg_max(batch, delivered_at) FROM shards").fetchone()
    except UserError as nothing:
        return dg.SensorResult(skip_reason=dg.SkipReason(str(nothing)))
    if unjudged and batch:
        wanted = request(context.instance, f"judge:{state.key}", batch[0], "ingest")
    else:
        wanted = request(context.instance, f"curate:{state.newest}:{state.key}", state.checkpoint, "curate")
    if isinstance(wanted, dg.SkipReason):
        return dg.SensorResult(skip_reason=wanted)
    missing = not unjudged and state.checkpoint not in context.instance.get_dynamic_partitions("checkpoints")
    return dg.SensorResult(
        run_requests=[wanted],
        dynamic_partitions_requests=[CHECKPOINTS.build_add_request([state.checkpoint])] if missing else [],
    )
