"""Signatures and band keys of new documents; a new band plan takes the stored signatures and reads no text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.positions import IdTable, Positions
from winnow.errors import UserError
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.stages.scheme_parts import SchemeParts
from winnow.store.garbage import keeping_parts
from winnow.store.judgements import texts_of
from winnow.store.parts import part_writer
from winnow.store.stage import Stage
from winnow.store.store import Store, add_parts, live_parts

if TYPE_CHECKING:
    from winnow.dedup.sketch import SketchPlan

log = logging.getLogger(__name__)

ROWS = 20_000


@dataclass(frozen=True)
class Sketched:
    """How many documents were signed, and how many were banded from signatures that were there already."""

    signed: int
    rebanded: int

    def __bool__(self) -> bool:
        return bool(self.signed or self.rebanded)


@keeping_parts
def sketch_new_documents(store: Store, stage: Stage, plan: SketchPlan) -> Sketched:
    """Sign the documents without a signature and band those without keys; nothing is written where there are none."""
    from winnow.dedup.sketch import band, sketch

    with store.read() as connection:
        documents = connection.execute("SELECT doc_id FROM documents").to_arrow_table()
        live = live_parts(connection)
    known = IdTable(ids_to_numpy(documents["doc_id"]))
    unsigned = _without(known, SchemeParts(store, "sketches", live.get("sketches", []), plan.sketch_scheme))
    unbanded = _without(known, SchemeParts(store, "bands", live.get("bands", []), plan.scheme))
    if not len(unbanded):
        return Sketched(0, 0)
    del known, documents
    wanted = Positions(unbanded)
    rebanded, threads = 0, store.settings.threads or None
    with part_writer(store.storage, "sketches") as signatures, part_writer(store.storage, "bands") as bands:
        if len(unsigned) < len(unbanded):
            for rows in _signatures_of(SchemeParts(store, "sketches", live["sketches"], plan.sketch_scheme), wanted):
                bands.add(band(rows, plan, threads))
                rebanded += len(rows)
        for texts in texts_of(store, pa.table({"doc_id": ids_from_numpy(unsigned)}), ROWS):
            rows = sketch(texts, plan, threads)
            signatures.add(rows)
            bands.add(band(rows, plan, threads))
    with store.write() as connection:
        add_parts(connection, [*signatures.parts, *bands.parts])
        stage.finish(connection, len(unbanded), output=plan.scheme)
    log.info("%d documents signed, %d banded anew: %s", len(unsigned), rebanded, plan.summary)
    return Sketched(len(unsigned), rebanded)


def require_banded(store: Store, plan: SketchPlan) -> None:
    """Raise :class:`UserError` when documents have no row of ``bands`` as configured now; none is compared then."""
    with store.read() as connection:
        documents = connection.execute("SELECT doc_id FROM documents").to_arrow_table()
        parts = SchemeParts(store, "bands", live_parts(connection).get("bands", []), plan.scheme)
    missing = len(_without(IdTable(ids_to_numpy(documents["doc_id"])), parts))
    if missing:
        raise UserError(
            f"{missing} documents have no bands of the present configuration: run `winnow run`, or materialize "
            "`sketches` for every `shards` partition"
        )


def _without(known: IdTable, parts: SchemeParts) -> np.ndarray:
    """Return the ids of the documents that have no row in some parts, sorted."""
    marks = known.marks()
    for rows in parts.batches("doc_id"):
        known.mark(marks, ids_to_numpy(rows["doc_id"]))
    return known.rest(marks)


def _signatures_of(parts: SchemeParts, wanted: Positions) -> Iterator[pa.Table]:
    """Yield the rows of ``sketches`` of some documents, part by part."""
    for batch in parts.batches("doc_id", "scheme", "signature", size=ROWS):
        rows = batch.filter(pa.array(wanted.of(ids_to_numpy(batch["doc_id"])) >= 0))
        if len(rows):
            yield pa.Table.from_batches([rows])
