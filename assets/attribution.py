"""How far estimators of influence can be trusted: each against models trained on subsets of the documents."""

import dagster as dg

from resources.report import materialized, picture, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.attribution_bench import Request, bench_key, open_bench, replace_rows
from winnow.store.stage import Stage

BENCH = {
    "bench": dg.Field(str, default_value="tiny", description="tiny (seconds); small, mixed: need WINNOW_TEST_DATA"),
    "estimators": dg.Field([str], default_value=[], description="some of them; empty: all"),
    "runs": dg.Field(int, default_value=1, description="trainings of different seeds whose scores are averaged"),
    "average": dg.Field(bool, default_value=False, description="average over every checkpoint of a training too"),
}


@dg.asset(group_name="attribution", pool="store", kinds={"duckdb", "pytorch"}, config_schema=BENCH)
@one_at_a_time
def attribution_bench(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The leaderboard of the estimators: how each ranks subsets by what models trained on them lose on queries.

    The bank of subset models is trained once for a bench and kept; estimators added later only read it. What was
    asked for and measured before, by the same code, is skipped.
    """
    from winnow.attribution.leaderboard import leaderboard
    from winnow.plots import bars

    store, chosen = workspace.store(), context.op_execution_context.op_config
    encoder = workspace.config().encoder
    request = Request(chosen["bench"], tuple(chosen["estimators"]), chosen["runs"], chosen["average"])
    stage = Stage(store, "attribution_bench", context.run_id, bench_key(workspace.paths, request, encoder))
    if stage.done is not None:
        return skipped(context, store, "attribution_bench", "this bench is measured with these estimators and settings")

    def report(done: int, total: int) -> None:
        context.log.info(f"{done} of {total} subset models trained")

    request, prepared = open_bench(workspace.paths, request, encoder, report)
    rows = leaderboard(prepared, request.estimators, average=request.average)
    with store.write() as connection:
        replace_rows(connection, rows)
        stage.finish(connection, len(rows), output=prepared.bank.digest)
    measured = [row for row in rows if row.lds is not None]
    context.log.info(f"bench {chosen['bench']}: {len(measured)} of {len(rows)} estimators measured")
    names = [" ".join(filter(None, (row.estimator, row.scope))) for row in measured]
    return materialized(
        store,
        stage,
        "attribution_bench",
        {
            "ceiling": prepared.ceiling,
            "leaderboard": table_of([row.record() for row in rows]),
            "lds": picture(bars(names, [row.lds or 0.0 for row in measured], f"LDS on bench {chosen['bench']}")),
        },
    )
