"""Source weights, the manifest, and whether what it selects teaches more than random data."""

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.report import materialized, picture, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.loop import open_loop
from winnow.stages.publishing import make_manifest, manifest_key
from winnow.stages.selection import select, selection_key, selection_name, stored_ledger
from winnow.stages.validation import train_control, train_on_manifest, validated
from winnow.store.stage import Stage
from winnow.store.store import insert


@dg.asset(group_name="mixture", deps=["decisions"], partitions_def=CHECKPOINTS, pool="store", kinds={"duckdb"})
@one_at_a_time
def mixtures(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Weights of the sources: what the selection came to, beside natural and temperature weights of the pool."""
    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "mixtures", context.run_id, selection_key(store, loop), context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "mixtures", f"selection {stage.done} is weighed")
    name = selection_name(store, loop)
    rows = select(store, loop, stored_ledger(store, name)).mixture_rows(name)
    with store.write() as connection:
        connection.execute("DELETE FROM mixtures WHERE mixture = $name", {"name": name})
        insert(connection, "mixtures", rows)
        stage.finish(connection, len(rows), output=name)
    return materialized(store, stage, "mixtures", {"weights": table_of(rows.to_pylist())})


@dg.asset(
    group_name="mixture",
    deps=[mixtures, "spans"],
    partitions_def=CHECKPOINTS,
    pool="store",
    kinds={"duckdb", "parquet"},
)
@one_at_a_time
def manifests(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The next version of the training set: rows in training order, digest, parent, snapshot."""
    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "manifests", context.run_id, manifest_key(store, loop), context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "manifests", f"{stage.done} answers to this state")
    made = make_manifest(store, select(store, loop, stored_ledger(store, selection_name(store, loop))), stage)
    found = made.manifest
    context.log.info(f"{found.version}: {found.documents} documents, {found.tokens:,} tokens, digest {found.digest}")
    sources = [{"source": name, **counts} for name, counts in found.sources.items()]
    return materialized(
        store,
        stage,
        "manifests",
        {
            "version": found.version,
            "digest": found.digest,
            "parent": found.parent or "none",
            "documents": found.documents,
            "tokens": found.tokens,
            "sources": table_of(sources),
            "path": dg.MetadataValue.path(str(made.folder)),
        },
        version=found.digest,
    )


@dg.asset(
    group_name="mixture", deps=[manifests], partitions_def=CHECKPOINTS, pool="store", kinds={"huggingface", "pytorch"}
)
@one_at_a_time
def train_stage(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Train the checkpoint on its newest manifest and save the next checkpoint, which the loop then takes up."""
    store, config = workspace.store(), workspace.config()
    trained = train_on_manifest(store, config, context.partition_key, context.run_id, context.log.info)
    if trained.skipped:
        context.log.info(f"train_stage: nothing to do, {trained.skipped}")
        return dg.MaterializeResult(metadata={"skipped": trained.skipped})
    context.log.info(f"next checkpoint: {trained.path}")
    return dg.MaterializeResult(
        metadata={
            "checkpoint": dg.MetadataValue.path(str(trained.path)),
            "tokens": trained.tokens,
            "seconds": round(trained.seconds, 2),
        }
    )


@dg.asset(
    group_name="mixture", deps=[train_stage], partitions_def=CHECKPOINTS, pool="store", kinds={"duckdb", "pytorch"}
)
@one_at_a_time
def validations(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Judging loss of the model trained on the manifest and of one trained on random data for the same tokens."""
    from winnow.plots import curves

    store, config = workspace.store(), workspace.config()
    stage = train_control(store, config, context.partition_key, context.run_id, context.log.info)
    found = validated(store, context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "validations", f"{found.version} is validated")
    context.log.info(found.summary)
    return materialized(
        store,
        stage,
        "validations",
        {
            "manifest loss": found.final("manifest"),
            "random loss": found.final("random"),
            "curve": picture(curves(found.curves, "tokens", "judging loss (nats a token)")),
        },
    )
