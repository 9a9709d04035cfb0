"""Deliveries into the store: shards, occurrences, quarantine and texts, and the documents derived from them.

Files are read into staged Parquet with no connection open; one transaction then replaces the shards' rows, derives the
touched documents anew and drops the judgements of documents that lost their last occurrence. Whatever the order and the
cut of deliveries, the tables end as one delivery of the final state would leave them.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from winnow.config import Corpus
from winnow.errors import UserError
from winnow.identity import digest, digest_file
from winnow.stages.documents import derive_documents
from winnow.stages.progress import Count, Progress
from winnow.stages.reading import read_all
from winnow.stages.staging import (
    Delivered,
    ReadFile,
    put_together,
    quarantine_rows,
    refuse,
    refused_rows,
    shard_row,
    touched_table,
)
from winnow.stages.takedowns import apply_takedowns, demanded_hashes
from winnow.stages.text_parts import parts_of_affected, replace_parts, rewrite_parts, without_refused
from winnow.stages.withdrawn_texts import PURGE_DUE, doc_ids_by_hash, purge_withdrawn
from winnow.store.faults import explained
from winnow.store.garbage import keeping_parts
from winnow.store.stage import Stage
from winnow.store.store import Store, add_parts, get_meta, insert, set_meta
from winnow.text.deliveries import DeliveredFile, Delivery, Known
from winnow.text.drift import FieldTypes
from winnow.text.formats import Reading
from winnow.text.limits import Limits
from winnow.text.locations import is_remote
from winnow.text.normalize import Normalization
from winnow.text.planning import plan_tasks
from winnow.text.records import FieldMap

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

READER_VERSION = "2"
"""Raise it when the same bytes would give other rows: every file is then read anew."""


def known_shards(connection: Connection, corpus: Corpus) -> Known:
    """Return size and modification time of every shard as it was last read.

    A shard that was read with other settings than ``corpus`` has now (its source's fields and priority, the limits, the
    reader) counts as different from any file, so that it is delivered anew.
    """
    rows = connection.execute("SELECT shard, source, reader, bytes, mtime_ns FROM shards").fetchall()
    current = {source: reader_digest(corpus, source) for source in {row[1] for row in rows}}
    shards = {
        shard: (size, mtime) if reader == current[source] else (-1, -1) for shard, source, reader, size, mtime in rows
    }
    refused = {}
    if connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE table_name = 'refused'"
    ).fetchone():  # else an older file
        found = connection.execute("SELECT shard, bytes, mtime_ns FROM refused ORDER BY refused_at, shard").fetchall()
        refused = {shard: (size, mtime) for shard, size, mtime in found}
    return Known(shards, int(get_meta(connection, "deliveries") or 0), refused)


def reader_digest(corpus: Corpus, source: str) -> str:
    """Return the digest of all that decides how a source's files are read and ranked, but their bytes."""
    limits = [
        corpus.max_record_bytes,
        corpus.max_bad_fraction,
        corpus.max_bad_records,
        corpus.max_expansion,
        corpus.max_decompressed_bytes,
    ]
    settings = corpus.source(source)
    normalization = Normalization(settings.normalization).name
    return digest([READER_VERSION, settings.model_dump(mode="json"), normalization, limits])


def reading_of(corpus: Corpus, file: DeliveredFile) -> Reading:
    """Return how a file is read: its source's settings and the limits."""
    source = corpus.source(file.source)
    return Reading(
        fields=FieldMap(
            source.text_field,
            source.id_field or None,
            source.url_field or None,
            source.date_field or None,
            None if "*" in source.metadata else tuple(source.metadata),
        ),
        limits=Limits(
            max_record_bytes=corpus.max_record_bytes,
            batch_bytes=corpus.batch_bytes,
            max_bad_fraction=corpus.max_bad_fraction,
            max_bad_records=corpus.max_bad_records,
            max_expansion=corpus.max_expansion,
            max_decompressed_bytes=corpus.max_decompressed_bytes,
        ),
        format=source.format,
        separator=source.separator,
        delimiter=source.delimiter,
        html=source.html,
        normalization=tuple(source.normalization),
        attributes=file.attributes,
    )


def corpus_digest(store: Store) -> str:
    """Return the digest of the live documents and their sources, whatever files brought them."""
    with store.read() as connection:
        return get_meta(connection, "corpus_digest") or digest([])


@keeping_parts
def deliver(
    store: Store,
    corpus: Corpus,
    delivery: Delivery,
    work: Stage,
    progress: Callable[[Count], None] = lambda count: log.info("%s", count),
) -> Delivered:
    """Read a delivery and replace, add or withdraw its shards; a file that is unchanged is left alone.

    ``work`` names the run and the ``shards`` partition, and is finished in the transaction that commits the rows. Files
    in ``refused`` keep the rows that they had; all others are committed, so that no file holds up another.
    """
    report = Delivered()
    folder = store.home.scratch / f"delivery-{uuid.uuid4().hex}"
    known = {
        shard: Before(*row)
        for shard, *row in store.query(
            "SELECT shard, source, sha256, reader, bytes, mtime_ns, CASE WHEN NOT failed THEN fields END FROM shards"
        )
    }
    touched: list[DeliveredFile] = []
    wanted: list[tuple[DeliveredFile, Reading]] = []
    readers = {source: reader_digest(corpus, source) for source in {file.source for file in delivery.files}}
    for file in delivery.files:
        settings = readers[file.source]
        before = known.get(file.shard)
        if before and (before.reader, before.bytes, before.mtime_ns) == (settings, *file.fingerprint):
            report.unchanged += 1
        elif before and (before.reader, before.bytes) == (settings, file.bytes) and _same_bytes(file, before.sha256):
            touched.append(file)
            report.unchanged += 1
        else:
            wanted.append((file, reading_of(corpus, file)))
    gone = [shard for shard in delivery.withdrawn if shard in known]
    try:
        plan = plan_tasks(wanted, corpus.shard_bytes)
        report.bytes = sum(file.bytes for file, _ in wanted)
        started = time.monotonic()
        with explained(str(store.home.scratch), "reading a delivery"):
            reads = read_all(plan, store.home, store.settings, folder, corpus.workers, Progress(plan.bytes, progress))
        files = put_together(reads, plan.cuts)
        leaving = {file.shard for file, _ in wanted} | {*gone, *delivery.waiting}
        staying: dict[str, dict[str, FieldTypes]] = {}
        for shard, before in known.items():
            if shard not in leaving and before.fields is not None:
                staying.setdefault(before.source, {})[shard] = FieldTypes.from_json(before.fields)
        refuse(files, staying, corpus)
        report.refused = [file.unavailable for file in files if file.unavailable is not None]
        without_refused(store, files)
        taken = [file for file in files if file.unavailable is None]
        _count_files(report, taken, gone)
        report.read_seconds = time.monotonic() - started
        if taken or gone or touched:
            started = time.monotonic()
            _commit(store, corpus, readers, taken, touched, gone, report, work)
            report.commit_seconds = time.monotonic() - started
        _record_refused(store, delivery, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


@dataclass(frozen=True)
class Before:
    """A shard as the store knows it."""

    source: str
    sha256: str | None
    reader: str
    bytes: int
    mtime_ns: int
    fields: str | None


def _same_bytes(file: DeliveredFile, sha256: str | None) -> bool:
    if sha256 is None or is_remote(file.path) or file.attributes:
        return False
    try:
        return digest_file(Path(file.path)) == sha256
    except OSError:
        return False


def _record_refused(store: Store, delivery: Delivery, files: list[ReadFile]) -> None:
    """Say which files of the delivery were refused, and no longer which were before."""
    looked_at = pa.table(
        {"shard": pa.array([*(file.shard for file in delivery.files), *delivery.withdrawn], pa.string())}
    )
    rows = refused_rows(files)
    with store.read() as connection:
        connection.register("looked_at", looked_at)
        if (
            not len(rows)
            and not connection.execute("SELECT 1 FROM refused SEMI JOIN looked_at USING (shard)").fetchone()
        ):
            return
    with store.write() as connection:
        connection.register("looked_at", looked_at)
        connection.execute("DELETE FROM refused WHERE shard IN (SELECT shard FROM looked_at)")
        insert(connection, "refused", rows)


def _count_files(report: Delivered, files: list[ReadFile], gone: list[str]) -> None:
    report.withdrawn = len(gone)
    for file in files:
        report.shards += 1
        report.records += file.tally.records
        report.occurrences += file.tally.occurrences
        report.quarantined += file.tally.quarantined
        if file.tally.failure is not None:
            report.failed.append(file.file.shard)
        for reason, records in file.reasons.items():
            report.reasons[reason] = report.reasons.get(reason, 0) + records


def _commit(
    store: Store,
    corpus: Corpus,
    readers: Mapping[str, str],
    files: list[ReadFile],
    touched: list[DeliveredFile],
    gone: list[str],
    report: Delivered,
    work: Stage,
) -> None:
    shards = [file.file.shard for file in files]
    affected = pa.table({"shard": pa.array([*shards, *gone], pa.string())})
    rewritten = rewrite_parts(store, affected)
    parts = {part.digest: part for file in files for part in file.parts}
    with store.read() as connection:
        demanded = demanded_hashes(connection)
    hashed = doc_ids_by_hash(store, parts, demanded)
    priorities = pa.table(
        {
            "source": pa.array(list(corpus.sources), pa.string()),
            "priority": pa.array([source.priority for source in corpus.sources.values()], pa.int64()),
        }
    )
    with store.write() as connection:
        connection.register("affected", affected)
        connection.register("priorities", priorities)
        if parts_of_affected(connection) != sorted(rewritten):
            raise UserError("another delivery changed the same files meanwhile; run this one again")
        connection.execute(
            "CREATE TEMP TABLE touched AS SELECT DISTINCT doc_id FROM occurrences SEMI JOIN affected USING (shard)"
        )
        for name in ("occurrences", "quarantine", "shards"):
            connection.execute(f"DELETE FROM {name} WHERE shard IN (SELECT shard FROM affected)")  # noqa: S608
        if spools := sorted({str(spool) for file in files for spool in file.spools}):
            connection.execute(
                "INSERT INTO occurrences BY NAME SELECT * FROM read_parquet($spools)"
                " WHERE shard IN (SELECT shard FROM affected)",
                {"spools": spools},
            )
        if spools := sorted({str(spool) for file in files for spool in file.quarantine}):
            connection.execute(
                "INSERT INTO quarantine BY NAME SELECT * FROM read_parquet($spools)"
                " WHERE shard IN (SELECT shard FROM affected)",
                {"spools": spools},
            )
        insert(connection, "quarantine", quarantine_rows(files))
        # Before the new rows: a text part can come out as it was, under the digest that is taken away here.
        replace_parts(connection, rewritten)
        rows = [shard_row(file, readers[file.file.source], corpus.source(file.file.source), work) for file in files]
        if rows:
            insert(connection, "shards", pa.Table.from_pylist(rows))
        if touched:
            connection.register("touched_files", touched_table(touched))
            connection.execute(
                "UPDATE shards SET bytes = t.bytes, mtime_ns = t.mtime_ns, path = t.path FROM touched_files t"
                " WHERE shards.shard = t.shard"
            )
        add_parts(connection, parts.values())
        connection.execute(
            "INSERT INTO touched SELECT DISTINCT doc_id FROM occurrences SEMI JOIN affected USING (shard)"
        )
        report.taken_down = apply_takedowns(connection, "affected", hashed)
        report.documents_added, report.documents_removed = derive_documents(connection)
        set_meta(connection, "deliveries", str(int(get_meta(connection, "deliveries") or 0) + 1))
        work.finish(connection, report.occurrences, bytes=report.bytes)
        purge_due = get_meta(connection, PURGE_DUE)
    if purge_due:
        purge_withdrawn(store)
