"""Candidate pairs from band keys: out of core, a band at a time, incremental and free of history.

Two documents are candidates in a state of the corpus when they share a bucket (a band and its key) that has at most
``max_bucket`` members, or a larger one in which at least one of them is a *center*: one of the ``centers`` members with
the smallest doc_ids. Larger buckets come from boilerplate; comparing all their pairs would be quadratic.

Documents are positions in the order of doc_id (:class:`winnow.dedup.positions.Positions`). :func:`find_candidates` sees

- band keys of the live documents, at least of all members of every *touched* bucket: one that has a fresh member (a
  document that no earlier call has paired) or that was oversize in the last call;
- ``fresh``: which documents those are;
- ``former``: the :class:`Centers` of the last call, none at first.

It gives the pairs that must be compared now, and the centers of every oversize bucket, to be kept for the next call.

Why that is enough: a pair of two old documents in an old bucket was a candidate last time, unless the bucket was
oversize and neither was its center. So the pairs to compare now are those with a new document, and those in a bucket
that was oversize of which neither is a former center: withdrawals may have made a new center or shrunk the bucket.
Growth takes candidates away too (a bucket becomes oversize), but only pairs of which both documents are in oversize
buckets: :func:`still_candidates` tells for those which verified pairs count no more. Both together make any sequence of
deliveries and withdrawals end where one delivery of the final state would.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from winnow.dedup.agreement import Fingerprints
from winnow.dedup.buckets import BandColumns
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import pack, unpack
from winnow.dedup.shingles import usable_cores
from winnow.errors import UserError

log = logging.getLogger(__name__)

MAX_BUCKET = 64
CENTERS = 16
"""On planted groups of 200 documents with Jaccard from 0.7 up, 16 centers find what comparing all 200 finds, at a third
of its cost; 8 leave twice as many keepers."""
EMITTED_PAIRS = 1 << 20


@dataclass(frozen=True)
class Centers:
    """The centers of oversize buckets: ``band`` int32, ``key`` uint64, ``place`` int32 (-1: it is gone), ``members``
    uint64 (documents in the bucket), each ``[C]``, sorted by band, key and place.
    """

    band: np.ndarray
    key: np.ndarray
    place: np.ndarray
    members: np.ndarray

    @classmethod
    def none(cls) -> Centers:
        return cls(*(np.zeros(0, kind) for kind in (np.int32, np.uint64, np.int32, np.uint64)))

    @classmethod
    def of(cls, band: np.ndarray, key: np.ndarray, place: np.ndarray, members: np.ndarray | None = None) -> Centers:
        """Bring centers in any order into theirs."""
        order = np.lexsort((place, key, band))
        count = np.zeros(len(band), np.uint64) if members is None else members
        columns = (band.astype(np.int32), key.astype(np.uint64), place.astype(np.int32), count.astype(np.uint64))
        return cls(*(column[order] for column in columns))

    def of_band(self, band: int) -> tuple[np.ndarray, np.ndarray]:
        """Return keys and places of one band."""
        rows = slice(*np.searchsorted(self.band, [band, band + 1]))
        return self.key[rows], self.place[rows]


@dataclass(frozen=True)
class CandidateReport:
    """What a call of :func:`find_candidates` found; oversize buckets are an alarm for boilerplate or a bad key."""

    oversize_buckets: int
    largest_bucket: int  # members of the largest oversize bucket, 0 if there is none
    oversize_members: int  # over all oversize buckets, a document once a bucket


@dataclass(frozen=True)
class Candidates:
    """``centers`` are the oversize buckets', ``crowded`` bool ``[N]`` says who is in one."""

    centers: Centers
    crowded: np.ndarray
    report: CandidateReport


def find_candidates(
    columns: BandColumns,
    fresh: np.ndarray,
    former: Centers,
    pairs: PairSpool,
    max_bucket: int = MAX_BUCKET,
    centers: int = CENTERS,
    threads: int | None = None,
    fingerprints: Fingerprints | None = None,
) -> Candidates:
    """Put the pairs to compare into ``pairs`` and return the oversize buckets' centers.

    ``fresh``: bool ``[N]`` over the positions that ``columns.places`` refer to. Pairs whose ``fingerprints`` agree in
    too few places are left out. Memory: about 40 bytes a row and thread
    beside ``pairs``. Both limits belong to the stored state: after a change of either, pass all documents as fresh
    once. Raises ``UserError`` if a limit is below its least value (``max_bucket`` 2, ``centers`` 1).
    """
    if max_bucket < 2 or centers < 1:
        raise UserError(
            f"max_bucket={max_bucket}, centers={centers}: set max_bucket to at least 2 and centers to at least 1"
        )
    limits = max_bucket, min(centers, max_bucket)
    crowded = np.zeros(len(fresh), np.bool_)

    def one_band(band: int) -> Centers:
        return _band(columns, band, fresh, former.of_band(band), pairs, limits, crowded, fingerprints)

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        found = list(pool.map(one_band, range(columns.bands)))
    names = ("band", "key", "place", "members")
    all_centers = Centers(*(np.concatenate([getattr(one, name) for one in found]) for name in names))
    first = np.ones(len(all_centers.key), np.bool_)
    first[1:] = (all_centers.key[1:] != all_centers.key[:-1]) | (all_centers.band[1:] != all_centers.band[:-1])
    members = all_centers.members[first]
    report = CandidateReport(int(first.sum()), int(members.max(initial=0)), int(members.sum()))
    if report.oversize_buckets:
        log.warning(
            "%d buckets have more than %d members (largest %d): only pairs with their %d smallest doc_ids are compared",
            report.oversize_buckets,
            max_bucket,
            report.largest_bucket,
            limits[1],
        )
    return Candidates(all_centers, crowded, report)


def _band(
    columns: BandColumns,
    band: int,
    fresh: np.ndarray,
    former: tuple[np.ndarray, np.ndarray],
    pairs: PairSpool,
    limits: tuple[int, int],
    crowded: np.ndarray,
    fingerprints: Fingerprints | None,
) -> Centers:
    """Find the pairs and the centers of one band."""
    from winnow.dedup import _bucket_kernels

    max_bucket, centers = limits
    keys = columns.column(band)
    order = np.argsort(keys)
    keys, places = keys[order], columns.places[order]
    del order
    starts = np.empty(len(keys) // 2, np.int64)
    ends = np.empty_like(starts)
    count = _bucket_kernels.runs(keys, places, starts, ends)
    starts, ends = starts[:count].copy(), ends[:count].copy()
    sizes = ends - starts
    oversize = np.flatnonzero(sizes > max_bucket)
    largest = int(np.where(sizes > max_bucket, sizes * centers, sizes**2).max(initial=0))
    out, run = np.empty(max(EMITTED_PAIRS, largest), np.uint64), 0
    while run < count:
        run, filled = _bucket_kernels.bucket_pairs(
            keys, places, starts, ends, run, fresh, *former, max_bucket, centers, out
        )
        codes = out[:filled]
        pairs.add(codes if fingerprints is None else codes[fingerprints.alike(codes)])
    for start, end in zip(starts[oversize].tolist(), ends[oversize].tolist(), strict=True):
        crowded[places[start:end]] = True
    rows = (starts[oversize, None] + np.arange(centers)).ravel()
    each = np.repeat(sizes[oversize], centers)
    return Centers(np.full(len(rows), band, np.int32), keys[rows], places[rows], each.astype(np.uint64))


def still_candidates(columns: BandColumns, centers: Centers, codes: np.ndarray, count: int) -> np.ndarray:
    """Return which pairs that share a bucket are candidates now, given the centers of all oversize ones: bool ``[P]``.

    ``codes``: uint64 ``[P]`` of positions below ``count``; ``columns`` needs all keys of their documents.
    """
    left, right = unpack(codes)
    row_of = np.full(count, -1, np.int64)
    row_of[columns.places] = np.arange(columns.rows)
    rows_left, rows_right = row_of[left], row_of[right]
    valid = np.zeros(len(codes), np.bool_)
    for band in range(columns.bands):
        column = columns.column(band)
        keys = column[rows_left]
        shared = np.flatnonzero((keys == column[rows_right]) & ~valid)
        center_keys, center_places = centers.of_band(band)
        oversize = np.unique(center_keys)
        if not len(oversize):
            valid[shared] = True
            continue
        bucket = np.searchsorted(oversize, keys[shared])
        bucket[bucket == len(oversize)] = 0
        large = oversize[bucket] == keys[shared]
        there = center_places >= 0  # one that is gone still tells that its bucket is oversize
        leading = np.searchsorted(oversize, center_keys[there]) * count + center_places[there]
        with_center = np.zeros(len(shared), np.bool_)
        for side in (left, right):
            with_center |= np.isin(bucket * count + side[shared], leading)
        valid[shared] = ~large | with_center
    return valid


def add_center_pairs(columns: BandColumns, centers: Centers, pairs: PairSpool, fingerprints: Fingerprints) -> None:
    """Put every center that is there (``place`` not -1) with each other member of its bucket into ``pairs``.

    As in :func:`find_candidates`, those whose ``fingerprints`` agree in too few places are left out.
    """
    for band in range(columns.bands):
        keys, places = centers.of_band(band)
        keys, places = keys[places >= 0], places[places >= 0].astype(np.int64)
        if not len(keys):
            continue
        column = columns.column(band)
        order = np.argsort(column)
        column, members = column[order], columns.places[order].astype(np.int64)
        firsts, lasts = (np.searchsorted(column, keys, side) for side in ("left", "right"))
        for place, first, last in zip(places.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
            others = members[first:last]
            others = others[others != place]
            codes = pack(np.minimum(others, place), np.maximum(others, place))
            pairs.add(codes[fingerprints.alike(codes)])
