"""The band keys and signatures of the store, straight from its parts.

Of all documents, or of those in buckets that new ones touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from winnow.dedup.agreement import Fingerprints
from winnow.dedup.buckets import BandColumns, KeyFilter
from winnow.dedup.minhash import Sketching
from winnow.dedup.positions import IdTable, Positions
from winnow.dedup.shingles import usable_cores
from winnow.dedup.sketch import keys_of, signatures_of
from winnow.identity import ids_to_numpy
from winnow.stages.scheme_parts import Piece, SchemeParts


def all_columns(parts: SchemeParts, positions: Positions, bands: int) -> BandColumns:
    """Return the keys of every document among ``positions``; others are no more."""
    pieces = parts.pieces()
    columns = BandColumns(bands, sum(piece.rows for piece in pieces), parts.store.home.scratch)
    for piece in pieces:
        for ids, keys in _keyed(parts, piece):
            places = positions.of(ids)
            live = places >= 0
            columns.add(keys[live], places[live])
    return columns


def touched_columns(
    parts: SchemeParts, known: IdTable, fresh: np.ndarray, former_keys: np.ndarray, bands: int
) -> tuple[Positions, BandColumns]:
    """Return all keys of the live documents in buckets with a fresh document or with one of ``former_keys``.

    ``known`` are the live documents, ``fresh`` uint8 ``[F, 16]`` the ids of new ones among them. The cost of an old
    document is that of reading its keys. Memory: ``FILTER_KEY_BYTES`` a fresh or former key, 16 bytes a document found.
    """
    wanted, pieces = IdTable(fresh), parts.pieces()
    threads = parts.store.settings.threads or usable_cores()

    def of_fresh(piece: Piece) -> list[np.ndarray]:
        """Return the flat keys of new documents; keys are read only where there are such documents."""
        if not any(wanted.among(ids_to_numpy(rows["doc_id"])).any() for rows in parts.read(piece, "doc_id")):
            return []
        return [keys[wanted.among(ids)].reshape(-1) for ids, keys in _keyed(parts, piece)]

    found = [np.zeros((0, 16), np.uint8)]
    columns = BandColumns(bands, sum(piece.rows for piece in pieces), parts.store.home.scratch)
    with ThreadPoolExecutor(threads) as pool:
        new = [keys for some in pool.map(of_fresh, pieces) for keys in some]
        asked = KeyFilter(np.concatenate([*new, former_keys, np.zeros(0, np.uint64)]))
        del new

        def of_touched(piece: Piece) -> list[tuple[np.ndarray, np.ndarray]]:
            """Return ids and keys of the live documents in a touched bucket."""
            rows = []
            for ids, keys in _keyed(parts, piece):
                hits = np.flatnonzero(asked.hits(keys))
                hits = hits[known.among(ids[hits])]
                if len(hits):
                    rows.append((ids[hits], keys[hits]))
            return rows

        needed = pieces if asked else []
        for start in range(0, len(needed), threads):
            for some in pool.map(of_touched, needed[start : start + threads]):
                for ids, keys in some:
                    columns.add(keys, np.zeros(len(keys), np.int32))
                    found.append(ids)
    every = np.concatenate(found)
    positions = Positions(every)
    columns.place(positions.of(every))
    return positions, columns


def fill_fingerprints(
    fingerprints: Fingerprints, parts: SchemeParts, positions: Positions, sketching: Sketching
) -> int:
    """Take the fingerprints of the documents among ``positions`` from the parts of ``sketches``; return how many."""

    def fill(piece: Piece) -> int:
        filled = 0
        for rows in parts.read(piece, "doc_id", "signature"):
            places = positions.of(ids_to_numpy(rows["doc_id"]))
            if (places >= 0).any():
                signed, present = signatures_of(rows, sketching)
                places = places[present]
                fingerprints.add(places[places >= 0], signed[places >= 0])
                filled += int((places >= 0).sum())
        return filled

    with ThreadPoolExecutor(parts.store.settings.threads or usable_cores()) as pool:
        return sum(pool.map(fill, parts.pieces()))


def _keyed(parts: SchemeParts, piece: Piece) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids uint8 ``[n, 16]`` and keys uint64 ``[n, B]`` of a piece's rows that have keys."""
    for rows in parts.read(piece, "doc_id", "keys"):
        keys, present = keys_of(rows)
        if len(keys):
            ids = ids_to_numpy(rows["doc_id"])
            yield (ids if len(keys) == len(ids) else ids[present]), keys
