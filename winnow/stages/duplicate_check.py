"""The pairs among a few documents found anew from their texts, as a check of what the store believes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.agreement import Fingerprints
from winnow.dedup.candidates import Centers, add_center_pairs, find_candidates, still_candidates
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import Positions, ids_at, unpack
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.stages import duplicate_pairing
from winnow.store.judgements import texts_of
from winnow.store.store import Store

if TYPE_CHECKING:
    from winnow.dedup.sketch import SketchPlan


def pairs_among(store: Store, documents: pa.Table, plan: SketchPlan) -> pa.Table:
    """Sketch documents anew, whatever pairs the store holds, and return those among them that reach the threshold.

    ``documents`` has ``doc_id``, sorted. Columns: doc_a, doc_b, similarity. Candidates are those of the corpus: in a
    bucket that is oversize there (boilerplate), only pairs with one of its centers.
    """
    from winnow.dedup.bands import band_keys
    from winnow.dedup.buckets import BandColumns
    from winnow.dedup.minhash import signatures

    threads = store.settings.threads or None
    positions = Positions(ids_to_numpy(documents["doc_id"]))
    former = store.arrow(duplicate_pairing.FORMER, {"scheme": plan.scheme})
    centers = Centers.of(
        former["band"].to_numpy(), former["key"].to_numpy(), positions.of(ids_to_numpy(former["doc_id"]))
    )
    with (
        BandColumns(plan.bands.bands, len(positions), store.home.scratch) as columns,
        PairSpool(store.home.scratch) as pairs,
        Fingerprints(len(positions), plan.bands.permutations, plan.threshold, store.home.scratch) as fingerprints,
    ):
        for texts in texts_of(store, documents):
            signed, present = signatures(texts["text"], plan.sketching, threads)
            places = positions.of(ids_to_numpy(texts["doc_id"]))
            columns.add(band_keys(signed[present], plan.bands, threads), places[present])
            fingerprints.add(places[present], signed[present])
        every = np.ones(len(positions), np.bool_)
        limits = duplicate_pairing.MAX_BUCKET, duplicate_pairing.CENTERS
        find_candidates(columns, every, Centers.none(), pairs, *limits, threads, fingerprints)
        with PairSpool(store.home.scratch) as valid:
            for codes in pairs.chunks():
                valid.add(codes[still_candidates(columns, centers, codes, len(positions))])
            add_center_pairs(columns, centers, valid, fingerprints)
            verified = duplicate_pairing.verify(store, positions, valid, plan)
    left, right = unpack(verified.codes)
    return pa.table(
        {
            "doc_a": ids_from_numpy(ids_at(positions, left)),
            "doc_b": ids_from_numpy(ids_at(positions, right)),
            "similarity": verified.similarity,
        }
    )
