"""The reference and evaluation sets, and what the pool shares with them."""

import dagster as dg

from resources.report import materialized, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.identity import digest_file
from winnow.stages.contamination import (
    compare_waiting,
    contamination_key,
    example_lines,
    nothing_waits,
    report_lines,
    waiting_sets,
)
from winnow.stages.references import digests_by_name, stored_sets, write_sets
from winnow.store.stage import Stage, forget_keys, stage_key

SPLIT_VERSION = "3"


@dg.asset(group_name="contamination", pool="store", kinds={"duckdb"})
@one_at_a_time
def reference_sets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The target that influence is measured on, split in a selecting and a judging part; evaluation sets to avoid."""
    from winnow.contamination.sets import place_of, read_evaluation_set, read_reference, state_of

    store, config, home = workspace.store(), workspace.config(), workspace.paths
    path = home.resolve(config.reference.path)
    evaluations = sorted(config.contamination.evaluation_sets.items())
    key = stage_key(
        "reference_sets",
        SPLIT_VERSION,
        reference=digest_file(path) if path.is_file() else "",
        settings=config.semantic_settings("reference"),
        evaluations={name: state_of(settings, home.root) for name, settings in evaluations},
    )
    stage = Stage(store, "reference_sets", context.run_id, key)
    if stage.done is not None and stage.done == digests_by_name(stored_sets(store)):
        return skipped(context, store, "reference_sets", "the files are unchanged")
    sets = [read_reference(path, config.reference)]
    sets += [read_evaluation_set(name, place_of(settings, home.root), settings) for name, settings in evaluations]
    with store.write() as connection:
        write_sets(connection, sets)
        forget_keys(connection, "reference_sets")
        stage.finish(connection, sum(len(found.items) for found in sets), output=digests_by_name(sets))
    reference = sets[0]
    context.log.info(
        f"{reference.name}: {reference.count('selecting')} selecting and {reference.count('judging')} judging items, "
        f"{reference.removed} dropped because the two parts shared text"
    )
    return materialized(store, stage, "reference_sets")


@dg.asset(group_name="contamination", deps=["documents", reference_sets], pool="store", kinds={"duckdb"})
@one_at_a_time
def contamination(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """What every document shares with every set: the item, how much of it, where; and a report a set."""
    store, settings = workspace.store(), workspace.config().contamination
    sets = waiting_sets(store, settings)
    stage = Stage(store, "contamination", context.run_id, contamination_key(store, sets))
    if nothing_waits(sets, stage):
        return skipped(context, store, "contamination", "every document was compared with every set")
    compare_waiting(store, sets, stage)
    report = report_lines(store)
    for row in report:
        context.log.info(
            f"{row['evaluation_set']} ({row['method']}): {row['documents_contaminated']} documents hold "
            f"{row['items_contaminated']} of its {row['items']} items"
        )
    found = {f"contaminated by {row['evaluation_set']}": row["documents_contaminated"] for row in report}
    shown = {"report": table_of(report), "examples": table_of(example_lines(store))}
    return materialized(store, stage, "contamination", found | shown)
