"""Near-duplicate groups of documents in memory: from band keys and texts to keepers, without a store.

signed, present = signatures(texts, sketching)
keys = band_keys(signed[present], plan)
found = near_duplicate_groups(ids[present], keys, texts.filter(present), threshold=0.8)
ids[present][found.keepers.duplicates]  # what a deduplicated corpus leaves out
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from winnow.dedup.buckets import BandColumns
from winnow.dedup.candidates import CENTERS, MAX_BUCKET, CandidateReport, Centers, find_candidates
from winnow.dedup.keepers import Keepers, assign_keepers
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import Positions, unpack
from winnow.dedup.shingles import DEFAULT_SHINGLING, Shingling
from winnow.dedup.verify import HELD_BYTES, Reader, verify_pairs


@dataclass(frozen=True)
class NearDuplicates:
    """Verified pairs and keepers; positions are rows of the ``ids`` that were given.

    ``pairs`` int64 ``[P, 2]`` (the document with the smaller id first, sorted by ids), ``similarity`` float64 ``[P]``,
    ``candidates`` how many pairs were compared.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    keepers: Keepers
    candidates: int
    report: CandidateReport


def near_duplicate_groups(
    ids: np.ndarray,
    keys: np.ndarray,
    texts: pa.Array | pa.ChunkedArray | Reader,
    threshold: float,
    shingling: Shingling = DEFAULT_SHINGLING,
    source_priority: np.ndarray | None = None,
    characters: np.ndarray | None = None,
    max_bucket: int = MAX_BUCKET,
    centers: int = CENTERS,
    scratch: Path | None = None,
    held_bytes: int = HELD_BYTES,
    threads: int | None = None,
) -> NearDuplicates:
    """Find the near duplicates among N documents: share a bucket, verified by exact Jaccard, one keeper a group.

    ``ids``: uint8 ``[N, 16]``, distinct, in any order; ``keys``: uint64 ``[N, B]`` of ``bands.band_keys``; ``texts``:
    the N texts in that order, or a reader of them by row (``verify.Reader``), which need not hold them all.
    ``source_priority`` and ``characters`` (integer ``[N]``) decide who is kept, see ``winnow.dedup.keepers``.
    ``scratch``: a folder for what does not fit ``held_bytes`` of shingle hashes. Source: Leskovec, Rajaraman, Ullman,
    Mining of Massive Datasets, section 3.4. The result does not depend on the order of the rows.
    """
    count = len(ids)
    positions = Positions(ids)
    row_of = positions.order
    place_of = np.empty(count, np.int32)
    place_of[row_of] = np.arange(count, dtype=np.int32)

    def read(places: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Array | pa.ChunkedArray]]:
        rows = np.sort(row_of[places])
        if callable(texts):
            for found, some in texts(rows):
                yield place_of[found], some
        else:
            for start in range(0, len(rows), READ_ROWS):
                some_rows = rows[start : start + READ_ROWS]
                yield place_of[some_rows], texts.take(pa.array(some_rows))

    with BandColumns.of(keys, place_of) as columns, PairSpool(scratch) as pairs:
        found = find_candidates(columns, np.ones(count, np.bool_), Centers.none(), pairs, max_bucket, centers, threads)
        verified = verify_pairs(pairs, count, read, threshold, shingling, scratch, held_bytes, threads)
    edges = row_of[np.stack(unpack(verified.codes), axis=1)]
    none = np.zeros(count, np.int64)
    keepers = assign_keepers(
        ids,
        edges,
        verified.similarity,
        none if source_priority is None else source_priority,
        none if characters is None else characters,
    )
    return NearDuplicates(edges, verified.similarity, keepers, verified.candidates, found.report)


READ_ROWS = 1 << 15
"""Texts in memory are hashed so many at a time: their hashes are copied once."""
