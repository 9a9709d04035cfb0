"""Deliveries into the store: shards, occurrences, quarantine and texts, and the documents derived from them.

Files are read into staged Parquet with no connection open; one transaction then replaces the shards' rows, derives the
touched documents anew and drops the judgements of documents that lost their last occurrence. Whatever the order and the
cut of deliveries, the tables end as one delivery of the final state would leave them.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from winnow.config import Corpus
from winnow.errors import UserError
from winnow.identity import digest, digest_file, ids_to_numpy
from winnow.stages.staging import Delivered, Staged
from winnow.stages.text_parts import parts_by_shard, parts_of_affected, replace_parts, rewrite_parts
from winnow.store.parts import Part, PartWriter
from winnow.store.schema import tables
from winnow.store.stage import Stage, forget_keys
from winnow.store.store import Store, add_parts, get_meta, insert, set_meta
from winnow.text.deliveries import DeliveredFile, Delivery, Known
from winnow.text.readers import FieldMap, Limits, ShardReader

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

READER_VERSION = "1"
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
    return Known(shards, int(get_meta(connection, "deliveries") or 0))


def reader_digest(corpus: Corpus, source: str) -> str:
    """Return the digest of all that decides how a source's files are read and ranked, but their bytes."""
    limits = [corpus.max_record_bytes, corpus.max_bad_fraction, corpus.max_bad_records]
    return digest([READER_VERSION, corpus.source(source).model_dump(mode="json"), limits])


def corpus_digest(store: Store) -> str:
    """Return the digest of the live documents and their sources, whatever files brought them."""
    with store.read() as connection:
        return get_meta(connection, "corpus_digest") or digest([])


def deliver(
    store: Store,
    corpus: Corpus,
    delivery: Delivery,
    work: Stage,
    progress: Callable[[str], None] = log.info,
) -> Delivered:
    """Read a delivery and replace, add or withdraw its shards; a file that is unchanged is left alone.

    ``work`` names the run and the ``shards`` partition, and is finished in the transaction that commits the rows.
    """
    report = Delivered()
    stage = store.home.scratch / f"delivery-{uuid.uuid4().hex}"
    known = {row[0]: row[1:] for row in store.query("SELECT shard, sha256, reader, bytes, mtime_ns FROM shards")}
    texts = PartWriter(store.home.parts, "texts")
    staged = Staged(stage)
    try:
        for file in delivery.files:
            source = corpus.source(file.source)
            settings = reader_digest(corpus, file.source)
            before = known.get(file.shard)
            if before and before[1:] == (settings, *file.fingerprint):
                report.unchanged += 1
                continue
            reader = ShardReader(
                Path(file.path),
                FieldMap(
                    source.text_field, source.id_field or None, source.url_field or None, source.date_field or None
                ),
                Limits(
                    max_record_bytes=corpus.max_record_bytes,
                    max_bad_fraction=corpus.max_bad_fraction,
                    max_bad_records=corpus.max_bad_records,
                ),
            )
            if before and before[1] == settings and before[0] == _digest_if_readable(file):
                staged.touched.append(file)
                report.unchanged += 1
                continue
            staged.read(file, reader, settings, texts, work, report, progress)
        texts.cut()
        gone = [shard for shard in delivery.withdrawn if shard in known]
        report.withdrawn = len(gone)
        if staged.shards or gone or staged.touched:
            _commit(store, corpus, staged, gone, texts.parts, report, work)
    finally:
        texts.abandon()
        staged.close()
        shutil.rmtree(stage, ignore_errors=True)
    return report


def _digest_if_readable(file: DeliveredFile) -> str | None:
    try:
        return digest_file(Path(file.path))
    except OSError:
        return None


def _commit(
    store: Store,
    corpus: Corpus,
    staged: Staged,
    gone: list[str],
    texts: list[Part],
    report: Delivered,
    work: Stage,
) -> None:
    shards = [str(row["shard"]) for row in staged.shards]
    affected = pa.table({"shard": pa.array([*shards, *gone], pa.string())})
    rewritten = rewrite_parts(store, affected)
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
        for spool in staged.occurrences:
            connection.execute(
                "INSERT INTO occurrences BY NAME SELECT * FROM read_parquet($path)", {"path": str(spool)}
            )
        for rows in staged.quarantine:
            insert(connection, "quarantine", rows)
        parts_of = parts_by_shard(store, texts)
        for row in staged.shards:
            row["parts"] = parts_of.get(str(row["shard"]), [])
        # Before the new rows: a text part can come out as it was, under the digest that is taken away here.
        replace_parts(connection, rewritten)
        if staged.shards:
            insert(connection, "shards", pa.Table.from_pylist(staged.shards))
        for file in staged.touched:
            connection.execute(
                "UPDATE shards SET bytes = $bytes, mtime_ns = $mtime_ns, path = $path WHERE shard = $shard",
                {"bytes": file.bytes, "mtime_ns": file.mtime_ns, "path": file.path, "shard": file.shard},
            )
        add_parts(connection, texts)
        connection.execute(
            "INSERT INTO touched SELECT DISTINCT doc_id FROM occurrences SEMI JOIN affected USING (shard)"
        )
        connection.execute(
            "CREATE TEMP TABLE existed AS SELECT DISTINCT doc_id FROM documents SEMI JOIN touched USING (doc_id)"
        )
        connection.execute("DELETE FROM documents WHERE doc_id IN (SELECT doc_id FROM touched)")
        connection.execute(DERIVE_DOCUMENTS)
        connection.execute(
            "CREATE TEMP TABLE vanished AS SELECT doc_id FROM existed ANTI JOIN documents USING (doc_id)"
        )
        _drop_judgements(connection)
        report.documents_removed = _count(connection, "vanished")
        added = (
            "(SELECT DISTINCT doc_id FROM documents SEMI JOIN touched USING (doc_id) ANTI JOIN existed USING (doc_id))"
        )
        report.documents_added = _count(connection, added)
        set_meta(connection, "corpus_digest", _digest_documents(connection))
        forget_keys(connection, *DERIVED)
        set_meta(connection, "deliveries", str(int(get_meta(connection, "deliveries") or 0) + 1))
        work.finish(connection, report.occurrences)


DERIVE_DOCUMENTS = """
INSERT INTO documents BY NAME
SELECT doc_id, shard, row, source, original_id, characters, bytes, words, dup_count
FROM (
    SELECT *,
           count(*) OVER (PARTITION BY doc_id) AS dup_count,
           row_number() OVER (
               PARTITION BY doc_id
               ORDER BY coalesce(priority, 0), source, original_id NULLS LAST, shard, row
           ) AS rank
    FROM occurrences
    LEFT JOIN priorities USING (source)
    WHERE doc_id IN (SELECT doc_id FROM touched)
)
WHERE rank = 1
"""
"""The canonical occurrence: smallest (source priority, source, original id, uri, row)."""


DERIVED = ("duplicate_pairs", "duplicates", "clusters")
"""Stages whose tables follow the corpus: their rows were changed here, so no earlier key says that they are done."""


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _drop_judgements(connection: Connection) -> None:
    """Delete what was judged of documents that no longer exist; parts only hide theirs.

    Past decisions stay, and so do probes and which documents opened a checkpoint's bandit: one that comes back finds
    them, so that it ends where it would have been without the detour.
    """
    for table in tables().values():
        if table.document and not table.parts and table.name not in ("decisions", "probes", "judged"):
            connection.execute(
                f"DELETE FROM {table.name} WHERE {table.document} IN (SELECT doc_id FROM vanished)"  # noqa: S608
            )
    connection.execute("DELETE FROM judged WHERE stage <> 'probes' AND doc_id IN (SELECT doc_id FROM vanished)")
    connection.execute(
        "DELETE FROM duplicate_pairs"
        " WHERE doc_a IN (SELECT doc_id FROM vanished) OR doc_b IN (SELECT doc_id FROM vanished)"
    )


def _digest_documents(connection: Connection) -> str:
    ids, sources = hashlib.sha256(), hashlib.sha256()  # apart, so that it does not matter how the rows are batched
    reader = connection.execute("SELECT doc_id, source FROM documents ORDER BY doc_id").to_arrow_reader(100_000)
    for batch in reader:
        ids.update(ids_to_numpy(batch["doc_id"]).tobytes())
        sources.update("".join(f"{source}\x00" for source in batch["source"].to_pylist()).encode())
    return digest([ids.hexdigest(), sources.hexdigest()])
