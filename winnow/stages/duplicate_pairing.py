"""Near duplicates in the store: candidate pairs out of core, and those whose exact similarity reaches the threshold.

Only pairs with a new document are compared; k deliveries end where one would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.agreement import Fingerprints
from winnow.dedup.buckets import FILTER_BYTES, FILTER_KEY_BYTES
from winnow.dedup.candidates import (
    CENTERS,
    MAX_BUCKET,
    CandidateReport,
    Candidates,
    Centers,
    find_candidates,
    still_candidates,
)
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import IdTable, Positions, ids_at, pack, unpack
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.stages.band_rows import all_columns, fill_fingerprints, touched_columns
from winnow.stages.corpus_digest import stored_digest
from winnow.stages.scheme_parts import SchemeParts
from winnow.store.judgements import mark_judged, texts_of
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Store, insert, live_parts, load, replace_rows

if TYPE_CHECKING:
    from winnow.dedup.buckets import BandColumns
    from winnow.dedup.sketch import SketchPlan
    from winnow.dedup.verify import Reader, Verified

PAIRED = "duplicate_pairs"
PAIRING_VERSION = "3"
FRESH_SHARE = 0.2
"""Up to this share of new documents (and ``FILTER_BYTES``) old keys are only searched for those of new ones; above it
all keys are sorted."""
INSERTED_ROWS = 1 << 18
READ_ROWS = 1 << 12
"""Texts that are hashed at once by one core, while the next are read."""


@dataclass(frozen=True)
class Paired:
    """What pairing found: pairs compared, those at or above the threshold, and stored ones that count no more."""

    documents: int
    candidates: int
    verified: int
    dropped: int
    report: CandidateReport


def pairing_method(plan: SketchPlan) -> str:
    """Return what all stored pairs were found by: another method compares every document anew."""
    return f"{PAIRING_VERSION}/{MAX_BUCKET}:{CENTERS}/{plan.scheme}"


def pairing_key(store: Store, plan: SketchPlan) -> str:
    """Return the key of the stage ``duplicate_pairs``."""
    with store.read() as connection:
        return stage_key(PAIRED, pairing_method(plan), corpus=stored_digest(connection))


@dataclass(frozen=True)
class _State:
    """What pairing starts from, read in one piece."""

    documents: np.ndarray
    fresh: np.ndarray
    former: pa.Table
    parts: SchemeParts
    sketches: SchemeParts
    known: IdTable
    anew: bool  # no document was compared by this method: what is stored comes from another one


def _state(store: Store, plan: SketchPlan) -> _State:
    scheme = plan.scheme
    with store.read() as connection:
        documents = ids_to_numpy(connection.execute(DOCUMENTS).to_arrow_table()["doc_id"])
        seen = connection.execute(SEEN, {"method": pairing_method(plan)}).to_arrow_table()
        former = connection.execute(FORMER, {"scheme": scheme}).to_arrow_table()
        live = live_parts(connection)
    parts = SchemeParts(store, "bands", live.get("bands", []), scheme)
    sketches = SchemeParts(store, "sketches", live.get("sketches", []), plan.sketch_scheme)
    known = IdTable(documents)
    marks = known.marks()
    known.mark(marks, ids_to_numpy(seen["doc_id"]))
    anew = not len(seen)
    return _State(documents, known.rest(marks), former.slice(0, 0) if anew else former, parts, sketches, known, anew)


DOCUMENTS = "SELECT doc_id FROM documents"
NO_PAIRS = pa.table({"doc_a": pa.array([], pa.uuid()), "doc_b": pa.array([], pa.uuid())})
SEEN = "SELECT doc_id FROM judged WHERE stage = 'duplicate_pairs' AND version = $method"
FORMER = "SELECT band, key, doc_id FROM bucket_centers WHERE scheme = $scheme"
FORMER_JUDGED = "DELETE FROM judged WHERE stage = 'duplicate_pairs' AND version <> $method"


def pair_new_documents(store: Store, stage: Stage, plan: SketchPlan) -> Paired:
    """Compare every document not yet paired with all others; store pairs whose exact Jaccard reaches the threshold.

    ``duplicate_pairs`` then holds exactly the verified pairs that are candidates in the present state.
    """
    scheme, method, threads = plan.scheme, pairing_method(plan), store.settings.threads or None
    state = _state(store, plan)
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
        with Fingerprints(len(positions), plan.bands.permutations, plan.threshold, store.home.scratch) as fingerprints:
            if fill_fingerprints(fingerprints, state.sketches, positions, plan.sketching) < columns.rows:
                raise LookupError("documents have bands and no signature: materialize `sketches` for every partition")
            found = find_candidates(columns, fresh, former, pairs, MAX_BUCKET, CENTERS, threads, fingerprints)
        dropped = NO_PAIRS if state.anew else _no_candidates_any_more(store, scheme, positions, columns, found)
        columns.close()
        verified = verify(store, positions, pairs, plan)
    with store.write() as connection:
        # Pairs and bucket centers are the present method's alone: documents compared by another one start anew.
        if state.anew:
            connection.execute("DELETE FROM duplicate_pairs WHERE kind = 'near'")
        connection.execute(FORMER_JUDGED, {"method": method})
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
        mark_judged(connection, PAIRED, method, pa.table({"doc_id": ids_from_numpy(state.fresh)}))
        forget_keys(connection, PAIRED, "duplicates")
        stage.finish(connection, len(state.fresh), output=scheme)
    return Paired(len(state.fresh), verified.candidates, len(verified.codes), len(dropped), found.report)


def _columns(state: _State, plan: SketchPlan) -> tuple[Positions, BandColumns]:
    former_keys = np.unique(state.former["key"].to_numpy())
    filtered = FILTER_KEY_BYTES * (len(state.fresh) * plan.bands.bands + len(former_keys))
    if len(state.fresh) > FRESH_SHARE * len(state.documents) or filtered > FILTER_BYTES:
        positions = Positions(state.documents)
        return positions, all_columns(state.parts, positions, plan.bands.bands)
    return touched_columns(state.parts, state.known, state.fresh, former_keys, plan.bands.bands)


def verify(store: Store, positions: Positions, pairs: PairSpool, plan: SketchPlan) -> Verified:
    """Return the pairs of stored documents at ``positions`` that reach the plan's threshold."""
    from winnow.dedup.verify import verify_pairs

    return verify_pairs(
        pairs,
        len(positions),
        _reader(store, positions),
        plan.threshold,
        plan.sketching.shingling,
        store.home.scratch,
        threads=store.settings.threads or None,
    )


def _reader(store: Store, positions: Positions) -> Reader:
    """Return a reader of the documents' texts, in the order in which their parts hold them."""

    def read(places: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Array | pa.ChunkedArray]]:
        documents = pa.table({"doc_id": ids_from_numpy(ids_at(positions, places))})
        for texts in texts_of(store, documents, READ_ROWS):
            yield positions.of(ids_to_numpy(texts["doc_id"])), texts["text"]

    return read


def _no_candidates_any_more(
    store: Store, scheme: str, positions: Positions, columns: BandColumns, found: Candidates
) -> pa.Table:
    """Return (doc_a, doc_b) of the stored pairs that are no candidates now: all their buckets have become oversize."""
    crowded = np.flatnonzero(found.crowded)
    if not len(crowded):
        return NO_PAIRS
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
