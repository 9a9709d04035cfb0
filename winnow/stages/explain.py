"""Everything the store knows of one document: the evidence behind a verdict, in one place."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError
from winnow.stages.manifests import manifest_row

if TYPE_CHECKING:
    from winnow.store.store import Connection

NEIGHBOURS = 10

WITHDRAWN = """
    SELECT kind, value, t.reason, withdrawn_at FROM withdrawn JOIN takedowns t USING (kind, value)
    WHERE doc_id = $doc ORDER BY t.added_at, kind, value
"""
WITHDRAWN_RECORDS = """
    SELECT shard, row, source, original_id, url, path, sha256, run_id, delivered_at
    FROM quarantine JOIN shards USING (shard) WHERE doc_id = $doc ORDER BY shard, row
"""


def find_document(connection: Connection, name: str) -> uuid.UUID:
    """Return the doc_id that ``name`` means: a UUID, or a file's own id. Raises ``UserError`` if none or several."""
    try:
        wanted = uuid.UUID(name)
    except ValueError:
        rows = connection.execute(
            "SELECT doc_id, source FROM occurrences WHERE original_id = $name UNION"
            " SELECT q.doc_id, source FROM quarantine q JOIN shards USING (shard)"
            " WHERE q.original_id = $name AND q.doc_id IN (SELECT doc_id FROM withdrawn) ORDER BY ALL LIMIT 6",
            {"name": name},
        ).fetchall()
        if len({doc for doc, _ in rows}) > 1:
            several = ", ".join(f"{doc} ({source})" for doc, source in rows)
            raise UserError(f"'{name}' is the id of several documents: {several}; give the UUID") from None
        if not rows:
            raise UserError(f"no document '{name}': give a doc_id (see table documents) or a file's own id") from None
        return rows[0][0]
    known = "SELECT 1 FROM documents WHERE doc_id = $doc UNION ALL SELECT 1 FROM withdrawn WHERE doc_id = $doc"
    if not connection.execute(known, {"doc": wanted}).fetchone():
        raise UserError(f"no document {wanted} in the store: it was never delivered, or all its files are withdrawn")
    return wanted


def explain_document(connection: Connection, name: str, version: str | None = None) -> dict[str, Any]:
    """Return where a document occurs and every judgement on it: signals, duplicates, scores, round, verdict.

    Of a withdrawn one there is left what withdrew it, where it stood, and which manifests have it.
    """
    doc = find_document(connection, name)
    parameters = {"doc": doc}

    def rows(query: str, **more: Any) -> list[dict[str, Any]]:
        cursor = connection.execute(query, {**parameters, **more})
        columns = [column[0] for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    withdrawn = rows(WITHDRAWN)
    if withdrawn:
        return {
            "document": {"doc_id": doc},
            "withdrawn": withdrawn,
            "occurrences": rows(WITHDRAWN_RECORDS),
            "manifests": rows(
                'SELECT version, "order", uri, row, tokens, reason FROM manifest_rows WHERE doc_id = $doc'
                " ORDER BY len(version), version"
            ),
        }

    found: dict[str, Any] = {
        "document": rows(
            "SELECT d.*, left(text, 400) AS excerpt FROM documents d LEFT JOIN texts USING (doc_id) WHERE doc_id = $doc"
        )[0],
        "occurrences": rows(
            "SELECT shard, row, source, original_id, url, date, path, sha256, run_id, delivered_at"
            " FROM occurrences JOIN shards USING (shard, source) WHERE doc_id = $doc ORDER BY shard, row"
        ),
        "signals": rows("SELECT * EXCLUDE (doc_id) FROM signals WHERE doc_id = $doc"),
        "tokens": rows("SELECT tokenizer, tokens FROM token_counts WHERE doc_id = $doc"),
        "duplicates": rows("SELECT * EXCLUDE (doc_id) FROM duplicates WHERE doc_id = $doc"),
        "duplicate_pairs": rows(
            """
            SELECT CASE WHEN doc_a = $doc THEN doc_b ELSE doc_a END AS other, similarity, kind,
                   d.source, d.original_id
            FROM duplicate_pairs JOIN documents d ON d.doc_id = CASE WHEN doc_a = $doc THEN doc_b ELSE doc_a END
            WHERE doc_a = $doc OR doc_b = $doc ORDER BY similarity DESC, other LIMIT $most
            """,
            most=NEIGHBOURS,
        ),
        "contamination": rows(
            """
            SELECT c.evaluation_set, c.method, c.part, c.longest_match, c.matched_words, c.score, c.required,
                   c.answer_near, c.coverage, c.contaminated, coalesce(i.item_id, c.item::VARCHAR) AS item_id,
                   (SELECT count(*) FROM contamination_items m WHERE m.doc_id = c.doc_id
                    AND m.evaluation_set = c.evaluation_set AND m.version = c.version) AS items,
                   substr(t.text, c.span_start::BIGINT + 1, c.span_end - c.span_start) AS shared_text
            FROM contamination c
            LEFT JOIN reference_sets s ON s.reference = c.evaluation_set  -- whose overlap goes when its items change
            LEFT JOIN reference_items i ON i.digest = s.digest AND i.item = c.item
            LEFT JOIN texts t USING (doc_id)
            WHERE doc_id = $doc ORDER BY c.contaminated DESC, c.score DESC, c.longest_match DESC
            """
        ),
        "cluster": rows(
            "SELECT c.cluster, c.distance, s.label, s.documents FROM clusters c"
            " LEFT JOIN cluster_summary s USING (clustering, cluster) WHERE doc_id = $doc"
        ),
        "probes": rows("SELECT * EXCLUDE (doc_id) FROM probes WHERE doc_id = $doc ORDER BY checkpoint, method"),
        "scores": rows(
            "SELECT * EXCLUDE (doc_id) FROM ("
            "  SELECT *, percent_rank() OVER (PARTITION BY scorer, version ORDER BY score) AS rank_share FROM scores"
            ") WHERE doc_id = $doc ORDER BY checkpoint"
        ),
    }
    try:
        manifest = manifest_row(connection, version)
    except UserError:
        if version:
            raise
        return found | {"manifest": None, "decision": [], "rounds": [], "manifest_row": []}
    selection, chosen = manifest["selection"], manifest["version"]
    found["manifest"] = {key: manifest[key] for key in ("version", "digest", "checkpoint", "selection")}
    found["decision"] = rows(
        "SELECT stage, verdict, reason, detail, matched_doc, cluster, score, in_control FROM decisions"
        " WHERE doc_id = $doc AND selection = $selection",
        selection=selection,
    )
    found["rounds"] = rows(
        """
        SELECT round, verdict, probes, reward, arm_mean, bonus, score, tokens_granted FROM bandit_rounds
        WHERE selection = $selection AND cluster = (SELECT cluster FROM clusters WHERE doc_id = $doc) ORDER BY pull
        """,
        selection=selection,
    )
    found["manifest_row"] = rows(
        'SELECT "order", uri, row, source, tokens, repeats, reason FROM manifest_rows'
        " WHERE doc_id = $doc AND version = $version",
        version=chosen,
    )
    found["manifests"] = [
        row["version"] for row in rows("SELECT version FROM manifest_rows WHERE doc_id = $doc ORDER BY version")
    ]
    return found
