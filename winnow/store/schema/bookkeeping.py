"""Tables about the store itself: costs, stage keys, parts, snapshots."""

from __future__ import annotations

from winnow.store.schema.table import DOC_ID, Table


def bookkeeping() -> tuple[Table, ...]:
    """Return these tables in the order in which a document travels."""
    return (
        Table(
            "costs",
            "What each stage did and what it cost.",
            (
                ("stage", "VARCHAR", "the asset"),
                ("partition", "VARCHAR", "its partition, if it has one"),
                ("run_id", "VARCHAR", "the run"),
                ("key", "VARCHAR", "the stage key"),
                ("processed", "BIGINT", "documents it worked on (tokens for training, pulls for the bandit)"),
                ("bytes", "BIGINT", "bytes it read, where it reads files or texts"),
                ("seconds", "DOUBLE", "wall time"),
                ("peak_mb", "DOUBLE", "peak resident memory so far of the process or of its largest worker, MiB"),
                ("flops", "DOUBLE", "model floating-point operations, where a model ran (6ND train, 2ND forward)"),
                ("finished_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("stage", "partition", "run_id"),
            "bookkeeping",
        ),
        Table(
            "stage_keys",
            "Keys of finished stages: a stage whose key is here is skipped.",
            (
                ("stage", "VARCHAR", "the asset"),
                ("partition", "VARCHAR", "its partition, '' without"),
                ("key", "VARCHAR", "digest of inputs, method version and settings"),
                ("output", "VARCHAR", "digest or name of what came out"),
                ("finished_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("stage", "partition", "key"),
            "bookkeeping",
        ),
        Table(
            "judged",
            "Documents that a stage with sparse results has seen.",
            (
                ("stage", "VARCHAR", "the stage"),
                ("version", "VARCHAR", "its version"),
                DOC_ID,
            ),
            ("stage", "version", "doc_id"),
            "bookkeeping",
            document="doc_id",
            internal=True,
        ),
        Table(
            "parts",
            "Live Parquet parts.",
            (
                ("part", "VARCHAR", "digest of its content"),
                ("kind", "VARCHAR", "the table whose rows it holds"),
                ("rows", "BIGINT", "rows"),
                ("bytes", "BIGINT", "size of the file"),
                ("owner", "VARCHAR", "what it belongs to whole: the selection of `decisions`, a manifest's version"),
                ("added_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("part",),
            "bookkeeping",
        ),
        Table(
            "unlisted",
            "Parts that were live and are no more, until their files are gone: garbage collection counts from here.",
            (
                ("part", "VARCHAR", "digest of its content"),
                ("kind", "VARCHAR", "the table whose rows it holds"),
                ("unlisted_at", "TIMESTAMP", "when it was taken out of `parts` (UTC)"),
            ),
            ("part",),
            "bookkeeping",
            internal=True,
        ),
        Table(
            "snapshots",
            "The parts that hold the store as it was when a manifest was made; `winnow sql` reads them with `--at`.",
            (
                ("version", "VARCHAR", "the manifest"),
                ("name", "VARCHAR", "the table"),
                ("kind", "VARCHAR", "the folder of the part below `store/parts`"),
                ("part", "VARCHAR", "digest of the part"),
                ("content", "VARCHAR", "what tells the table's rows apart from others; null where its parts are live"),
            ),
            ("version", "name", "part"),
            "bookkeeping",
        ),
        Table(
            "meta",
            "Facts about the store itself.",
            (
                (
                    "key",
                    "VARCHAR",
                    "schema_version, schema (digest of tables and columns), generation (of writes), deliveries (so "
                    "far), corpus_digest and corpus_lanes (what it is a digest of), purge_due, data (store.data at the "
                    "last write), store (drawn when made), part_columns (digests of the columns of parts, or mixed: "
                    "some lack one), home (published file)",
                ),
                ("value", "VARCHAR", "its value"),
            ),
            ("key",),
            "bookkeeping",
        ),
    )
