"""Tables of the corpus: files, occurrences, documents, what was refused and what was withdrawn."""

from __future__ import annotations

from winnow.store.schema.table import DOC_ID, Table


def corpus() -> tuple[Table, ...]:
    """Return these tables in the order in which a document travels."""
    return (
        Table(
            "shards",
            "A file as delivered.",
            (
                ("shard", "VARCHAR", "the file's uri relative to its corpus root, `source/file`"),
                ("batch", "VARCHAR", "the `shards` partition that delivered it"),
                ("source", "VARCHAR", "the file's folder below the corpus root"),
                ("path", "VARCHAR", "where the file lay when it was read: a path or a URI"),
                ("format", "VARCHAR", "the reader's name, and the compression: jsonl.zst, parquet, warc.gz, ..."),
                ("bytes", "BIGINT", "size of the file"),
                (
                    "mtime_ns",
                    "BIGINT",
                    "its modification time in nanoseconds, remote: a number of its ETag; with the size it tells an "
                    "unchanged file",
                ),
                ("sha256", "VARCHAR", "digest of its bytes"),
                ("reader", "VARCHAR", "digest of the field map, limits and reader version it was read with"),
                ("normalization", "VARCHAR", "what was done to its texts on arrival, with the version; `none`"),
                ("fields", "VARCHAR", "top-level fields of its records and their JSON types, JSON"),
                ("records", "BIGINT", "records in the file = occurrences + quarantined"),
                ("occurrences", "BIGINT", "records that became documents"),
                ("quarantined", "BIGINT", "records that could not be read"),
                ("failed", "BOOLEAN", "true when too many records were bad: no document of the file was admitted"),
                ("parts", "VARCHAR[]", "digests of the parts that hold its texts"),
                ("delivered_at", "TIMESTAMP", "when it was read (UTC)"),
                ("run_id", "VARCHAR", "the run that read it"),
            ),
            ("shard",),
            "corpus",
        ),
        Table(
            "occurrences",
            "A document in a shard; an identical text in ten places has ten.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "the file, see `shards`"),
                ("row", "BIGINT", "0-based record number in the file"),
                ("source", "VARCHAR", "the shard's source"),
                ("original_id", "VARCHAR", "the file's own id"),
                ("url", "VARCHAR", "the record's url, if it has one"),
                ("date", "VARCHAR", "the record's date as it stands there"),
                ("metadata", "VARCHAR", "all other fields, as canonical JSON"),
                ("characters", "BIGINT", "length of the text in code points"),
                ("bytes", "BIGINT", "length of the text in UTF-8"),
                ("words", "BIGINT", "white-space separated words"),
            ),
            ("shard", "row"),
            "corpus",
        ),
        Table(
            "documents",
            "A distinct text; derived from live occurrences, it exists while one is left.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "shard of the canonical occurrence"),
                ("row", "BIGINT", "row of the canonical occurrence"),
                ("source", "VARCHAR", "source of the canonical occurrence"),
                ("original_id", "VARCHAR", "the file's own id there"),
                ("characters", "BIGINT", "length of the text in code points"),
                ("bytes", "BIGINT", "length of the text in UTF-8"),
                ("words", "BIGINT", "white-space separated words"),
                ("dup_count", "BIGINT", "live occurrences of this text"),
            ),
            ("doc_id",),
            "corpus",
        ),
        Table(
            "quarantine",
            "A record that could not be read, and why.",
            (
                ("shard", "VARCHAR", "the file, see `shards`"),
                ("row", "BIGINT", "0-based record number, where it is known"),
                ("byte_offset", "BIGINT", "offset in the decompressed stream, where it is known"),
                ("reason", "VARCHAR", "what is wrong, as a word to group by"),
                ("detail", "VARCHAR", "what is wrong and how to mend it"),
                ("excerpt", "VARCHAR", "the first characters of the record"),
                ("records", "BIGINT", "how many records this row stands for (the rest of a failed file is one row)"),
                ("doc_id", "UUID", "the document of a record that was withdrawn; else null"),
                ("original_id", "VARCHAR", "the file's own id of a record that was withdrawn; else null"),
                ("url", "VARCHAR", "the url of a record that was withdrawn; else null"),
            ),
            ("shard", "row", "byte_offset", "reason"),
            "corpus",
        ),
        Table(
            "refused",
            "A file that was left as it was: its bytes did not come, or its fields contradict its source's.",
            (
                ("shard", "VARCHAR", "the file, see `shards` (which has it as it was before, if it was there)"),
                ("path", "VARCHAR", "where it lies"),
                ("bytes", "BIGINT", "its size"),
                ("mtime_ns", "BIGINT", "as in `shards`: a file that changes is tried at once"),
                ("reason", "VARCHAR", "what is wrong, and the mend"),
                ("refused_at", "TIMESTAMP", "when it was last tried (UTC)"),
            ),
            ("shard",),
            "corpus",
        ),
        Table(
            "takedowns",
            "A demand to withdraw: documents that match are in no later manifest.",
            (
                ("kind", "VARCHAR", "doc_id, original_id, url or sha256 (of the text in UTF-8)"),
                ("value", "VARCHAR", "what is withdrawn"),
                ("reason", "VARCHAR", "why, as the user gave it"),
                ("added_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("kind", "value"),
            "corpus",
        ),
        Table(
            "withdrawn",
            "A document that a takedown reached: its occurrences are in `quarantine`, and stay there.",
            (
                DOC_ID,
                ("kind", "VARCHAR", "kind of a takedown that reached it"),
                ("value", "VARCHAR", "its value, see `takedowns`"),
                ("withdrawn_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("doc_id", "kind", "value"),
            "corpus",
        ),
        Table(
            "texts",
            "The text of every document.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "the shard that holds this copy"),
                ("row", "BIGINT", "the record in it"),
                ("text", "VARCHAR", "the document"),
                ("original", "VARCHAR", "the text as delivered, where normalization changed it; else null"),
            ),
            ("doc_id",),
            "corpus",
            parts=True,
            document="doc_id",
        ),
    )
