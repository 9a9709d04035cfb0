"""The reference and evaluation sets, and what the pool shares with them."""

import dagster as dg
import pyarrow as pa

from resources.report import materialized, skipped
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.identity import digest_file
from winnow.stages.references import stored_sets, uncompared, write_overlap, write_sets
from winnow.store.judgements import texts_of
from winnow.store.stage import Stage, stage_key

SPLIT_VERSION = "1"


@dg.asset(group_name="contamination", pool="store", kinds={"duckdb"})
@one_at_a_time
def reference_sets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The target that influence is measured on, split in a selecting and a judging part; evaluation sets to avoid."""
    from winnow.contamination.sets import read_evaluation_set, read_reference

    store, config, home = workspace.store(), workspace.config(), workspace.paths
    path = home.resolve(config.reference.path)
    evaluations = {name: home.resolve(place) for name, place in config.contamination.evaluation_sets.items()}
    key = stage_key(
        "reference_sets",
        SPLIT_VERSION,
        reference=digest_file(path) if path.is_file() else "",
        settings=config.semantic("reference"),
        evaluations={name: digest_file(place) for name, place in evaluations.items() if place.is_file()},
    )
    stage = Stage(store, "reference_sets", context.run_id, key)
    if stage.done is not None and stage.done == ",".join(sorted(s.digest for s in stored_sets(store))):
        return skipped(context, store, "reference_sets", "the files are unchanged")
    sets = [read_reference(path, config.reference)]
    sets += [read_evaluation_set(name, place) for name, place in sorted(evaluations.items())]
    with store.write() as connection:
        write_sets(connection, sets)
        stage.finish(
            connection, sum(len(found.items) for found in sets), output=",".join(sorted(s.digest for s in sets))
        )
    reference = sets[0]
    context.log.info(
        f"{reference.name}: {reference.count('selecting')} selecting and {reference.count('judging')} judging items, "
        f"{reference.removed} dropped because the two parts shared text"
    )
    return materialized(store, stage, "reference_sets")


@dg.asset(group_name="contamination", deps=["documents", reference_sets], pool="store", kinds={"duckdb"})
@one_at_a_time
def contamination(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Word n-gram overlap of every document with every set, with the longest shared run as evidence."""
    from winnow.contamination.judge import contamination_version, judge
    from winnow.contamination.ngrams import build_index

    store, settings = workspace.store(), workspace.config().contamination
    stage = Stage(store, "contamination", context.run_id)
    seen: dict[str, tuple[str, pa.Table, list[pa.Table]]] = {}
    for found in stored_sets(store):
        version = contamination_version(found.digest, settings)
        documents = uncompared(store, found.name, version)
        index = build_index(found.texts(), settings.ngram)
        rows = [judge(texts, index, found.name, version, settings) for texts in texts_of(store, documents)]
        seen[found.name] = version, documents, rows
    total = sum(len(documents) for _, documents, _ in seen.values())
    if not total:
        return skipped(context, store, "contamination", "every document was compared with every set")
    with store.write() as connection:
        for name, (version, documents, rows) in seen.items():
            write_overlap(connection, name, version, documents, rows)
        stage.finish(connection, total)
    found_rows = store.query(
        "SELECT evaluation_set, count(*) FROM contamination WHERE contaminated GROUP BY ALL ORDER BY ALL"
    )
    for name, count in found_rows:
        context.log.info(f"{count} documents share at least {settings.min_words} words in a row with {name}")
    return materialized(store, stage, "contamination", {f"contaminated by {name}": count for name, count in found_rows})
