"""Near-duplicate groups of documents in memory: from band keys and texts to keepers, without a store.

signed, present = signatures(texts, sketching)
keys = band_keys(signed[present], plan)
found = near_duplicate_groups(ids[present], keys, texts.filter(present), 0.8, signatures=signed[present])
ids[present][found.keepers.duplicates]  # what a deduplicated corpus leaves out
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from winnow.dedup.agreement import Fingerprints
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
    keys: np.ndarray | BandColumns,
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
    signatures: Iterable[np.ndarray] | None = None,
) -> NearDuplicates:
    """Find the near duplicates among N documents: share a bucket, verified by exact Jaccard, one keeper a group.

    ``ids``: uint8 ``[N, 16]``, distinct, in any order; ``keys``: uint64 ``[N, B]`` of ``bands.band_keys``, or columns
    of them in that order, which are closed when they are used up; ``texts``: the N texts in that order, or a reader of
    them by row (``verify.Reader``), which need not hold them all. ``source_priority`` and ``characters`` (integer
    ``[N]``) decide who is kept, see ``winnow.dedup.keepers``. ``signatures``: where the keys come from, ``[N, K]`` or
    batches of its rows; they spare most false candidates the reading of their texts (``winnow.dedup.agreement``).
    ``scratch``: a folder for what does not fit ``held_bytes`` of shingle hashes. The result does not depend on the
    order of the rows. Source: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.
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

    with ExitStack() as stack:
        pairs = stack.enter_context(PairSpool(scratch))
        fingerprints = None if signatures is None else _fingerprints(signatures, place_of, threshold, scratch)
        if fingerprints is not None:
            stack.enter_context(fingerprints)
        columns = keys if isinstance(keys, BandColumns) else BandColumns.of(keys, place_of)
        with columns:
            columns.place(place_of)
            every = np.ones(count, np.bool_)
            found = find_candidates(columns, every, Centers.none(), pairs, max_bucket, centers, threads, fingerprints)
        if fingerprints is not None:
            fingerprints.close()
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


def _fingerprints(
    signatures: Iterable[np.ndarray], place_of: np.ndarray, threshold: float, scratch: Path | None
) -> Fingerprints | None:
    """Return the fingerprints of signatures in the rows' order, whole or in batches; None where there are none."""
    batches = iter([signatures] if isinstance(signatures, np.ndarray) else signatures)
    first = next(batches, None)
    if first is None:
        return None
    fingerprints, done = Fingerprints(len(place_of), first.shape[1], threshold, scratch), 0
    for batch in chain([first], batches):
        fingerprints.add(place_of[done : done + len(batch)], batch)
        done += len(batch)
    if done != len(place_of):
        raise ValueError(f"{done} signatures for {len(place_of)} documents: give one of each")
    return fingerprints


READ_ROWS = 1 << 12
"""Texts in memory are hashed so many at a time by one core."""
