"""The digest of the live documents and their sources, kept up to date by what changes, not by reading all anew.

Each (doc_id, source) is mixed into four 64-bit lanes, and the lanes of all documents are added up modulo 2^64: the sum
does not depend on order, and a document is taken out by subtraction. (Bellare and Micciancio's AdHash, Eurocrypt 1997,
with mixing in the place of a cryptographic hash: it tells states apart, it does not withstand an adversary.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from winnow.identity import digest, ids_to_numpy
from winnow.store.store import get_meta, set_meta

if TYPE_CHECKING:
    from winnow.store.store import Connection

LANES = 4
BATCH = 100_000


def lanes_of(ids: np.ndarray, sources: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the uint64 ``[4]`` sum of rows: ids uint8 ``[N, 16]``, sources N strings."""
    if not len(ids):
        return np.zeros(LANES, np.uint64)
    names = sources.combine_chunks() if isinstance(sources, pa.ChunkedArray) else sources
    coded = names.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    keys = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in coded.dictionary.to_pylist()], np.uint64)
    of_source = keys[coded.indices.to_numpy()]
    halves = np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    total = np.zeros(LANES, np.uint64)
    with np.errstate(over="ignore"):
        for lane in range(LANES):
            salt = np.uint64(0x9E3779B97F4A7C15) * np.uint64(lane + 1)
            mixed = _mix(_mix(halves[:, 0] + salt) ^ _mix(halves[:, 1] ^ _mix(of_source + salt)))
            total[lane] = mixed.sum(dtype=np.uint64)
    return total


def _mix(values: np.ndarray) -> np.ndarray:
    """Finish as splitmix64 does (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def stored_digest(connection: Connection) -> str:
    """Return the digest that the store keeps, that of no document before the first delivery."""
    return get_meta(connection, "corpus_digest") or digest([])


def sum_of(connection: Connection, rows: str) -> np.ndarray:
    """Return the lanes of a query's rows (doc_id, source), streaming."""
    total = np.zeros(LANES, np.uint64)
    with np.errstate(over="ignore"):
        for batch in connection.execute(rows).to_arrow_reader(BATCH):
            total += lanes_of(ids_to_numpy(batch["doc_id"]), batch["source"])
    return total


def change_digest(connection: Connection, removed: Iterable[np.ndarray], added: Iterable[np.ndarray]) -> None:
    """Bring the recorded lanes and ``corpus_digest`` forward, inside the transaction that changes ``documents``."""
    kept = get_meta(connection, "corpus_lanes")
    if kept is None:
        total = sum_of(connection, "SELECT doc_id, source FROM documents")
    else:
        total = np.array([int(lane, 16) for lane in kept.split()], np.uint64)
        with np.errstate(over="ignore"):
            for lanes in removed:
                total -= lanes
            for lanes in added:
                total += lanes
    record(connection, total)


def record(connection: Connection, lanes: np.ndarray) -> None:
    """Record lanes and the digest that they make."""
    set_meta(connection, "corpus_lanes", " ".join(f"{lane:016x}" for lane in lanes.tolist()))
    set_meta(connection, "corpus_digest", digest_of(lanes))


def digest_of(lanes: np.ndarray) -> str:
    """Return the digest of a sum of lanes."""
    return digest([int(lane) for lane in lanes.tolist()]) if lanes.any() else digest([])


def recomputed_corpus_digest(connection: Connection) -> str:
    """Return the digest from all documents as they stand, for ``winnow doctor``."""
    return digest_of(sum_of(connection, "SELECT doc_id, source FROM documents"))
