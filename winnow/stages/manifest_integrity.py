"""Checks of the manifests: their folders, their rows, their funnels, and that none holds what was withdrawn before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from winnow.mixture.manifest_files import RECORD_FILE, ROWS_FILE, manifest_versions, verify_manifest
from winnow.stages.manifests import funnel, funnel_problems
from winnow.store.checks import RESTORE
from winnow.store.connections import quoted
from winnow.store.doctor import Patient, check


def _manifests(patient: Patient) -> list[dict[str, Any]]:
    cursor = patient.connection.execute(
        "SELECT version, path, digest, documents, tokens, selection, checkpoint FROM manifests"
        " ORDER BY len(version), version"
    )
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


ROWS_DIFFER = """
    WITH ours AS (
        SELECT "order", doc_id, uri, row, source, tokens, repeats, reason FROM manifest_rows WHERE version = $version
    ),
    theirs AS (
        SELECT "order", doc_id, uri, row, source, tokens, repeats, reason FROM read_parquet('{rows}')
    )
    SELECT count(*) FROM ((FROM ours EXCEPT ALL FROM theirs) UNION ALL (FROM theirs EXCEPT ALL FROM ours))
"""


@check("reproduce the manifest, or " + RESTORE)
def manifests(patient: Patient) -> Iterator[str]:
    """Every manifest's folder is there and verifies, and its rows are those of the store."""
    patient.see("manifest_rows")
    for row in _manifests(patient):
        folder = patient.store.home.resolve(row["path"])
        if not folder.is_dir():
            yield f"{folder} is missing"
            continue
        problems = verify_manifest(folder).problems
        yield from (f"{row['version']}: {problem}" for problem in problems)
        if problems:
            continue
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        for name in ("version", "digest", "documents", "tokens"):
            if record[name] != row[name]:
                yield f"{row['version']}, {name}: the folder says {record[name]}, the store {row[name]}"
        differing = ROWS_DIFFER.format(rows=quoted(str(folder / ROWS_FILE)))
        for (count,) in patient.rows(differing, version=row["version"]):
            if count:
                yield f"{row['version']}: {count} rows differ between {ROWS_FILE} and manifest_rows"


@check("do not train on it; `winnow run` makes one without")
def withdrawn_in_manifests(patient: Patient) -> Iterator[str]:
    """No manifest holds a document that had been withdrawn when it was made."""
    patient.see("manifest_rows")
    held = patient.rows(
        """
        SELECT version, count(DISTINCT doc_id), min(doc_id::VARCHAR)
        FROM manifest_rows JOIN manifests USING (version) JOIN withdrawn USING (doc_id)
        WHERE withdrawn_at < made_at GROUP BY version ORDER BY len(version), version
        """
    )
    for version, count, doc in held:
        yield f"{version} holds {count} documents that had been withdrawn when it was made, {doc} among them"


@check("none is needed: the next manifest takes it up if it is the same, else leaves it alone", note=True)
def unlisted_manifests(patient: Patient) -> Iterator[str]:
    """Every manifest's folder is listed in the store."""
    listed = {row["version"] for row in _manifests(patient)}
    for version in manifest_versions(patient.store.home.manifests):
        if version not in listed:
            yield str(patient.store.home.manifests / version)


@check("deliver the files of that source again (touch them)")
def funnels(patient: Patient) -> Iterator[str]:
    """In every funnel records = kept + removed + quarantined: in each manifest's, and now for the newest selection."""
    rows = _manifests(patient)
    for row in rows:
        path = patient.store.home.resolve(row["path"]) / RECORD_FILE
        if path.exists():
            recorded = json.loads(path.read_text(encoding="utf-8")).get("funnel") or {}
            yield from (f"{row['version']}, {problem}" for problem in funnel_problems(recorded))
    patient.see("decisions")
    selection = rows[-1]["selection"] if rows else ""
    tokenizer = [
        name
        for (name,) in patient.rows(
            "SELECT tokenizer FROM checkpoints WHERE checkpoint = $name", name=rows[-1]["checkpoint"] if rows else ""
        )
    ]
    counted = funnel(patient.connection, selection, tokenizer[0] if tokenizer else "")
    yield from (f"now, {problem}" for problem in funnel_problems(counted))
