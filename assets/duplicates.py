"""Sketches, verified pairs, and which copy of a repeated document is kept."""

from collections.abc import Iterator

import dagster as dg

from resources.partitions import SHARDS
from resources.report import materialized, picture, skipped
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.corpus import corpus_digest
from winnow.stages.duplicates import group_duplicates, pair_new_documents
from winnow.stages.loop import require_judged
from winnow.store.garbage import no_garbage_collection
from winnow.store.judgements import pending, texts_of
from winnow.store.stage import Stage, stage_key
from winnow.store.store import add_parts

GROUPING_VERSION = "1"


@dg.multi_asset(
    specs=[
        dg.AssetSpec("sketches", deps=["documents"], description="MinHash signatures.", kinds={"parquet", "numba"}),
        dg.AssetSpec("bands", deps=["sketches"], description="Locality-sensitive keys.", kinds={"parquet"}),
    ],
    group_name="duplicates",
    partitions_def=SHARDS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="store",
)
@one_at_a_time
def sketches(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[dg.MaterializeResult]:
    """Sign the documents that have no signature yet and band the signatures."""
    from winnow.dedup.sketch import make_plan, sketch

    store, settings = workspace.store(), workspace.config().duplicates
    plan = make_plan(settings)
    documents = pending(store, "sketches", "scheme", plan.scheme)
    if not len(documents):
        for table in ("sketches", "bands"):
            yield skipped(context, store, table, "every document is sketched")
        return
    stage = Stage(store, "sketches", context.run_id, partition=",".join(context.partition_keys))
    signed = [sketch(texts, plan) for texts in texts_of(store, documents)]
    with no_garbage_collection(store):
        parts = store.write_parts("sketches", (rows.sketches for rows in signed))
        parts += store.write_parts("bands", (rows.bands for rows in signed))
        with store.write() as connection:
            add_parts(connection, parts)
            stage.finish(connection, len(documents), output=plan.scheme)
    context.log.info(f"{len(documents)} documents sketched: {plan.summary}")
    yield materialized(store, stage, "sketches", {"plan": plan.summary})
    yield materialized(store, stage, "bands", {"plan": plan.summary})


@dg.asset(group_name="duplicates", deps=["bands"], pool="store", kinds={"duckdb"})
@one_at_a_time
def duplicate_pairs(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Pairs that share a band, verified by the exact Jaccard similarity of their shingles."""
    from winnow.dedup.sketch import make_plan

    store, settings = workspace.store(), workspace.config().duplicates
    plan = make_plan(settings)
    stage = Stage(
        store, "duplicate_pairs", context.run_id, stage_key("duplicate_pairs", plan.scheme, corpus=corpus_digest(store))
    )
    if stage.done is not None:
        return skipped(context, store, "duplicate_pairs", "no document is new since the last comparison")
    require_judged(store, "sketches", "scheme", plan.scheme)
    paired = pair_new_documents(store, stage, plan.scheme, settings.threshold)
    found = paired.candidates
    context.log.info(
        f"{paired.documents} new documents: {found.pairs} candidate pairs, "
        f"{paired.verified} verified at {settings.threshold}"
    )
    if found.oversize_buckets:
        context.log.warning(
            f"{found.oversize_buckets} buckets are oversize (largest {found.largest_bucket} documents): boilerplate? "
            "their members are compared with a few centers only"
        )
    return materialized(
        store,
        stage,
        "duplicate_pairs",
        {"candidates": found.pairs, "verified": paired.verified, "oversize buckets": found.oversize_buckets},
    )


@dg.asset(group_name="duplicates", deps=["duplicate_pairs"], pool="store", kinds={"duckdb"})
@one_at_a_time
def duplicates(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Every duplicate has a verified pair with its keeper; most connected document of a component first."""
    from winnow.dedup.sketch import make_plan
    from winnow.plots import histogram

    store, config = workspace.store(), workspace.config()
    plan = make_plan(config.duplicates)
    priorities = {name: source.priority for name, source in config.corpus.sources.items()}
    key = stage_key(
        "duplicates", GROUPING_VERSION, corpus=corpus_digest(store), scheme=plan.scheme, priorities=priorities
    )
    stage = Stage(store, "duplicates", context.run_id, key)
    if stage.done is not None:
        return skipped(context, store, "duplicates", "no pair is new since the last grouping")
    near = group_duplicates(store, stage, plan.scheme, priorities)
    removed = store.query("SELECT count(*) FROM duplicates WHERE kind = 'near' AND doc_id <> keeper_id")[0][0]
    sizes = [
        size for (size,) in store.query("SELECT group_size FROM duplicates WHERE kind = 'near' AND doc_id = keeper_id")
    ]
    context.log.info(f"{removed} near duplicates in {len(sizes)} groups")
    metadata = {"near duplicates": removed, "groups": len(sizes)}
    if len(near):
        metadata["group sizes"] = picture(histogram(sizes, "documents a group", log=True))
    return materialized(store, stage, "duplicates", metadata)
