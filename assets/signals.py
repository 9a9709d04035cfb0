"""Heuristic quality signals and Gopher's verdict on every document."""

import dagster as dg

from resources.partitions import SHARDS
from resources.report import materialized, picture, skipped
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.store.judgements import pending, texts_of
from winnow.store.stage import Stage
from winnow.store.store import insert


@dg.asset(
    group_name="signals",
    deps=["documents"],
    partitions_def=SHARDS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="store",
    kinds={"duckdb"},
)
@one_at_a_time
def signals(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Lengths, repetition, symbols, stop words, entropy, compression; and the first rule of Gopher's that fails."""
    from winnow.plots import histogram
    from winnow.quality.judge import judge, quality_version

    store, config = workspace.store(), workspace.config()
    version = quality_version(config.quality)
    documents = pending(store, "signals", "version", version)
    if not len(documents):
        return skipped(context, store, "signals", "every document is judged")
    stage = Stage(store, "signals", context.run_id, partition=",".join(context.partition_keys))
    judged = [judge(texts, config.quality) for texts in texts_of(store, documents)]
    with store.write() as connection:
        connection.execute("DELETE FROM signals WHERE version <> $version", {"version": version})
        for rows in judged:
            insert(connection, "signals", rows)
        stage.finish(connection, len(documents), output=version)
    words, passed = store.arrow("SELECT words, gopher_passed FROM signals").columns
    share = passed.to_numpy(zero_copy_only=False).mean()
    context.log.info(f"{len(documents)} documents judged, {share:.1%} of all pass Gopher's rules")
    return materialized(
        store,
        stage,
        "signals",
        {
            "gopher pass share": float(share),
            "words": picture(histogram(words.to_numpy(), "words a document", log=True)),
        },
    )
