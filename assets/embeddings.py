"""Document vectors, and the clusters that are the bandit's arms."""

from collections.abc import Iterator

import dagster as dg

from resources.partitions import SHARDS
from resources.report import materialized, picture, skipped, table_of
from resources.turns import one_at_a_time
from resources.workspace import Workspace
from winnow.dedup.sketch import make_plan
from winnow.quality.judge import quality_version
from winnow.stages.clusters import assign_new, current_clustering, fit_clustering, summarise
from winnow.stages.corpus import corpus_digest
from winnow.stages.loop import require_judged
from winnow.store.garbage import no_garbage_collection
from winnow.store.judgements import pending, texts_of
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import add_parts

DOCUMENTS_A_PART = 2_000
"""A killed run keeps every part that was written, so this bounds the work that is lost."""


@dg.asset(
    group_name="embeddings",
    deps=["documents"],
    partitions_def=SHARDS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="store",
    kinds={"parquet", "huggingface"},
)
@one_at_a_time
def embeddings(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """L2-normalised sentence-transformers vectors of the documents that have none from this encoder yet."""
    from winnow.embed.encoder import encoder_digest, load_encoder, resolve_encoder
    from winnow.embed.rows import embedding_rows

    store, config = workspace.store(), workspace.config()
    settings = config.encoder
    model = encoder_digest(resolve_encoder(workspace.encoder_location(config)), settings.dtype, settings.max_tokens)
    documents = pending(store, "embeddings", "model", model)
    if not len(documents):
        return skipped(context, store, "embeddings", "every document has a vector")
    encoder = load_encoder(workspace.encoder_location(config), settings.dtype, settings.max_tokens)
    done = 0
    batches = texts_of(store, documents.sort_by("characters"))
    for texts in (
        batch.slice(at, DOCUMENTS_A_PART) for batch in batches for at in range(0, len(batch), DOCUMENTS_A_PART)
    ):
        stage = Stage(store, "embeddings", context.run_id, partition=",".join(context.partition_keys))
        rows = embedding_rows(encoder, texts)
        with no_garbage_collection(store):
            parts = store.write_parts("embeddings", [rows])
            with store.write() as connection:
                add_parts(connection, parts)
                stage.finish(connection, len(texts), output=model)
        done += len(texts)
        context.log.info(
            f"{done} of {len(documents)} documents embedded ({len(texts) / stage.seconds:,.0f} documents/s)"
        )
    stage.processed = len(documents)
    return materialized(store, stage, "embeddings", {"encoder": settings.name, "dtype": encoder.dtype})


@dg.multi_asset(
    specs=[
        dg.AssetSpec("clusters", deps=["embeddings"], description="Document to cluster.", kinds={"duckdb"}),
        dg.AssetSpec(
            "cluster_summary",
            deps=["clusters", "signals", "duplicates"],
            description="A cluster's size, label and means.",
        ),
    ],
    group_name="embeddings",
    pool="store",
)
@one_at_a_time
def clusters(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[dg.MaterializeResult]:
    """Assign new documents to centroids that are fitted once; new data never moves them."""
    from winnow.embed.encoder import encoder_digest, resolve_encoder
    from winnow.plots import bars

    store, config = workspace.store(), workspace.config()
    settings = config.encoder
    model = encoder_digest(resolve_encoder(workspace.encoder_location(config)), settings.dtype, settings.max_tokens)
    require_judged(store, "embeddings", "model", model)
    clustering = current_clustering(store, config, model)
    if clustering is None:
        clustering = fit_clustering(store, config, model, context.run_id)
        context.log.info(f"fitted {clustering.count} clusters on the embeddings; they stay as they are from now on")
    judged = [quality_version(config.quality), make_plan(config.duplicates).scheme]  # what the summary counts
    key = stage_key("clusters", clustering.name, corpus=corpus_digest(store), judged=judged)
    stage = Stage(store, "clusters", context.run_id, key)
    if stage.done is not None:
        for table in ("clusters", "cluster_summary"):
            yield skipped(context, store, table, "every document has its cluster")
        return
    assigned = assign_new(store, clustering)
    with store.write() as connection:
        clustering.write(connection, assigned)
        summarise(connection, clustering)
        forget_keys(connection, "clusters")  # the table holds one clustering: an earlier key says nothing any more
        stage.finish(connection, len(assigned), output=clustering.name)
    summary = store.arrow(
        "SELECT cluster, documents, label FROM cluster_summary WHERE clustering = $name"
        " ORDER BY documents DESC, cluster",
        {"name": clustering.name},
    ).to_pylist()
    context.log.info(f"{len(assigned)} documents assigned to {clustering.count} clusters")
    yield materialized(store, stage, "clusters", {"clustering": clustering.name})
    labels = [f"{row['cluster']}: {row['label']}" for row in summary[:40]]
    yield materialized(
        store,
        stage,
        "cluster_summary",
        {
            "clusters": table_of(summary[:50]),
            "sizes": picture(bars(labels, [row["documents"] for row in summary[:40]], "documents")),
        },
    )
