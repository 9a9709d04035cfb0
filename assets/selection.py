"""Which clusters get the tokens, and which documents of theirs."""

import dagster as dg

from resources.partitions import CHECKPOINTS
from resources.report import materialized, picture, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.loop import open_loop
from winnow.stages.probes import Prober
from winnow.stages.selection import ledger_rows, pull_arms, select, selection_key, selection_name, stored_ledger
from winnow.store.garbage import no_garbage_collection
from winnow.store.judgements import row_groups
from winnow.store.stage import Stage
from winnow.store.store import insert, replace_owned


@dg.asset(
    group_name="selection", deps=["scores"], partitions_def=CHECKPOINTS, pool="store", kinds={"duckdb", "pytorch"}
)
@one_at_a_time
def bandit_rounds(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Quad's bandit over the clusters: probe the best arms, grant tokens to those that help, up to the budget."""
    from winnow.plots import bars

    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "bandit_rounds", context.run_id, selection_key(store, loop), context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "bandit_rounds", f"selection {stage.done} has its rounds")
    prober = Prober(store, config, loop.checkpoint, loop.reference, loop.pool, context.log.info)
    result = pull_arms(store, loop, prober)
    name = stage.key[:12]
    rows = ledger_rows(result, name, loop.clustering.name)
    with store.write() as connection:
        measured = prober.write(connection)
        connection.execute("DELETE FROM bandit_rounds WHERE selection = $name", {"name": name})
        insert(connection, "bandit_rounds", rows)
        stage.finish(connection, len(rows), output=name, flops=prober.flops)
    context.log.info(
        f"selection {name}: {result.rounds} rounds, {len(rows)} pulls, {measured} new probes, "
        f"{int(result.granted_tokens.sum()):,} tokens granted, bonus/reward {result.bonus_ratio:.2f}"
    )
    summary = store.arrow(
        "SELECT cluster, sum(reward * (probes - excluded)) / nullif(sum(probes - excluded), 0) AS reward,"
        " sum(tokens_granted) AS tokens FROM bandit_rounds"
        " WHERE selection = $name GROUP BY cluster ORDER BY reward DESC NULLS LAST",
        {"name": name},
    ).to_pylist()
    labels = [f"{row['cluster']}: {loop.clustering.labels[row['cluster']]}" for row in summary]
    rewards = [row["reward"] or 0.0 for row in summary]
    return materialized(
        store,
        stage,
        "bandit_rounds",
        {
            "rewards by cluster": picture(bars(labels[:60], rewards[:60], "mean influence")),
            "clusters": table_of(summary[:50]),
        },
    )


@dg.asset(group_name="selection", deps=[bandit_rounds], partitions_def=CHECKPOINTS, pool="store", kinds={"duckdb"})
@one_at_a_time
def decisions(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """A verdict with its reason on every document, and the equal-budget random selection beside it."""
    store, config = workspace.store(), workspace.config()
    loop = open_loop(store, config, context.partition_key)
    stage = Stage(store, "decisions", context.run_id, selection_key(store, loop), context.partition_key)
    if stage.done is not None:
        return skipped(context, store, "decisions", f"selection {stage.done} is decided")
    name = selection_name(store, loop)
    selected = select(store, loop, stored_ledger(store, name))
    rows = selected.decision_rows(name)
    with no_garbage_collection(store):
        parts = store.write_parts("decisions", row_groups(rows))
        with store.write() as connection:
            replace_owned(connection, "decisions", name, parts)
            stage.finish(connection, len(rows), output=name)
    counted = store.arrow(
        "SELECT verdict, reason, count(*) AS documents FROM decisions WHERE selection = $name"
        " GROUP BY ALL ORDER BY ALL DESC",
        {"name": name},
    ).to_pylist()
    context.log.info(
        f"selection {name}: {int(selected.decisions.selected.sum())} of {len(rows)} documents, "
        f"{selected.decisions.tokens:,} of {selected.budget:,} tokens; "
        + (
            "ranked by the influence model"
            if selected.influence_model_used
            else "influence model below its floor: not used"
        )
    )
    return materialized(store, stage, "decisions", {"verdicts": table_of(counted)})
