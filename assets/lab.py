"""Do selections pay? One model a preset, from one checkpoint and on as many tokens, compared with random documents."""

import os

import dagster as dg

from resources.report import materialized, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.checkpoints import current_checkpoint
from winnow.stages.lab import CORE, LabRequest, lab_digest, open_store_lab, run_lab, write_results, write_runs
from winnow.store.stage import Stage

ASKED = {
    "presets": dg.Field([str], default_value=list(CORE), description="files of winnow/presets; random is always run"),
    "references": dg.Field([str], default_value=[], description="files beside the configured reference"),
    "seeds": dg.Field(int, default_value=3, description="trainings of each preset and reference"),
    "tokens": dg.Field(int, default_value=1_000_000, description="tokens of a training"),
    "models": dg.Field([str], default_value=["proxy"], description="proxy (as configured), half, or both"),
}


def _asked(context: dg.AssetExecutionContext) -> LabRequest:
    chosen = context.op_execution_context.op_config
    return LabRequest(
        tuple(chosen["presets"]),
        tuple(chosen["references"]),
        chosen["seeds"],
        chosen["tokens"],
        tuple(chosen["models"]),
    ).checked()


@dg.asset(group_name="lab", pool="store", kinds={"duckdb", "pytorch"}, config_schema=ASKED)
@one_at_a_time
def lab_runs(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """One model a preset, reference and seed, trained from the lab's checkpoint; each is kept when it is done."""
    store, request = workspace.store(), _asked(context)
    with store.read() as connection:
        checkpoint = current_checkpoint(connection, workspace.config())
    lab = open_store_lab(store, workspace.config(), checkpoint, request)
    stage = Stage(store, "lab_runs", context.run_id)
    runs, failed = run_lab(lab, request, os.cpu_count() or 1, context.log.info)
    with store.write() as connection:
        write_runs(connection, lab_digest(lab), runs)
        stage.finish(connection, len(runs), output=lab_digest(lab))
    return materialized(store, stage, "lab_runs", {"lab": lab_digest(lab), "not made": failed})


@dg.asset(group_name="lab", deps=[lab_runs], pool="store", kinds={"duckdb"}, config_schema=ASKED)
@one_at_a_time
def lab_results(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Loss, difference from random, and tokens and operations to reach random's final loss, of every preset."""
    store, request = workspace.store(), _asked(context)
    with store.read() as connection:
        checkpoint = current_checkpoint(connection, workspace.config())
    lab = open_store_lab(store, workspace.config(), checkpoint, request)
    stage = Stage(store, "lab_results", context.run_id)
    runs, failed = run_lab(lab, request, 1)  # reads what lab_runs has kept
    with store.write() as connection:
        rows = write_results(connection, lab_digest(lab), runs, failed)
        stage.finish(connection, len(rows), output=lab_digest(lab))
    return materialized(store, stage, "lab_results", {"results": table_of(rows)})
