"""Semantic duplicates in the store: what stands for its near duplicates is compared by the vectors of one encoder.

The clusters and the walk through them depend on all documents, so the table is derived anew whenever one of them
changes; the stage key says when nothing did.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

from winnow.config import Config
from winnow.dedup.semantic import (
    SemanticDuplicates,
    find_prototypes,
    find_semantic_duplicates,
    semantic_version,
)
from winnow.dedup.semantic_clusters import cluster_documents
from winnow.embed.rows import vectors_of
from winnow.errors import UserError
from winnow.identity import ids_as_keys, ids_from_numpy, ids_to_numpy
from winnow.stages.corpus_digest import stored_digest
from winnow.stages.priorities import priority_of, source_priorities
from winnow.store.faults import explained
from winnow.store.garbage import keeping_parts
from winnow.store.judgements import all_texts, row_groups
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Connection, Store, insert, replace_owned

STAGE = "semantic_duplicates"
OWNER = "semantic"
ZEROS = 2**24
EXCERPT = 200

REPRESENTATIVES = """
SELECT d.doc_id, d.source, coalesce(n.occurrences, d.dup_count) AS occurrences
FROM documents d
LEFT JOIN (SELECT * FROM duplicates WHERE kind = 'near') n USING (doc_id)
WHERE n.doc_id IS NULL OR n.keeper_id = doc_id
ORDER BY doc_id
"""
"""The documents that near duplicates leave, with the records that each stands for."""


@dataclass(frozen=True)
class FoundSemantic:
    """What the stage found among ``ids`` (uint8 ``[N, 16]``, sorted); ``prototypes`` are positions of dropped ones."""

    ids: np.ndarray
    duplicates: SemanticDuplicates
    prototypes: np.ndarray

    @property
    def groups(self) -> int:
        """Number of keepers that stand for more than themselves."""
        return len(np.unique(self.duplicates.keeper[self.duplicates.removed]))


def is_filtering(config: Config) -> bool:
    """Return whether semantic duplicates are kept out of the candidate pool."""
    return config.semantic.enabled and config.semantic.filter


def semantic_key(store: Store, config: Config, model: str) -> str:
    """Return the stage key: the documents, their near duplicates, the encoder and the settings.

    Raises :class:`UserError` while near duplicates are not grouped in the present state.
    """
    with store.read() as connection:
        corpus = stored_digest(connection)
        near = connection.execute("SELECT key FROM stage_keys WHERE stage = 'duplicates' ORDER BY key").fetchall()
    if not near:
        raise UserError(
            "near duplicates are not grouped in the present state: run `winnow run`, or materialize `duplicates`"
        )
    return stage_key(
        STAGE, semantic_version(config.semantic), corpus=corpus, near=[key for (key,) in near], model=model
    )


def require_semantic(store: Store, config: Config, model: str) -> None:
    """Raise :class:`UserError` when semantic duplicates decide but are not those of the present state."""
    if is_filtering(config) and Stage(store, STAGE, "", semantic_key(store, config, model)).done is None:
        raise UserError(
            "semantic duplicates are not those of the present documents and configuration: run `winnow run`, "
            f"materialize `{STAGE}`, or set semantic.filter = false"
        )


@keeping_parts
def find_semantic(store: Store, config: Config, model: str, stage: Stage) -> FoundSemantic:
    """Compare the representatives and write ``semantic_duplicates``, ``semantic_sweep`` and the rows of kind semantic.

    ``model`` is the encoder whose vectors are compared. Raises ``LookupError`` when a document has none.
    """
    settings = config.semantic
    documents = store.arrow(REPRESENTATIVES)
    ids = ids_to_numpy(documents["doc_id"])
    priority = priority_of(documents["source"], source_priorities(config))
    with _vectors(store, model, ids) as vectors:
        clusters = cluster_documents(ids, vectors, priority, settings.clusters, settings.max_cluster, settings.seed)
        found = find_semantic_duplicates(clusters, settings.epsilon, settings.variant)
        prototypes, distance = np.zeros(0, np.int64), np.full(len(ids), np.nan)
        if settings.prototypes_kept < 1:
            prototypes, distance = find_prototypes(found, settings.prototypes_kept, settings.clusters, settings.seed)
    version = stage.key[:32]
    compared = _compared_rows(found, prototypes, distance, version)
    parts = store.write_parts(STAGE, row_groups(compared))
    sweep = found.sweep()
    sweep = sweep.append_column("version", pa.repeat(version, len(sweep)))
    with store.write() as connection:
        replace_owned(connection, STAGE, OWNER, parts)
        _delete(connection)
        insert(connection, "duplicates", _duplicate_rows(found, documents["occurrences"].to_numpy(), version))
        insert(connection, "semantic_sweep", sweep)
        forget_keys(connection, STAGE)
        stage.finish(connection, len(ids), output=version)
    return FoundSemantic(ids, found, prototypes)


def drop_semantic(store: Store) -> bool:
    """Remove all that was found, as when the stage is switched off; return whether there was anything."""
    with store.read() as connection:
        present = connection.execute(
            "SELECT (SELECT count(*) FROM semantic_sweep) + (SELECT count(*) FROM stage_keys WHERE stage = $stage)",
            {"stage": STAGE},
        ).fetchone()
    if not present or not present[0]:
        return False
    with store.write() as connection:
        replace_owned(connection, STAGE, OWNER, [])
        _delete(connection)
        forget_keys(connection, STAGE)
    return True


def example_pairs(store: Store, found: FoundSemantic, pairs: int = 3) -> list[dict[str, str | float]]:
    """Return pairs next to the threshold with the beginnings of their texts: above it, then below it.

    Each is a document and the most similar one before it in the walk.
    """
    duplicates = found.duplicates
    shown = duplicates.near_threshold(pairs)
    if not len(shown):
        return []
    both = np.unique(np.concatenate([shown, duplicates.nearest[shown]]))
    texts = all_texts(store, pa.table({"doc_id": ids_from_numpy(found.ids[both])}))["text"].to_pylist()
    excerpt = {place: " ".join(text.split())[:EXCERPT] for place, text in zip(both.tolist(), texts, strict=True)}
    return [
        {
            "cosine": round(float(duplicates.nearest_similarity[place]), 4),
            "same": bool(duplicates.nearest_similarity[place] > 1.0 - duplicates.epsilon),
            "document": excerpt[place],
            "most similar before it": excerpt[int(duplicates.nearest[place])],
        }
        for place in shown.tolist()
    ]


def _delete(connection: Connection) -> None:
    connection.execute("DELETE FROM duplicates WHERE kind = 'semantic'")
    connection.execute("DELETE FROM semantic_sweep")


@contextmanager
def _vectors(store: Store, model: str, ids: np.ndarray) -> Iterator[np.ndarray]:
    """Give the vectors of sorted ``ids``, float32 ``[N, D]``, in a file that is mapped: memory holds what is looked at.

    Raises ``LookupError`` when one has no vector of this encoder.
    """
    keys, missing = ids_as_keys(ids), len(ids)
    with (
        store.scratch("embeddings", only={"model": model}) as connection,
        tempfile.TemporaryFile(dir=store.home.scratch, prefix="vectors-") as file,
    ):
        vectors = np.zeros((len(ids), 0), np.float32)
        for batch in connection.execute("SELECT doc_id, vector FROM embeddings").to_arrow_reader(8_192):
            rows = pa.Table.from_batches([batch])
            values, own = vectors_of(rows["vector"]), ids_as_keys(ids_to_numpy(rows["doc_id"]))
            if not vectors.shape[1] and len(ids):
                vectors = _mapped(file, (len(ids), values.shape[1]), str(store.home.scratch))
            place = np.minimum(np.searchsorted(keys, own), len(ids) - 1)
            wanted = keys[place] == own if len(ids) else np.zeros(len(own), bool)
            vectors[place[wanted]] = values[wanted]
            missing -= int(np.count_nonzero(wanted))
        if missing:
            raise LookupError(f"{missing} of {len(ids)} documents have no vector: materialize `embeddings` first")
        yield vectors


def _mapped(file: IO[bytes], shape: tuple[int, int], folder: str) -> np.ndarray:
    """Return a mapped float32 array; its bytes are written first, as a full disk would kill a process that maps it."""
    with explained(folder, "laying out vectors"):
        left = 4 * shape[0] * shape[1]
        while left:
            left -= file.write(bytes(min(left, ZEROS)))
        file.flush()
    return np.memmap(file, np.float32, "r+", shape=shape)


def _compared_rows(found: SemanticDuplicates, prototypes: np.ndarray, distance: np.ndarray, version: str) -> pa.Table:
    """Return the ``semantic_duplicates`` rows: every document that was compared."""
    clusters = found.clusters
    first = found.nearest < 0
    nearest = ids_from_numpy(clusters.ids[np.maximum(found.nearest, 0)])
    dropped = np.zeros(len(clusters.ids), bool)
    dropped[prototypes] = True
    return pa.table(
        {
            "doc_id": ids_from_numpy(clusters.ids),
            "version": pa.repeat(version, len(clusters.ids)),
            "cluster": clusters.cluster,
            "distance": clusters.distance.astype(np.float64),
            "nearest": nearest.take(pa.array(np.arange(len(first)), mask=first)),
            "similarity": pa.array(found.nearest_similarity, mask=first),
            "prototype": dropped,
            "prototype_distance": pa.array(distance.astype(np.float64), mask=np.isnan(distance)),
        }
    )


def _duplicate_rows(found: SemanticDuplicates, occurrences: np.ndarray, version: str) -> pa.Table:
    """Return the ``duplicates`` rows: every document with a pair above the threshold."""
    ids, members = found.clusters.ids, found.grouped
    records = np.zeros(len(ids), np.int64)
    np.add.at(records, found.keeper, occurrences.astype(np.int64))
    keeper = found.keeper[members]
    return pa.table(
        {
            "doc_id": ids_from_numpy(ids[members]),
            "kind": pa.repeat("semantic", len(members)),
            "component": ids_from_numpy(ids[found.component[members]]),
            "keeper_id": ids_from_numpy(ids[keeper]),
            "similarity": found.similarity[members],
            "group_size": found.group_size[members].astype(np.int64),
            "occurrences": records[keeper],
            "version": pa.repeat(version, len(members)),
        }
    )
