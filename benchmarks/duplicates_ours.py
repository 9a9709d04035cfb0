"""Winnow's part in the benchmarks of duplicates: groups from signatures, and the whole way in a store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from duplicates_data import read_documents
from duplicates_peers import NUM_PERM, SEED, signature_batches


def signatures_of(texts: list[str], scheme: str) -> np.ndarray:
    """Return the signatures of texts, uint32 ``[N, NUM_PERM]``."""
    from winnow.dedup.minhash import Sketching, signatures

    sketching = Sketching(scheme=scheme, permutations=NUM_PERM, seed=SEED)
    return signatures(pa.array(texts, pa.large_string()), sketching)[0]


def groups_of(texts: list[str], threshold: float, scheme: str = "winnow") -> tuple[np.ndarray, np.ndarray]:
    """Find the near duplicates among N distinct texts.

    Returns the position of the document that stays for each, int64 ``[N]``, and the verified pairs int64 ``[P, 2]``.
    """
    from winnow.dedup.bands import band_keys, plan_bands
    from winnow.dedup.groups import near_duplicate_groups
    from winnow.dedup.minhash import Sketching, signatures
    from winnow.identity import doc_ids, ids_to_numpy

    array = pa.array(texts, pa.large_string())
    signed, present = signatures(array, Sketching(scheme=scheme, permutations=NUM_PERM, seed=SEED))
    rows = np.flatnonzero(present)
    keys = band_keys(signed[rows], plan_bands(threshold, NUM_PERM))
    ids = ids_to_numpy(doc_ids(texts))[rows]
    found = near_duplicate_groups(ids, keys, array.take(pa.array(rows)), threshold, signatures=signed[rows])
    keeper = np.arange(len(texts))
    keeper[rows] = rows[found.keepers.keeper]
    return keeper, rows[found.pairs]


def sign(folder: str, target: str, scheme: str) -> dict[str, Any]:
    """Write the signatures, ids and rows of the distinct texts with words among written documents."""
    from winnow.dedup.minhash import Sketching, signatures
    from winnow.identity import doc_ids, ids_as_keys, ids_to_numpy

    sketching = Sketching(scheme=scheme, permutations=NUM_PERM, seed=SEED)
    place = Path(target)
    place.mkdir()
    ids, with_words = [], []
    for texts in read_documents(Path(folder)):
        ids.append(ids_to_numpy(doc_ids(texts.to_pylist())))
        with_words.append(signatures(texts, sketching)[1])
    every, present = np.concatenate(ids), np.concatenate(with_words)
    wanted = np.zeros(len(every), bool)
    wanted[np.unique(ids_as_keys(every), return_index=True)[1]] = True
    wanted &= present
    with (place / "signatures").open("wb") as file:
        done = 0
        for texts in read_documents(Path(folder)):
            signatures(texts, sketching)[0][wanted[done : done + len(texts)]].tofile(file)
            done += len(texts)
    np.save(place / "ids.npy", every[wanted])
    np.save(place / "rows.npy", np.flatnonzero(wanted))
    return {"documents": int(wanted.sum())}


def groups(signed: str, folder: str, threshold: float) -> dict[str, Any]:
    """Signatures to verified groups; the texts of candidates are read from their files."""
    from winnow.dedup.bands import band_keys, plan_bands
    from winnow.dedup.buckets import BandColumns
    from winnow.dedup.groups import near_duplicate_groups

    plan = plan_bands(threshold, NUM_PERM)
    ids, rows = np.load(Path(signed) / "ids.npy"), np.load(Path(signed) / "rows.npy")

    def find(most: int) -> Any:
        columns, count = BandColumns(plan.bands, min(most, len(ids))), 0
        for batch in signature_batches(signed, most):
            columns.add(band_keys(batch, plan), np.arange(count, count + len(batch)))
            count += len(batch)
        with tempfile.TemporaryDirectory() as scratch:
            return near_duplicate_groups(
                ids[:most],
                columns,
                lambda wanted: texts_at(folder, rows[wanted], wanted),
                threshold,
                scratch=Path(scratch),
                signatures=signature_batches(signed, most),
            )

    find(min(2_000, len(ids)))  # a service compiles its kernels once
    began, used = time.perf_counter(), time.process_time()
    found = find(len(ids))
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - used,
        "documents": len(ids),
        "bands": (plan.bands, plan.rows),
        "pairs": len(found.pairs),
        "candidates": found.candidates,
        "removed": len(found.keepers.duplicates),
    }


def texts_at(folder: str, rows: np.ndarray, names: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield (names, texts) of the written documents at ascending ``rows``."""
    done = 0
    for texts in read_documents(Path(folder)):
        first, last = np.searchsorted(rows, [done, done + len(texts)])
        if first < last:
            yield names[first:last], texts.take(pa.array(rows[first:last] - done))
        done += len(texts)


def deliver(corpus: str, home: str) -> dict[str, Any]:
    """Read what is new in a corpus into text parts."""
    from winnow.config import Config
    from winnow.home import Home
    from winnow.stages.corpus import deliver, known_shards
    from winnow.store.stage import Stage
    from winnow.store.store import Store
    from winnow.text.deliveries import plan, scan

    config = Config.model_validate({"corpus": {"locations": [{"root": corpus}]}})
    store = Store(Home(Path(home)), config.store)
    began = time.perf_counter()
    with store.read() as connection:
        known = known_shards(connection, config.corpus)
    found = plan(scan(store.home, config.corpus), known)
    report = deliver(store, config.corpus, found, Stage(store, "corpus", "benchmark", partition=found.key))
    return {"seconds": time.perf_counter() - began, "documents": report.occurrences}


def pipeline(corpus: str, home: str, threshold: float) -> dict[str, Any]:
    """Sketch, pair and group what is new in a store, after the same with a few documents in another one."""
    from duplicates_data import Documents, Recipe, load_passages, write_documents

    with tempfile.TemporaryDirectory() as name:
        warm, few = Path(name), Documents(load_passages(sources=("web_c4",)), Recipe(400))
        for folder, first, last in (("first", 0, 380), ("more", 380, 400)):  # compiles what the increment needs too
            write_documents(warm / "corpus" / folder, few, first, last)
            deliver(str(warm / "corpus"), str(warm / "home"))
            near_duplicates(warm / "home", threshold)
    return near_duplicates(Path(home), threshold)


def near_duplicates(home: Path, threshold: float) -> dict[str, Any]:
    from winnow.config import Config
    from winnow.dedup.sketch import make_plan
    from winnow.home import Home
    from winnow.stages.duplicate_groups import group_duplicates
    from winnow.stages.duplicate_pairing import pair_new_documents
    from winnow.stages.sketches import sketch_new_documents
    from winnow.store.stage import Stage
    from winnow.store.store import Store

    config = Config.model_validate({"duplicates": {"threshold": threshold}})
    store, plan = Store(Home(home), config.store), make_plan(config.duplicates)
    marks = [time.perf_counter()]
    sketched = sketch_new_documents(store, Stage(store, "sketches", "benchmark"), plan)
    marks.append(time.perf_counter())
    paired = pair_new_documents(store, Stage(store, "duplicate_pairs", "benchmark"), plan)
    marks.append(time.perf_counter())
    group_duplicates(store, Stage(store, "duplicates", "benchmark"), plan, {})
    marks.append(time.perf_counter())
    removed = store.query("SELECT count(*) FROM duplicates WHERE kind = 'near' AND doc_id <> keeper_id")[0][0]
    return {
        **dict(zip(("sketches s", "pairs s", "groups s"), np.diff(marks).tolist(), strict=True)),
        "documents": sketched.signed,
        "candidates": paired.candidates,
        "pairs": paired.verified,
        "removed": int(removed),
    }
