"""Near duplicates in the store: candidate pairs out of core, verified pairs, and the keeper of every document.

Only pairs with a new document are compared; which document is kept is derived from all verified pairs, so k deliveries
end where one would.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.candidates import CandidateReport, find_candidates, valid_pairs
from winnow.identity import ids_as_keys, ids_from_numpy, ids_to_numpy
from winnow.store.judgements import all_texts, mark_judged, texts_of, unjudged
from winnow.store.stage import Stage, forget_keys
from winnow.store.store import Store, insert, load, replace_rows

if TYPE_CHECKING:
    from winnow.dedup.sketch import SketchPlan

log = logging.getLogger(__name__)

PAIRED = "duplicate_pairs"
FORMER_JUDGED = "DELETE FROM judged WHERE stage = 'duplicate_pairs' AND version <> $scheme"


@dataclass(frozen=True)
class Paired:
    """What pairing the new documents found."""

    documents: int
    candidates: CandidateReport
    verified: int


def pair_new_documents(store: Store, stage: Stage, scheme: str, threshold: float) -> Paired:
    """Compare every document not yet paired with all others; store pairs whose exact Jaccard reaches ``threshold``."""
    from winnow.dedup.verify import verify_pairs

    fresh = unjudged(store, PAIRED, scheme)
    former = store.arrow("SELECT band, key, doc_id FROM bucket_centers WHERE scheme = $scheme", {"scheme": scheme})
    with store.scratch("documents", "bands", only={"scheme": scheme}) as connection:
        load(connection, "unpaired", fresh)
        load(connection, "former_centers", former)
        report = find_candidates(connection)
        candidates = connection.execute(
            "SELECT doc_a, doc_b FROM candidate_pairs ORDER BY doc_a, doc_b"
        ).to_arrow_table()
        centers = connection.execute("SELECT band, key, doc_id, members FROM bucket_centers").to_arrow_table()
        load(connection, "candidates", candidates)
        documents = connection.execute(
            """
            SELECT d.doc_id, d.bytes FROM documents d
            SEMI JOIN (SELECT doc_a AS doc_id FROM candidates UNION SELECT doc_b FROM candidates) c USING (doc_id)
            ORDER BY doc_id
            """
        ).to_arrow_table()
    left, right = (_positions(documents, candidates[side]) for side in ("doc_a", "doc_b"))
    similarity = verify_pairs(
        left,
        right,
        documents["bytes"].to_numpy(),
        lambda positions: all_texts(store, documents.take(pa.array(positions)))["text"],
    )
    found = similarity >= threshold
    pairs = candidates.filter(pa.array(found))
    pairs = pairs.append_column("similarity", pa.array(similarity[found]))
    for name, value in (("kind", "near"), ("scheme", scheme)):
        pairs = pairs.append_column(name, pa.array([value] * len(pairs), pa.string()))
    with store.write() as connection:
        # Bucket centers are the current scheme's alone: documents paired under another one start anew there.
        for other_schemes in ("DELETE FROM duplicate_pairs WHERE scheme <> $scheme", FORMER_JUDGED):
            connection.execute(other_schemes, {"scheme": scheme})
        replace_rows(connection, "duplicate_pairs", pairs, ("doc_a", "doc_b", "kind", "scheme"))
        connection.execute("DELETE FROM bucket_centers")
        insert(
            connection,
            "bucket_centers",
            centers.append_column("scheme", pa.array([scheme] * len(centers), pa.string())),
        )
        mark_judged(connection, PAIRED, scheme, fresh)
        forget_keys(connection, PAIRED, "duplicates")
        stage.finish(connection, len(fresh), output=scheme)
    return Paired(len(fresh), report, int(found.sum()))


def group_duplicates(store: Store, stage: Stage, scheme: str, priorities: Mapping[str, int]) -> pa.Table:
    """Give every document its keeper and write ``duplicates`` anew; ``priorities`` are the sources' (smaller wins)."""
    from winnow.dedup.keepers import assign_keepers

    names = ("documents", "bands", "bucket_centers", "duplicate_pairs")
    with store.scratch(*names, only={"scheme": scheme}) as connection:
        connection.execute("CREATE VIEW pairs AS SELECT doc_a, doc_b FROM duplicate_pairs")
        valid_pairs(connection)
        pairs = connection.execute(
            "SELECT doc_a, doc_b, similarity FROM duplicate_pairs"
            " SEMI JOIN valid_pairs USING (doc_a, doc_b) ORDER BY ALL"
        ).to_arrow_table()
        load(connection, "valid", pairs)
        members = connection.execute(
            """
            SELECT doc_id, source, characters FROM documents
            SEMI JOIN (SELECT doc_a AS doc_id FROM valid UNION SELECT doc_b FROM valid) m USING (doc_id)
            ORDER BY doc_id
            """
        ).to_arrow_table()
        exact = connection.execute(
            """
            SELECT doc_id, 'exact' AS kind, doc_id AS component, doc_id AS keeper_id, 1.0::DOUBLE AS similarity,
                   dup_count AS group_size
            FROM documents WHERE dup_count > 1
            """
        ).to_arrow_table()
        count = connection.execute("SELECT count(*) FROM documents").fetchone()
    ids = ids_to_numpy(members["doc_id"])
    edges = np.stack([_positions(members, pairs["doc_a"]), _positions(members, pairs["doc_b"])], axis=1)
    priority = np.array([priorities.get(source, 0) for source in members["source"].to_pylist()], np.int32)
    keepers = assign_keepers(ids, edges, pairs["similarity"].to_numpy(), priority, members["characters"].to_numpy())
    near = pa.table(
        {
            "doc_id": members["doc_id"],
            "kind": pa.array(["near"] * len(members), pa.string()),
            "component": ids_from_numpy(ids[keepers.component]),
            "keeper_id": ids_from_numpy(ids[keepers.keeper]),
            "similarity": keepers.similarity,
            "group_size": keepers.group_size.astype(np.int64),
        }
    )
    with store.write() as connection:
        connection.execute("DELETE FROM duplicates")
        insert(connection, "duplicates", near)
        insert(connection, "duplicates", exact)
        forget_keys(connection, "duplicates")
        stage.finish(connection, int(count[0]) if count else 0, output=scheme)
    return near


def pairs_among(store: Store, documents: pa.Table, plan: SketchPlan) -> pa.Table:
    """Sketch documents anew, whatever pairs the store holds, and return those among them that reach the threshold.

    ``documents`` has ``doc_id``, sorted. Columns: doc_a, doc_b, similarity. Candidates are those of the corpus: in a
    bucket that is oversize there (boilerplate), only pairs with one of its centers.
    """
    from winnow.dedup.sketch import sketch
    from winnow.dedup.verify import verify_pairs

    bands = [sketch(texts, plan).bands for texts in texts_of(store, documents)]
    centers = store.arrow(
        "SELECT band, key, doc_id FROM bucket_centers WHERE scheme = $scheme", {"scheme": plan.scheme}
    )
    with store.scratch() as connection:
        load(connection, "every_band", pa.concat_tables(bands) if bands else _no_bands())
        load(connection, "oversize", centers)
        connection.execute("CREATE VIEW bands AS SELECT * FROM every_band ANTI JOIN oversize USING (band, key)")
        load(connection, "unpaired", documents.select(["doc_id"]))
        load(connection, "former_centers", _no_bands())
        find_candidates(connection)
        candidates = connection.execute(
            """
            SELECT doc_a, doc_b FROM candidate_pairs
            UNION
            SELECT least(c.doc_id, m.doc_id), greatest(c.doc_id, m.doc_id)
            FROM oversize c SEMI JOIN unpaired USING (doc_id)
            JOIN every_band m ON m.band = c.band AND m.key = c.key AND m.doc_id <> c.doc_id
            ORDER BY ALL
            """
        ).to_arrow_table()
    left, right = (_positions(documents, candidates[side]) for side in ("doc_a", "doc_b"))
    with store.scratch("documents") as connection:
        load(connection, "chosen", documents.select(["doc_id"]))
        rows = connection.execute("SELECT bytes FROM documents SEMI JOIN chosen USING (doc_id) ORDER BY doc_id")
        sizes = rows.to_arrow_table()["bytes"].to_numpy()
    similarity = verify_pairs(
        left, right, sizes, lambda positions: all_texts(store, documents.take(pa.array(positions)))["text"]
    )
    found = similarity >= plan.bands.threshold
    return candidates.filter(pa.array(found)).append_column("similarity", pa.array(similarity[found]))


def _no_bands() -> pa.Table:
    return pa.table(
        {"band": pa.array([], pa.int16()), "key": pa.array([], pa.uint64()), "doc_id": pa.array([], pa.uuid())}
    )


def _positions(documents: pa.Table, wanted: pa.ChunkedArray) -> np.ndarray:
    """Return the row in ``documents`` (sorted by doc_id) of every wanted id, int64."""
    return np.searchsorted(ids_as_keys(ids_to_numpy(documents["doc_id"])), ids_as_keys(ids_to_numpy(wanted)))
