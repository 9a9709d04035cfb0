"""Near duplicates in the store: candidate pairs out of core, verified pairs, and the keeper of every document.

Only pairs with a new document are compared; which document is kept is derived from all verified pairs, so k deliveries
end where one would.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.candidates import (
    CENTERS,
    MAX_BUCKET,
    CandidateReport,
    Candidates,
    Centers,
    add_center_pairs,
    find_candidates,
    still_candidates,
)
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import IdTable, Positions, ids_at, pack, unpack
from winnow.identity import digest, ids_from_numpy, ids_to_numpy
from winnow.stages.band_rows import all_columns, touched_columns
from winnow.stages.scheme_parts import SchemeParts
from winnow.store.judgements import mark_judged, texts_of
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Connection, Store, get_meta, insert, live_parts, load, replace_rows

if TYPE_CHECKING:
    from winnow.dedup.buckets import BandColumns
    from winnow.dedup.sketch import SketchPlan
    from winnow.dedup.verify import Reader, Verified

log = logging.getLogger(__name__)

PAIRED = "duplicate_pairs"
GROUPING_VERSION = "2"
FRESH_SHARE = 0.2
"""Above this share of new documents all keys are sorted; below it old keys are only searched for those of new ones."""
INSERTED_ROWS = 1 << 18


@dataclass(frozen=True)
class Paired:
    """What pairing found: pairs compared, those at or above the threshold, and stored ones that count no more."""

    documents: int
    candidates: int
    verified: int
    dropped: int
    report: CandidateReport


def pairing_key(store: Store, plan: SketchPlan) -> str:
    """Return the key of the stage ``duplicate_pairs``."""
    with store.read() as connection:
        return stage_key(PAIRED, plan.scheme, corpus=_corpus(connection))


def grouping_key(store: Store, plan: SketchPlan, priorities: Mapping[str, int]) -> str:
    """Return the key of the stage ``duplicates``."""
    with store.read() as connection:
        corpus = _corpus(connection)
    return stage_key("duplicates", GROUPING_VERSION, corpus=corpus, scheme=plan.scheme, priorities=dict(priorities))


# -- pairs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """What pairing starts from, read in one piece."""

    documents: np.ndarray
    fresh: np.ndarray
    former: pa.Table
    parts: SchemeParts
    known: IdTable


def _state(store: Store, scheme: str) -> _State:
    with store.read() as connection:
        documents = ids_to_numpy(connection.execute(DOCUMENTS).to_arrow_table()["doc_id"])
        seen = connection.execute(SEEN, {"scheme": scheme}).to_arrow_table()
        former = connection.execute(FORMER, {"scheme": scheme}).to_arrow_table()
        parts = SchemeParts(store, "bands", live_parts(connection).get("bands", []), scheme)
    known = IdTable(documents)
    marks = known.marks()
    known.mark(marks, ids_to_numpy(seen["doc_id"]))
    return _State(documents, known.rest(marks), former, parts, known)


DOCUMENTS = "SELECT doc_id FROM documents"
SEEN = "SELECT doc_id FROM judged WHERE stage = 'duplicate_pairs' AND version = $scheme"
FORMER = "SELECT band, key, doc_id FROM bucket_centers WHERE scheme = $scheme"
FORMER_JUDGED = "DELETE FROM judged WHERE stage = 'duplicate_pairs' AND version <> $scheme"


def pair_new_documents(store: Store, stage: Stage, plan: SketchPlan) -> Paired:
    """Compare every document not yet paired with all others; store pairs whose exact Jaccard reaches the threshold.

    ``duplicate_pairs`` then holds exactly the verified pairs that are candidates in the present state.
    """
    scheme = plan.scheme
    state = _state(store, scheme)
    positions, columns = _columns(state, plan)
    with columns, PairSpool(store.home.scratch) as pairs:
        fresh = np.zeros(len(positions), np.bool_)
        there = positions.of(state.fresh)
        fresh[there[there >= 0]] = True
        former = Centers.of(
            state.former["band"].to_numpy(),
            state.former["key"].to_numpy(),
            positions.of(ids_to_numpy(state.former["doc_id"])),
        )
        found = find_candidates(columns, fresh, former, pairs, MAX_BUCKET, CENTERS)
        dropped = _no_candidates_any_more(store, scheme, positions, columns, found)
        columns.close()
        verified = _verify(store, positions, pairs, plan)
    with store.write() as connection:
        # Bucket centers are the current scheme's alone: documents paired under another one start anew there.
        connection.execute("DELETE FROM duplicate_pairs WHERE kind = 'near' AND scheme <> $scheme", {"scheme": scheme})
        connection.execute(FORMER_JUDGED, {"scheme": scheme})
        if len(dropped):
            load(connection, "dropped", dropped)
            connection.execute(
                "DELETE FROM duplicate_pairs WHERE kind = 'near' AND EXISTS (SELECT 1 FROM dropped d"
                " WHERE d.doc_a = duplicate_pairs.doc_a AND d.doc_b = duplicate_pairs.doc_b)"
            )
        for rows in _pair_rows(positions, verified, scheme):
            replace_rows(connection, "duplicate_pairs", rows, ("doc_a", "doc_b", "kind", "scheme"))
        connection.execute("DELETE FROM bucket_centers")
        insert(connection, "bucket_centers", _center_rows(positions, found.centers, scheme))
        mark_judged(connection, PAIRED, scheme, pa.table({"doc_id": ids_from_numpy(state.fresh)}))
        forget_keys(connection, PAIRED, "duplicates")
        stage.finish(connection, len(state.fresh), output=scheme)
    return Paired(len(state.fresh), verified.candidates, len(verified.codes), len(dropped), found.report)


def _columns(state: _State, plan: SketchPlan) -> tuple[Positions, BandColumns]:
    if len(state.fresh) > FRESH_SHARE * len(state.documents):
        positions = Positions(state.documents)
        return positions, all_columns(state.parts, positions, plan.bands.bands)
    former_keys = np.unique(state.former["key"].to_numpy())
    return touched_columns(state.parts, state.known, state.fresh, former_keys, plan.bands.bands)


def _verify(store: Store, positions: Positions, pairs: PairSpool, plan: SketchPlan) -> Verified:
    from winnow.dedup.verify import verify_pairs

    return verify_pairs(
        pairs,
        len(positions),
        _reader(store, positions),
        plan.threshold,
        plan.sketching.shingling,
        store.home.scratch,
    )


def _reader(store: Store, positions: Positions) -> Reader:
    """Return a reader of the documents' texts, in the order in which their parts hold them."""

    def read(places: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Array | pa.ChunkedArray]]:
        documents = pa.table({"doc_id": ids_from_numpy(ids_at(positions, places))})
        for texts in texts_of(store, documents):
            yield positions.of(ids_to_numpy(texts["doc_id"])), texts["text"]

    return read


def _no_candidates_any_more(
    store: Store, scheme: str, positions: Positions, columns: BandColumns, found: Candidates
) -> pa.Table:
    """Return (doc_a, doc_b) of the stored pairs that are no candidates now: all their buckets have become oversize."""
    crowded = np.flatnonzero(found.crowded)
    if not len(crowded):
        return pa.table({"doc_a": pa.array([], pa.uuid()), "doc_b": pa.array([], pa.uuid())})
    with store.read() as connection:
        load(connection, "crowded", pa.table({"doc_id": ids_from_numpy(ids_at(positions, crowded))}))
        stored = connection.execute(
            """
            SELECT doc_a, doc_b FROM duplicate_pairs
            WHERE kind = 'near' AND scheme = $scheme
              AND doc_a IN (SELECT doc_id FROM crowded) AND doc_b IN (SELECT doc_id FROM crowded)
            """,
            {"scheme": scheme},
        ).to_arrow_table()
    codes = pack(*(positions.of(ids_to_numpy(stored[side])) for side in ("doc_a", "doc_b")))
    return stored.filter(pa.array(~still_candidates(columns, found.centers, codes, len(positions))))


def _pair_rows(positions: Positions, verified: Verified, scheme: str) -> Iterator[pa.Table]:
    for start in range(0, len(verified.codes), INSERTED_ROWS):
        rows = slice(start, start + INSERTED_ROWS)
        left, right = unpack(verified.codes[rows])
        yield pa.table(
            {
                "doc_a": ids_from_numpy(ids_at(positions, left)),
                "doc_b": ids_from_numpy(ids_at(positions, right)),
                "kind": pa.repeat("near", len(left)),
                "similarity": verified.similarity[rows],
                "scheme": pa.repeat(scheme, len(left)),
            }
        )


def _center_rows(positions: Positions, centers: Centers, scheme: str) -> pa.Table:
    return pa.table(
        {
            "scheme": pa.repeat(scheme, len(centers.key)),
            "band": centers.band,
            "key": centers.key,
            "doc_id": ids_from_numpy(ids_at(positions, centers.place)),
            "members": centers.members,
        }
    )


# -- groups -----------------------------------------------------------------------------------------------------------

PAIRS = "SELECT doc_a, doc_b, similarity FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme"
MEMBERS = """
SELECT doc_id, source, characters, dup_count FROM documents
SEMI JOIN (
    SELECT doc_a AS doc_id FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme
    UNION ALL
    SELECT doc_b FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme
) m USING (doc_id)
ORDER BY doc_id
"""
COPIES = "SELECT doc_id, dup_count FROM documents WHERE dup_count > 1 ORDER BY doc_id"


def group_duplicates(store: Store, stage: Stage, plan: SketchPlan, priorities: Mapping[str, int]) -> pa.Table:
    """Give every document its keeper and write the rows of kind exact and near of ``duplicates`` anew; return the near.

    ``priorities`` are the sources' (smaller wins, 0 where one is not named).
    """
    from winnow.dedup.keepers import assign_keepers

    with store.read() as connection:
        pairs = connection.execute(PAIRS, {"scheme": plan.scheme}).to_arrow_table()
        members = connection.execute(MEMBERS, {"scheme": plan.scheme}).to_arrow_table()
        copies = connection.execute(COPIES).to_arrow_table()
        count = _number(connection, "SELECT count(*) FROM documents")
        corpus = _corpus(connection)
    ids = ids_to_numpy(members["doc_id"])
    positions = Positions(ids)
    edges = np.stack([positions.of(ids_to_numpy(pairs[side])) for side in ("doc_a", "doc_b")], axis=1)
    keepers = assign_keepers(
        ids,
        edges,
        pairs["similarity"].to_numpy(),
        _priority(members["source"], priorities),
        members["characters"].to_numpy(),
    )
    occurrences = np.zeros(len(ids), np.int64)
    np.add.at(occurrences, keepers.keeper, members["dup_count"].to_numpy())
    state = {"scheme": plan.scheme, "corpus": corpus, "copies": _digest_of(copies), "method": GROUPING_VERSION}
    version = digest({**state, "priorities": dict(priorities)})[:32]
    near = pa.table(
        {
            "doc_id": members["doc_id"],
            "kind": pa.repeat("near", len(ids)),
            "component": ids_from_numpy(ids[keepers.component]),
            "keeper_id": ids_from_numpy(ids[keepers.keeper]),
            "similarity": keepers.similarity,
            "group_size": keepers.group_size.astype(np.int64),
            "occurrences": occurrences[keepers.keeper],
            "version": pa.repeat(version, len(ids)),
        }
    )
    exact = pa.table(
        {
            "doc_id": copies["doc_id"],
            "kind": pa.repeat("exact", len(copies)),
            "component": copies["doc_id"],
            "keeper_id": copies["doc_id"],
            "similarity": np.ones(len(copies)),
            "group_size": copies["dup_count"],
            "occurrences": copies["dup_count"],
            "version": pa.repeat(version, len(copies)),
        }
    )
    with store.write() as connection:
        connection.execute("DELETE FROM duplicates WHERE kind IN ('exact', 'near')")
        insert(connection, "duplicates", near)
        insert(connection, "duplicates", exact)
        forget_keys(connection, "duplicates")
        stage.finish(connection, count, output=plan.scheme)
    return near


def _priority(sources: pa.ChunkedArray, priorities: Mapping[str, int]) -> np.ndarray:
    coded = sources.combine_chunks().dictionary_encode()
    of_source = np.array([priorities.get(name, 0) for name in coded.dictionary.to_pylist()], np.int32)
    return of_source[coded.indices.to_numpy()] if len(coded) else np.zeros(0, np.int32)


def _digest_of(copies: pa.Table) -> str:
    hasher = hashlib.sha256(ids_to_numpy(copies["doc_id"]).tobytes())
    hasher.update(copies["dup_count"].to_numpy().astype("<i8").tobytes())
    return hasher.hexdigest()


def _corpus(connection: Connection) -> str:
    return get_meta(connection, "corpus_digest") or digest([])


def _number(connection: Connection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


# -- checking ---------------------------------------------------------------------------------------------------------


def pairs_among(store: Store, documents: pa.Table, plan: SketchPlan) -> pa.Table:
    """Sketch documents anew, whatever pairs the store holds, and return those among them that reach the threshold.

    ``documents`` has ``doc_id``, sorted. Columns: doc_a, doc_b, similarity. Candidates are those of the corpus: in a
    bucket that is oversize there (boilerplate), only pairs with one of its centers.
    """
    from winnow.dedup.bands import band_keys
    from winnow.dedup.buckets import BandColumns
    from winnow.dedup.minhash import signatures

    positions = Positions(ids_to_numpy(documents["doc_id"]))
    former = store.arrow(FORMER, {"scheme": plan.scheme})
    centers = Centers.of(
        former["band"].to_numpy(), former["key"].to_numpy(), positions.of(ids_to_numpy(former["doc_id"]))
    )
    with BandColumns(plan.bands.bands, len(positions), store.home.scratch) as columns, PairSpool() as pairs:
        for texts in texts_of(store, documents):
            signed, present = signatures(texts["text"], plan.sketching)
            places = positions.of(ids_to_numpy(texts["doc_id"]))
            columns.add(band_keys(signed[present], plan.bands), places[present])
        every = np.ones(len(positions), np.bool_)
        find_candidates(columns, every, Centers.none(), pairs, MAX_BUCKET, CENTERS)
        with PairSpool(store.home.scratch) as valid:
            for codes in pairs.chunks():
                valid.add(codes[still_candidates(columns, centers, codes, len(positions))])
            add_center_pairs(columns, centers, valid)
            verified = _verify(store, positions, valid, plan)
    left, right = unpack(verified.codes)
    return pa.table(
        {
            "doc_a": ids_from_numpy(ids_at(positions, left)),
            "doc_b": ids_from_numpy(ids_at(positions, right)),
            "similarity": verified.similarity,
        }
    )
