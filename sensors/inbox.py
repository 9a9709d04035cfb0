"""New, changed and deleted files of the corpus locations become one ``shards`` partition and one ingest run."""

from __future__ import annotations

import json
import time

import dagster as dg

from resources.partitions import SHARDS
from resources.runs import bury_dead_runs
from resources.workspace import Workspace
from sensors.jobs import active_runs, request
from winnow.errors import UserError
from winnow.stages.corpus import known_shards
from winnow.store.published import open_published
from winnow.text.deliveries import Known, closed, plan, scan

RETRY_SECONDS = 900
"""How often files that were refused as they are are tried again."""


@dg.sensor(job_name="ingest", minimum_interval_seconds=10, default_status=dg.DefaultSensorStatus.RUNNING)
def inbox(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Deliver closed files: a file is closed when size and time did not change between two looks (the cursor)."""
    home = workspace.paths
    config = workspace.config()
    bury_dead_runs(context.instance, workspace.paths)
    files = scan(home, config.corpus)
    try:
        with open_published(home) as connection:
            known = known_shards(connection, config.corpus)
    except UserError:  # nothing has been published yet
        known = Known({}, 0)
    looks = {file.shard: file.fingerprint for file in files if known.shards.get(file.shard) != file.fingerprint}
    ready = closed(json.loads(context.cursor) if context.cursor else {})
    cursor = json.dumps(looks)
    delivery = plan(files, known, ready, config.corpus.delivery_bytes)
    if active_runs(context.instance, "ingest", "curate"):  # a selection sees one corpus from first step to last
        return dg.SensorResult(skip_reason=dg.SkipReason("waiting for runs in progress"), cursor=cursor)
    if known.shards and not files:
        why = f"no file in any location, {len(known.shards)} in the store: is a disk not there?"
        return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=cursor)
    if not delivery:
        open_files = len(plan(files, known).files)
        waiting = f"; {open_files} not closed yet" if open_files else ""
        return dg.SensorResult(skip_reason=dg.SkipReason(f"{len(files)} files, none to read{waiting}"), cursor=cursor)
    requested = delivery.key in context.instance.get_dynamic_partitions("shards")
    what = delivery.key
    if all(known.refused.get(file.shard) == file.fingerprint for file in delivery.files) and not delivery.withdrawn:
        requested, what = False, f"{what}@{int(time.time() // RETRY_SECONDS)}"  # their bytes may come by now
    wanted = request(context.instance, what, delivery.key, requested=requested)
    if isinstance(wanted, dg.SkipReason):
        return dg.SensorResult(skip_reason=wanted, cursor=cursor)
    delivery.save(home)
    return dg.SensorResult(
        dynamic_partitions_requests=[SHARDS.build_add_request([delivery.key])], run_requests=[wanted], cursor=cursor
    )
