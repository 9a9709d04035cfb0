"""Checks of what the tables say of each other: records, documents, judgements, withdrawn documents."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from winnow.identity import doc_ids, stored_ids
from winnow.stages.corpus import reader_digest
from winnow.stages.corpus_digest import recomputed_corpus_digest
from winnow.stages.documents import DERIVE_DOCUMENTS
from winnow.store.checks import AGAIN, RESTORE
from winnow.store.doctor import Patient, check
from winnow.store.schema import tables
from winnow.store.store import get_meta

TEXT_ROWS = 4_096
DELIVER = "deliver the file again (touch it)"


@check(DELIVER)
def records(patient: Patient) -> Iterator[str]:
    """In every shard records = occurrences + quarantined, and as many rows are there."""
    rows = patient.rows(
        """
        SELECT shard, s.records, s.occurrences, s.quarantined, coalesce(o.found, 0), coalesce(q.found, 0)
        FROM shards s
        LEFT JOIN (SELECT shard, count(*) AS found FROM occurrences GROUP BY shard) o USING (shard)
        LEFT JOIN (SELECT shard, sum(records)::BIGINT AS found FROM quarantine GROUP BY shard) q USING (shard)
        WHERE s.records IS DISTINCT FROM s.occurrences + s.quarantined
           OR s.occurrences <> coalesce(o.found, 0) OR s.quarantined <> coalesce(q.found, 0)
        ORDER BY shard
        """
    )
    for shard, total, occurrences, quarantined, occur, bad in rows:
        yield (
            f"shard {shard}: {total} records, {occurrences} occurrences ({occur} rows), "
            f"{quarantined} quarantined (rows for {bad})"
        )


@check(DELIVER)
def shards_of_records(patient: Patient) -> Iterator[str]:
    """Every occurrence and every quarantined record has its shard, of the same source."""
    for table in ("occurrences", "quarantine"):
        lost = f"SELECT shard, count(*) FROM {table} ANTI JOIN shards USING (shard) GROUP BY shard ORDER BY shard"  # noqa: S608
        for shard, count in patient.rows(lost):
            yield f"{count} rows of {table} are of shard {shard}, which is not there"
    other = (
        "SELECT shard, o.source, s.source, count(*) FROM occurrences o JOIN shards s USING (shard)"
        " WHERE o.source <> s.source GROUP BY ALL ORDER BY ALL"
    )
    for shard, source, expected, count in patient.rows(other):
        yield f"{count} occurrences of shard {shard} have source {source}, the shard has {expected}"


FRESH = """
    SELECT doc_id, CASE WHEN d.doc_id IS NULL THEN 'is not there' WHEN f.doc_id IS NULL THEN 'has no occurrence'
                        WHEN d.dup_count <> f.dup_count
                            THEN format('has dup_count {}, its occurrences are {}', d.dup_count, f.dup_count)
                        ELSE format('stands for row {} of {}, the canonical occurrence is row {} of {}',
                                    d.row, d.shard, f.row, f.shard) END AS problem
    FROM main.documents d FULL JOIN fresh.documents f USING (doc_id)
    WHERE d.doc_id IS NULL OR f.doc_id IS NULL OR d.dup_count <> f.dup_count
       OR (d IS DISTINCT FROM f AND doc_id NOT IN (SELECT doc_id FROM fresh.waiting))
    ORDER BY doc_id
"""


@check(DELIVER + "; its documents are derived anew")
def documents(patient: Patient) -> Iterator[str]:
    """The documents are those that the occurrences give: which there are, how often, and where the canonical one is.

    Where a shard waits to be read with other settings, the canonical occurrence may still be that of the former ones.
    """
    corpus, connection = patient.config.corpus, patient.connection.cursor()
    sources = [source for (source,) in patient.rows("SELECT DISTINCT source FROM shards")]
    current = pa.table(
        {
            "source": pa.array(sources, pa.string()),
            "reader": pa.array([reader_digest(corpus, source) for source in sources], pa.string()),
            "priority": pa.array([corpus.source(source).priority for source in sources], pa.int64()),
        }
    )
    connection.register("current_readers", current)
    for statement in (
        "CREATE SCHEMA fresh",
        "CREATE TABLE fresh.documents AS FROM main.documents LIMIT 0",
        "CREATE TABLE fresh.touched AS SELECT DISTINCT doc_id FROM occurrences",
        "CREATE TABLE fresh.priorities AS SELECT source, priority FROM current_readers",
        "CREATE TABLE fresh.waiting AS SELECT DISTINCT doc_id FROM occurrences SEMI JOIN"
        " (SELECT shard FROM shards ANTI JOIN current_readers USING (source, reader)) USING (shard)",
        "SET search_path = 'fresh,main'",
        DERIVE_DOCUMENTS,
    ):
        connection.execute(statement)
    for doc, problem in patient.rows(FRESH):
        yield f"document {doc} {problem}"


@check(AGAIN)
def texts(patient: Patient) -> Iterator[str]:
    """Every document has its text."""
    patient.see("texts")
    lacking = patient.rows(
        "SELECT doc_id, shard, row FROM documents ANTI JOIN (SELECT doc_id FROM texts) t USING (doc_id) ORDER BY doc_id"
    )
    for doc, shard, row in lacking:
        yield f"document {doc} (row {row} of {shard})"


KEPT = ("probes", "judged")
"""Tables that keep what was measured of a document that is gone, for when it comes back."""


@check(DELIVER + " or, for good, delete the rows with the Winnow that made the store")
def judgements(patient: Patient) -> Iterator[str]:
    """Nothing is judged that is no document any more."""
    judged = [
        (table.name, table.document, "true")
        for table in tables().values()
        if table.document and not table.parts and table.name not in KEPT
    ]
    judged += [("duplicate_pairs", "doc_a", "true"), ("duplicate_pairs", "doc_b", "true")]
    judged += [("judged", "doc_id", "stage <> 'probes'")]
    for table, column, where in judged:
        lost = (
            f"SELECT {column}, count(*) FROM {table} WHERE {where}"  # noqa: S608
            f" AND {column} NOT IN (SELECT doc_id FROM documents) GROUP BY {column} ORDER BY {column}"
        )
        for doc, count in patient.rows(lost):
            yield f"{count} rows of {table} judge {doc}"


WITHDRAWN = """
    SELECT 'document ' || doc_id || ' is withdrawn and has an occurrence at row ' || row || ' of ' || shard
    FROM occurrences SEMI JOIN withdrawn USING (doc_id)
    UNION ALL
    SELECT 'row ' || row || ' of ' || shard || ' is withdrawn, but no takedown reaches its document'
    FROM quarantine JOIN shards USING (shard)
    WHERE reason = 'withdrawn' AND doc_id NOT IN (SELECT doc_id FROM withdrawn) AND reader <> ''
    UNION ALL
    SELECT 'document ' || doc_id || ' is withdrawn by ' || kind || ' ' || value || ', which is no takedown'
    FROM withdrawn ANTI JOIN takedowns USING (kind, value)
    ORDER BY ALL
"""


@check("`winnow takedown add` with a demand that is there already withdraws what is left")
def withdrawn(patient: Patient) -> Iterator[str]:
    """Withdrawn documents occur nowhere, and no live part holds their text."""
    yield from (sentence for (sentence,) in patient.rows(WITHDRAWN))
    ids = patient.connection.execute("SELECT DISTINCT doc_id FROM withdrawn").to_arrow_table()["doc_id"]
    for part in patient.live.get("texts", []) if len(ids) else ():
        with patient.store.storage.open("texts", part) as file:
            for rows in file.iter_batches(TEXT_ROWS, columns=["doc_id", "shard", "row"]):
                held = rows.filter(pc.is_in(stored_ids(rows["doc_id"]), stored_ids(ids.combine_chunks())))
                for row in held.select(["shard", "row"]).to_pylist():
                    yield f"part {part} holds the text of row {row['row']} of {row['shard']}"


@check("deliver any file again (touch it); if it stays, " + RESTORE)
def corpus_digest(patient: Patient) -> Iterator[str]:
    """The recorded digest of the corpus is that of its documents."""
    if get_meta(patient.connection, "corpus_lanes") is None and get_meta(patient.connection, "corpus_digest"):
        return  # an older Winnow recorded it in its own way; the next delivery does so in ours
    kept, found = get_meta(patient.connection, "corpus_digest"), recomputed_corpus_digest(patient.connection)
    there = patient.connection.execute("SELECT 1 FROM documents LIMIT 1").fetchone()
    if kept != found and (kept is not None or there):
        yield f"recorded {kept}, the documents give {found}"


@check(AGAIN, deep=True)
def text_ids(patient: Patient) -> Iterator[str]:
    """Every text gives the doc_id that it is stored under."""
    for part in patient.live.get("texts", []):
        with patient.store.storage.open("texts", part) as file:
            for rows in file.iter_batches(TEXT_ROWS, columns=["doc_id", "shard", "row", "text"]):
                found = doc_ids(rows["text"].to_pylist())
                wrong = pc.not_equal(stored_ids(found), stored_ids(rows["doc_id"]))
                for row in rows.select(["shard", "row"]).filter(wrong).to_pylist():
                    yield f"part {part}: the text of row {row['row']} of {row['shard']} is another document's"
