"""The model in training: tokenizer, checkpoints, the price of a document in tokens, the benchmarks it has seen."""

import dagster as dg
import pyarrow as pa

from resources.partitions import CHECKPOINTS
from resources.report import materialized, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.checkpoints import initial_checkpoint, stored_checkpoint
from winnow.stages.membership import measure_membership, membership_card, membership_due, write_membership
from winnow.stages.training import fit_tokenizer, register, tokenizer_key, warm_up
from winnow.store.judgements import pending, texts_of
from winnow.store.stage import Stage, stage_key
from winnow.store.store import insert


@dg.asset(group_name="model", deps=["signals", "duplicates", "contamination"], pool="store", kinds={"huggingface"})
@one_at_a_time
def tokenizer(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """A byte-level BPE tokenizer, trained once on documents of the pool and pinned."""
    store, config = workspace.store(), workspace.config()
    if config.model.checkpoint:
        return dg.MaterializeResult(metadata={"skipped": "the given checkpoint brings its own tokenizer"})
    stage = Stage(store, "tokenizer", context.run_id, tokenizer_key(config))
    if stage.done is not None:
        context.log.info("tokenizer: nothing to do, it is trained once and pinned")
        return dg.MaterializeResult(metadata={"skipped": "trained once and pinned", "digest": stage.done})
    folder = fit_tokenizer(store, config, stage)
    context.log.info(f"trained {config.model.vocabulary} tokens on {stage.processed} documents")
    return dg.MaterializeResult(
        metadata={"path": dg.MetadataValue.path(str(folder)), "seconds": round(stage.seconds, 2)}
    )


@dg.asset(
    group_name="model", deps=[tokenizer], partitions_def=CHECKPOINTS, pool="store", kinds={"huggingface", "pytorch"}
)
@one_at_a_time
def checkpoints(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """A state of the model as an ordinary Hugging Face folder: warmed up here, given, or saved by a training run."""
    store, config, name = workspace.store(), workspace.config(), context.partition_key
    key = stage_key("checkpoints", "1", name=name)
    stage = Stage(store, "checkpoints", context.run_id, key, name)
    if stage.done is not None and stored_checkpoint(store, name):
        return skipped(context, store, "checkpoints", f"{name} is registered")
    path = workspace.paths.checkpoints / name
    if name == initial_checkpoint(config):
        if config.model.checkpoint:
            path = workspace.paths.resolve(config.model.checkpoint)
        elif not path.is_dir():
            path = warm_up(store, config, name, context.log.info)
    register(store, name, path, stage)
    context.log.info(f"checkpoint {name} registered: {path}")
    return materialized(store, stage, "checkpoints", {"path": dg.MetadataValue.path(str(path))})


@dg.asset(
    group_name="model", deps=[checkpoints, "documents"], partitions_def=CHECKPOINTS, pool="store", kinds={"duckdb"}
)
@one_at_a_time
def token_counts(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """What training on each document costs, in tokens of the checkpoint's tokenizer."""
    from winnow.train.tokenizer import count_tokens, load_tokenizer

    store = workspace.store()
    checkpoint = stored_checkpoint(store, context.partition_key)
    documents = pending(store, "token_counts", "tokenizer", checkpoint.tokenizer)
    if not len(documents):
        return skipped(context, store, "token_counts", "every document is counted")
    stage = Stage(store, "token_counts", context.run_id, partition=context.partition_key)
    loaded = load_tokenizer(checkpoint.path)
    counted = [
        pa.table(
            {
                "doc_id": texts["doc_id"],
                "tokenizer": pa.array([checkpoint.tokenizer] * len(texts), pa.string()),
                "tokens": count_tokens(loaded, texts["text"]),
            }
        )
        for texts in texts_of(store, documents)
    ]
    with store.write() as connection:
        for rows in counted:
            insert(connection, "token_counts", rows)
        stage.finish(connection, len(documents))
    total = sum(int(rows["tokens"].to_numpy().sum()) for rows in counted)
    context.log.info(f"{len(documents)} documents counted: {total:,} tokens")
    return materialized(store, stage, "token_counts", {"tokens": total})


@dg.asset(
    group_name="model",
    deps=[checkpoints, "contamination"],
    partitions_def=CHECKPOINTS,
    pool="store",
    kinds={"duckdb", "pytorch"},
)
@one_at_a_time
def membership(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """How much each item of the reference and of the evaluation sets looks as if the checkpoint had seen it."""
    store, config = workspace.store(), workspace.config()
    due = membership_due(store, config, context.partition_key)
    if due.skipped:
        return skipped(context, store, "membership", due.skipped)
    stage = Stage(store, "membership", context.run_id, partition=context.partition_key)
    measured = measure_membership(store, config, due)
    with store.write() as connection:
        write_membership(connection, measured)
        stage.finish(connection, measured.items, flops=measured.flops)
    context.log.info(f"{measured.items} items of {len(measured.sets)} sets read: {measured.tokens:,} tokens")
    card = membership_card(store, context.partition_key)
    return materialized(store, stage, "membership", {"tokens": measured.tokens, "card": table_of(card)})
