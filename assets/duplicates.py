"""Sketches, verified pairs, and which copy of a repeated document is kept."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from resources.partitions import SHARDS
from resources.report import materialized, picture, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.stages.duplicate_alarms import removed_by_source
from winnow.stages.duplicate_groups import group_duplicates, grouping_key
from winnow.stages.duplicate_pairing import pair_new_documents, pairing_key
from winnow.stages.duplicate_plan import estimate_lines, require_room
from winnow.stages.loop import require_judged
from winnow.stages.priorities import source_priorities
from winnow.stages.semantic import drop_semantic, example_pairs, find_semantic, semantic_key
from winnow.stages.sketches import require_banded, sketch_new_documents
from winnow.stages.spans import kept_documents, record_spans, spans_key, summarise
from winnow.store.stage import Stage


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
    from winnow.dedup.sketch import make_plan
    from winnow.plots import s_curve

    store, settings = workspace.store(), workspace.config().duplicates
    plan = make_plan(settings)
    expected = require_room(store, plan)
    stage = Stage(store, "sketches", context.run_id, partition=",".join(context.partition_keys))
    if expected.new_documents:
        context.log.info(f"to be compared: {'; '.join(estimate_lines(expected))}")
    done = sketch_new_documents(store, stage, plan)
    if not done:
        for table in ("sketches", "bands"):
            yield skipped(context, store, table, "every document is sketched")
        return
    context.log.info(f"{done.signed} documents signed, {done.rebanded} banded from stored signatures: {plan.summary}")
    bands = plan.bands
    yield materialized(
        store,
        stage,
        "sketches",
        {
            "plan": plan.summary,
            "signed": done.signed,
            "expected": "; ".join(estimate_lines(expected)),
            "chance to be a candidate": picture(s_curve(bands.bands, bands.rows, bands.threshold)),
        },
    )
    yield materialized(store, stage, "bands", {"plan": plan.summary, "banded anew": done.rebanded})


@dg.asset(group_name="duplicates", deps=["bands"], pool="store", kinds={"duckdb"})
@one_at_a_time
def duplicate_pairs(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Pairs that share a band, verified by the exact Jaccard similarity of their shingles."""
    from winnow.dedup.sketch import make_plan

    store, settings = workspace.store(), workspace.config().duplicates
    plan = make_plan(settings)
    stage = Stage(store, "duplicate_pairs", context.run_id, pairing_key(store, plan))
    if stage.done is not None:
        return skipped(context, store, "duplicate_pairs", "no document is new since the last comparison")
    require_banded(store, plan)
    paired = pair_new_documents(store, stage, plan)
    found = paired.report
    context.log.info(
        f"{paired.documents} new documents: {paired.candidates} candidate pairs, "
        f"{paired.verified} verified at {plan.threshold}"
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
        {"candidates": paired.candidates, "verified": paired.verified, "oversize buckets": found.oversize_buckets},
    )


@dg.asset(group_name="duplicates", deps=["duplicate_pairs"], pool="store", kinds={"duckdb"})
@one_at_a_time
def duplicates(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Every duplicate has a verified pair with its keeper; most connected document of a component first."""
    from winnow.dedup.sketch import make_plan
    from winnow.plots import bars, histogram

    store, config = workspace.store(), workspace.config()
    plan = make_plan(config.duplicates)
    priorities = source_priorities(config)
    stage = Stage(store, "duplicates", context.run_id, grouping_key(store, plan, priorities))
    if stage.done is not None:
        return skipped(context, store, "duplicates", "no pair is new since the last grouping")
    near = group_duplicates(store, stage, plan, priorities)
    removed = store.query("SELECT count(*) FROM duplicates WHERE kind = 'near' AND doc_id <> keeper_id")[0][0]
    sizes = [
        size for (size,) in store.query("SELECT group_size FROM duplicates WHERE kind = 'near' AND doc_id = keeper_id")
    ]
    context.log.info(f"{removed} near duplicates in {len(sizes)} groups")
    metadata: dict[str, Any] = {"near duplicates": removed, "groups": len(sizes)}
    if len(near):
        with store.read() as connection:
            losses = removed_by_source(connection)[:40]
        metadata["group sizes"] = picture(histogram(sizes, "documents a group", log=True))
        labels = [f"{loss.source}: {loss.removed:,} of {loss.documents:,}" for loss in losses]
        metadata["removed by source"] = picture(
            bars(labels, [100 * loss.share for loss in losses], "% near duplicates")
        )
    return materialized(store, stage, "duplicates", metadata)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "semantic_duplicates",
            deps=["duplicates", "embeddings"],
            description="Documents that say the same by their embeddings, where near duplicates leave both.",
            kinds={"parquet", "numba"},
        ),
        dg.AssetSpec(
            "semantic_sweep",
            deps=["semantic_duplicates"],
            description="The share of documents that each epsilon would keep.",
            kinds={"duckdb"},
        ),
    ],
    group_name="duplicates",
    pool="store",
)
@one_at_a_time
def semantic_duplicates(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[dg.MaterializeResult]:
    """Compare what near duplicates leave by cosine inside clusters (SemDeDup); sweep epsilon; drop prototypes (D4)."""
    from winnow.embed.encoder import encoder_digest, resolve_encoder
    from winnow.plots import curves

    store, config = workspace.store(), workspace.config()
    settings, encoder = config.semantic, config.encoder
    tables = ("semantic_duplicates", "semantic_sweep")
    if not settings.enabled:
        dropped = "; the former rows are removed" if drop_semantic(store) else ""
        for table in tables:
            yield skipped(context, store, table, f"semantic.enabled is false{dropped}")
        return
    model = encoder_digest(resolve_encoder(workspace.encoder_location(config)), encoder.dtype, encoder.max_tokens)
    require_judged(store, "embeddings", "model", model)
    stage = Stage(store, "semantic_duplicates", context.run_id, semantic_key(store, config, model))
    if stage.done is not None:
        for table in tables:
            yield skipped(context, store, table, "documents, near duplicates, encoder and settings are unchanged")
        return
    found = find_semantic(store, config, model, stage)
    duplicates = found.duplicates
    context.log.info(
        f"{len(found.ids)} documents in {duplicates.clusters.count} clusters (largest {duplicates.clusters.largest}): "
        f"{len(duplicates.removed)} semantic duplicates in {found.groups} groups at epsilon {settings.epsilon:g} "
        f"({settings.variant}), {len(found.prototypes)} prototypes"
        + ("" if settings.filter else "; recorded only, semantic.filter is false")
    )
    yield materialized(
        store,
        stage,
        "semantic_duplicates",
        {
            "semantic duplicates": len(duplicates.removed),
            "groups": found.groups,
            "prototypes": len(found.prototypes),
            "clusters": duplicates.clusters.count,
            "pairs next to the threshold": table_of(example_pairs(store, found)),
        },
    )
    sweep = duplicates.sweep().to_pylist()
    lines = {}
    for variant in ("paper", "code"):
        rows = [row for row in sweep if row["variant"] == variant]
        lines[variant] = [row["epsilon"] for row in rows], [row["kept_share"] for row in rows]
    yield materialized(
        store,
        stage,
        "semantic_sweep",
        {"kept share": picture(curves(lines, "epsilon", "share of documents kept"))},
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "spans", deps=["duplicates"], description="Text that repeats inside the corpus.", kinds={"parquet", "numba"}
        ),
        dg.AssetSpec(
            "repetition", deps=["duplicates"], description="Share of each text that repeats.", kinds={"parquet"}
        ),
    ],
    group_name="duplicates",
    pool="store",
)
@one_at_a_time
def spans(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[dg.MaterializeResult]:
    """Lines, paragraphs and substrings that repeat among the kept documents, as spans."""
    from winnow.dedup.spans import make_span_plan
    from winnow.plots import bars

    store, config = workspace.store(), workspace.config()
    plan, documents = make_span_plan(config.spans), kept_documents(store, config)
    stage = Stage(store, "spans", context.run_id, spans_key(plan, documents))
    if stage.done is not None:
        for table in ("spans", "repetition"):
            yield skipped(context, store, table, "neither the kept documents nor the settings are new")
        return
    record_spans(store, stage, plan, documents)
    found = summarise(store)
    shares = ", ".join(f"{share:.1%} in {kind}s" for kind, share in found.kinds.items())
    context.log.info(f"{len(documents)} kept documents: {shares or 'nothing'} repeats")
    yield materialized(store, stage, "spans", {"plan": plan.version, "most copies": table_of(found.top)})
    metadata: dict[str, Any] = {f"% in {kind}s": round(100 * share, 2) for kind, share in found.kinds.items()}
    if found.sources:
        sources = dict(list(found.sources.items())[:40])
        labels = [f"{source}: {share:.1%}" for source, share in sources.items()]
        values = [100 * share for share in sources.values()]
        metadata["repeated by source"] = picture(bars(labels, values, "% of characters repeated"))
    yield materialized(store, stage, "repetition", metadata)
