"""``lineage``: from every row of every manifest back to the file, the record and the run that brought it."""

from __future__ import annotations

LINEAGE = """
    SELECT m.version, m."order", m.doc_id, m.uri AS shard, m.row, m.source,
           s.path, s.sha256, s.run_id, s.delivered_at, s.delivered_at <= v.made_at AS unchanged
    FROM manifest_rows m JOIN manifests v USING (version) LEFT JOIN shards s ON s.shard = m.uri
"""
"""The view in the published file: ``CREATE VIEW lineage AS`` + this."""

LINEAGE_MEANING = "Where a row of a manifest comes from: its file, its record there, and the run that read it."

LINEAGE_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("version", "VARCHAR", "the manifest"),
    ("order", "BIGINT", "position in training"),
    ("doc_id", "UUID", "xxh3-128 of the document's UTF-8 text"),
    ("shard", "VARCHAR", "the file, see `shards`"),
    ("row", "BIGINT", "0-based record number in the file"),
    ("source", "VARCHAR", "the shard's source"),
    ("path", "VARCHAR", "where the file lay when it was read; null: the file is withdrawn by now"),
    ("sha256", "VARCHAR", "digest of the file's bytes"),
    ("run_id", "VARCHAR", "the run that read it"),
    ("delivered_at", "TIMESTAMP", "when it was read (UTC)"),
    (
        "unchanged",
        "BOOLEAN",
        "false: the file was read again after the manifest was made, and path to delivered_at tell of that reading; "
        "`winnow sql` with `--at` shows the earlier one",
    ),
)
