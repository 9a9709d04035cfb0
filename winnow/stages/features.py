"""Embeddings and signals as an influence model reads them, streamed from the store.

In memory at once are the signals of the documents asked for and some rows of embeddings, never all of these.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from winnow.embed.rows import vectors_of
from winnow.quality.signals import COLUMNS
from winnow.store.store import Connection, Store, load

SIGNALS = tuple(COLUMNS)
# DuckDB would make its hash table of whatever it takes for smaller: of the vectors, which then all lie in memory.
AS_WRITTEN = "SET disabled_optimizers = 'join_order,build_side_probe_side'"


def features(store: Store, encoder: str, documents: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings float32 ``[N, D]`` and signals float64 ``[N, S]`` of documents, in their order.

    Raises ``LookupError`` when some have no embedding by ``encoder``.
    """
    found = list(stored_features(store, encoder, documents))
    if not found:
        return np.zeros((0, 0), np.float32), np.zeros((0, len(SIGNALS)))
    places, embeddings, signals = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(places)
    return embeddings[order], signals[order]


def stored_features(
    store: Store, encoder: str, documents: pa.Table, rows: int = 20_000
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield places in ``documents`` (int64 ``[R]``) with their embeddings and signals, in any order.

    The store is read once, whatever the number of documents. Raises ``LookupError`` in the end when some have no
    embedding.
    """
    wanted = pa.table({"doc_id": documents["doc_id"], "place": np.arange(len(documents))})
    signals = _signals(store, wanted)
    seen = 0
    with store.scratch("embeddings", only={"model": encoder}) as connection:
        load(connection, "wanted", wanted)
        for part in _parts(connection, "SELECT place, vector FROM embeddings JOIN wanted USING (doc_id)", rows):
            places = part["place"].to_numpy()
            seen += len(places)
            yield places, vectors_of(part["vector"]), signals[places]
    if seen != len(documents):
        raise LookupError(f"{len(documents) - seen} documents have no embedding: materialize embeddings first")


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as float64 ``[N]``, NaN where null."""
    return column.cast(pa.float64()).to_numpy()


def _signals(store: Store, wanted: pa.Table) -> np.ndarray:
    """Return signals float64 ``[N, S]``, NaN where a document has none."""
    columns = ", ".join(f'"{name}"' for name in SIGNALS)
    found = np.full((len(wanted), len(SIGNALS)), np.nan)
    with store.read() as connection:
        load(connection, "wanted", wanted)
        query = f"SELECT place, {columns} FROM signals JOIN wanted USING (doc_id)"  # noqa: S608
        for part in _parts(connection, query, 50_000):
            places = part["place"].to_numpy()
            for number, name in enumerate(SIGNALS):
                found[places, number] = floats(part[name])
    return found


def _parts(connection: Connection, query: str, rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a query, as many at a time, none of them empty."""
    connection.execute(AS_WRITTEN)
    for batch in connection.execute(query).to_arrow_reader(rows):
        if len(batch):
            yield pa.Table.from_batches([batch])
