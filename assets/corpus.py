"""Raw files become occurrences, documents and quarantine rows."""

from collections.abc import Iterator

import dagster as dg

from resources.partitions import SHARDS
from resources.report import live, materialized, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.corpus import deliver
from winnow.store.stage import Stage
from winnow.text.deliveries import Delivery, scan


@dg.multi_asset(
    specs=[
        dg.AssetSpec("shards", description="A file as delivered.", kinds={"duckdb"}),
        dg.AssetSpec("occurrences", description="A document in a shard.", kinds={"duckdb"}),
        dg.AssetSpec("quarantine", description="A record that could not be read, and why.", kinds={"duckdb"}),
        dg.AssetSpec("documents", description="A distinct text; content is identity.", kinds={"duckdb", "parquet"}),
    ],
    group_name="corpus",
    partitions_def=SHARDS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="store",
)
@one_at_a_time
def corpus(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[dg.MaterializeResult]:
    """Read the delivered files of the partition; replace, add or withdraw their rows, and derive the documents."""
    store, config = workspace.store(), workspace.config()
    files = scan(workspace.paths, config.corpus)
    tables = ("shards", "occurrences", "quarantine", "documents")
    reasons: dict[str, int] = {}
    refused: list[str] = []
    processed, seconds = 0, 0.0
    for key in context.partition_keys:
        delivery = Delivery.load(workspace.paths, key).as_of_now(files)
        stage = Stage(store, "corpus", context.run_id, partition=key)
        report = deliver(store, config.corpus, delivery, stage, live(context, "shards"))
        refused += report.refused
        for reason, count in report.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
        if not report.changed:
            continue
        processed, seconds = processed + stage.processed, seconds + stage.seconds
        context.log.info(
            f"{report.records} records in {report.shards} files: {report.occurrences} occurrences, "
            f"{report.quarantined} quarantined, {report.documents_added} new documents, "
            f"{report.documents_removed} gone, {report.unchanged} files unchanged, {report.withdrawn} withdrawn"
        )
        for shard in report.failed:
            context.log.warning(f"{shard} failed: too many bad records; see quarantine for each")
    for why in refused:  # the others are committed; the check every_file_taken fails
        context.log.error(f"left as it was: {why}")
    if not seconds:
        for table in tables:
            yield skipped(context, store, table, f"every file of {', '.join(context.partition_keys)} is unchanged")
        return
    stage.processed, stage.seconds = processed, seconds
    counted = [{"reason": reason, "records": count} for reason, count in sorted(reasons.items())]
    for table in tables:
        extra = {"quarantined by reason": table_of(counted)} if table == "quarantine" else {}
        yield materialized(store, stage, table, extra)
