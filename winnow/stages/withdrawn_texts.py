"""The texts of withdrawn documents: found by their hash, and taken out of every live part; stored gradients go too."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from winnow.identity import UUID, stored_ids
from winnow.stages.text_parts import BATCH_ROWS, replace_parts, written_without
from winnow.store.garbage import keeping_parts
from winnow.store.leftovers import remove_gradients
from winnow.store.store import Store, get_meta, live_parts, set_meta

log = logging.getLogger(__name__)

HASHED = pa.schema([("doc_id", UUID), ("value", pa.string())])
PURGE_DUE = "purge_due"
"""The key of ``meta`` that says so."""


@dataclass(frozen=True)
class Hashed:
    """Which hashes of texts were looked for in which text parts, and the documents found: doc_id, value."""

    hashes: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    documents: pa.Table = field(default_factory=HASHED.empty_table)

    def __add__(self, other: Hashed) -> Hashed:
        """Join what was found in two sets of parts by the same hashes."""
        return Hashed(self.hashes, self.parts | other.parts, pa.concat_tables([self.documents, other.documents]))


def doc_ids_by_hash(store: Store, parts: Iterable[str], hashes: frozenset[str]) -> Hashed:
    """Hash every text (and the original of a normalized one) in the text parts named by digest, streaming.

    Where no hash is wanted nothing is read.
    """
    parts = list(parts)
    found: set[tuple[bytes, str]] = set()
    for part in parts if hashes else ():
        for rows in _batches(store, part, "doc_id", "text", "original"):
            ids = stored_ids(rows["doc_id"]).to_pylist()
            for column in rows.schema.names[1:]:
                for doc, text in zip(ids, rows[column].cast(pa.large_binary()).to_pylist(), strict=True):
                    if text is not None and (value := hashlib.sha256(text).hexdigest()) in hashes:
                        found.add((doc, value))
    ids = pa.ExtensionArray.from_storage(UUID, pa.array([doc for doc, _ in found], pa.binary(16)))
    values = pa.array([value for _, value in found], pa.string())
    return Hashed(hashes, frozenset(parts), pa.table({"doc_id": ids, "value": values}, schema=HASHED))


def purge_is_due(store: Store) -> bool:
    """Return whether a transaction has withdrawn documents whose texts live parts may still hold."""
    with store.read() as connection:
        return bool(get_meta(connection, PURGE_DUE))


@keeping_parts
def purge_withdrawn(store: Store) -> int:
    """Write the live text parts that hold withdrawn documents anew without them; return how many there were.

    It follows every transaction that withdraws, and stays due (:func:`purge_is_due`) until it is done: killed before
    its own transaction it changes nothing, and the next delivery takes it up. The projected gradients that are stored
    go before, all of them: a row of a withdrawn text stands among the others, and is made again in a minute. Raises
    :class:`UserError` when they cannot be removed.
    """
    while True:
        with store.read() as connection:
            withdrawn = connection.execute("SELECT DISTINCT doc_id FROM withdrawn").to_arrow_table()["doc_id"]
            parts = connection.execute(
                "SELECT DISTINCT unnest(parts) AS part FROM shards WHERE shard IN"
                " (SELECT shard FROM quarantine WHERE reason = 'withdrawn') ORDER BY part"
            ).fetchall()
        among = _among(stored_ids(withdrawn.combine_chunks()))
        holding = [part for (part,) in parts if _holds(store, part, among)]
        rewritten = {part: written_without(store, part, among) for part in holding}
        if not rewritten and not purge_is_due(store):
            return 0
        remove_gradients(store.home)
        with store.write() as connection:
            live = set(live_parts(connection).get("texts", []))
            if live >= set(rewritten):
                replace_parts(connection, rewritten)
                set_meta(connection, PURGE_DUE, "")
                return len(rewritten)
        log.info("a delivery changed the text parts meanwhile; looking again")


def _among(ids: pa.Array) -> Callable[[pa.RecordBatch], pa.Array]:
    return lambda rows: pc.is_in(stored_ids(rows["doc_id"]), ids)


def _holds(store: Store, part: str, among: Callable[[pa.RecordBatch], pa.Array]) -> bool:
    return any(pc.any(among(rows)).as_py() for rows in _batches(store, part, "doc_id"))


def _batches(store: Store, part: str, *columns: str) -> Iterator[pa.RecordBatch]:
    with store.storage.open("texts", part) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(BATCH_ROWS, columns=there or None)
