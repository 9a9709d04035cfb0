"""How much each document helps: probes, the model that predicts them, and a score for every document."""

from typing import Any

import dagster as dg
import pyarrow as pa

from resources.partitions import CHECKPOINTS
from resources.report import materialized, picture, skipped
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.identity import ids_from_numpy
from winnow.stages.influence import (
    choose_opening,
    influence_model_key,
    opening_key,
    opening_stands,
    oracle_sample,
    pending_scores,
    score_documents,
)
from winnow.stages.influence_models import fit_model
from winnow.stages.loop import open_loop
from winnow.stages.probes import Prober
from winnow.store.garbage import no_garbage_collection
from winnow.store.judgements import forget_judged, mark_judged
from winnow.store.stage import Stage
from winnow.store.store import add_parts


@dg.asset(
    group_name="influence",
    deps=[
        "checkpoints",
        "clusters",
        "reference_sets",
        "signals",
        "duplicates",
        "semantic_duplicates",
        "contamination",
        "token_counts",
    ],
    partitions_def=CHECKPOINTS,
    pool="store",
    kinds={"duckdb", "pytorch"},
)
@one_at_a_time
def probes(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The opening round: seeded documents of every cluster by gradient influence, a sample of them by the oracle.

    Opened once for a checkpoint and reference; the bandit adds its own probes later.
    """
    from winnow.plots import scatter

    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "probes", context.run_id, opening_key(loop), context.partition_key)
    if stage.done is not None and opening_stands(store, loop):
        return skipped(context, store, "probes", "the opening round of this checkpoint is measured")
    prober = Prober(store, config, loop.checkpoint, loop.reference, loop.pool, context.log.info)
    opening = choose_opening(loop)
    influence = prober.gradient(opening, "opening")
    sample = oracle_sample(loop, opening)
    oracle = prober.oracle(opening[sample])
    with store.write() as connection:
        count = prober.write(connection)
        forget_judged(connection, "probes", stage.key)
        mark_judged(connection, "probes", stage.key, pa.table({"doc_id": ids_from_numpy(opening)}))
        stage.finish(connection, count, output=prober.method, flops=prober.flops)
    context.log.info(
        f"{len(influence)} documents probed by {prober.method}, {len(oracle)} of them by the one-step oracle"
    )
    metadata: dict[str, Any] = {"method": prober.method}
    if len(oracle):
        metadata["oracle"] = picture(scatter(influence[sample], oracle, "gradient influence", "one-step oracle"))
    return materialized(store, stage, "probes", metadata)


@dg.asset(
    group_name="influence",
    deps=[probes, "embeddings"],
    partitions_def=CHECKPOINTS,
    pool="store",
    kinds={"duckdb"},
)
@one_at_a_time
def influence_models(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """A predictor of influence from embedding and signals, with its held-out rank correlation."""
    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "influence_models", context.run_id, influence_model_key(loop), context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "influence_models", f"model {stage.done} is fitted to this checkpoint's probes")
    fitted = fit_model(store, loop, workspace.encoder_location(config))
    with store.write() as connection:
        fitted.write(connection)
        stage.finish(connection, fitted.model.probes, output=fitted.name)
    context.log.info(fitted.summary)
    return materialized(store, stage, "influence_models", {"spearman": fitted.model.spearman, "used": fitted.used})


@dg.asset(group_name="influence", deps=[influence_models], partitions_def=CHECKPOINTS, pool="store", kinds={"parquet"})
@one_at_a_time
def scores(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The influence model's score of every document that has none from it yet."""
    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    documents = pending_scores(store, loop)
    if not len(documents):
        return skipped(context, store, "scores", "every document is scored by this checkpoint's model")
    stage = Stage(store, "scores", context.run_id, partition=context.partition_key)
    rows = score_documents(store, loop, documents, workspace.encoder_location(config))
    with no_garbage_collection(store):
        parts = store.write_parts("scores", [rows])
        with store.write() as connection:
            add_parts(connection, parts)
            stage.finish(connection, len(documents))
    context.log.info(f"{len(documents)} documents scored")
    return materialized(store, stage, "scores")
