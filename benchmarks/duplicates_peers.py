"""The peers of the benchmarks of duplicates after signatures: datasketch's index and datatrove's stages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NUM_PERM, SEED, SHINGLE_WORDS = 128, 1, 5


def lsh_neighbours(signed: str, threshold: float, most: int, plan: tuple[int, int] | None) -> dict[str, Any]:
    """datasketch's ``MinHashLSH`` over stored signatures: insert every document, then query every document.

    ``plan``: bands and rows; None = what it takes for the threshold by itself. Only its inserts and queries are timed:
    its own objects are made of the signatures beforehand, batch by batch.
    """
    from datasketch import LeanMinHash, MinHashLSH

    index = MinHashLSH(threshold, NUM_PERM, params=plan)

    def insert(place: int, sketch: LeanMinHash) -> int:
        index.insert(place, sketch)
        return 0

    def query(place: int, sketch: LeanMinHash) -> int:
        return len(index.query(sketch)) - 1

    seconds, cpu, neighbours = [0.0, 0.0], 0.0, 0
    for step, ask in enumerate((insert, query)):
        place = 0
        for batch in signature_batches(signed, most):
            sketches = [LeanMinHash(seed=SEED, hashvalues=row, scheme="affine32") for row in batch]
            began, used = time.perf_counter(), time.process_time()
            for number, sketch in enumerate(sketches, place):
                neighbours += ask(number, sketch)
            seconds[step] += time.perf_counter() - began
            cpu += time.process_time() - used
            place += len(batch)
    return {
        "seconds": sum(seconds),
        "cpu": cpu,
        "insert": seconds[0],
        "documents": most,
        "bands": (index.b, index.r),
        "pairs": neighbours // 2,
    }


def signature_batches(signed: str, most: int | None = None, rows: int = 16_384) -> Iterator[np.ndarray]:
    """Yield stored signatures uint32 ``[n, NUM_PERM]``, at most ``most`` in all, without mapping the file."""
    left = most
    with (Path(signed) / "signatures").open("rb") as file:
        while left is None or left > 0:
            count = rows if left is None else min(rows, left)
            batch = np.fromfile(file, np.uint32, count * NUM_PERM).reshape(-1, NUM_PERM)
            if not len(batch):
                return
            yield batch
            left = None if left is None else left - len(batch)


def datatrove_documents(texts: Iterable[str]) -> Iterator:
    from datatrove.data import Document

    return (Document(text=text, id=str(number)) for number, text in enumerate(texts))


def signature_stage(folder: Path, buckets: int = 14):
    import xxhash
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    stage = MinhashDedupSignature(str(folder), MinhashConfig(num_buckets=buckets, hashes_per_bucket=8))
    # It hands str to xxhash, which refuses that since version 4; version 3 encoded it, as here.
    stage._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())
    return stage


def datatrove_clusters(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Run datatrove's stages as shipped (14 buckets of 8).

    Returns the cluster of every document int64 ``[N]`` (-1: none) and whether it is removed, bool ``[N]``.
    """
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster

    config = MinhashConfig()
    clusters, removed = np.full(len(texts), -1, np.int64), np.zeros(len(texts), bool)
    with tempfile.TemporaryDirectory() as name:
        signed, paired, joined = (Path(name) / stage for stage in ("signed", "paired", "joined"))
        signature_stage(signed).run(datatrove_documents(texts), 0, 1)
        buckets = MinhashDedupBuckets(str(signed), str(paired), config=config)
        for bucket in range(config.num_buckets):
            buckets.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(str(paired), str(joined), config, save_cluster_id=True).run(None, 0, 1)
        if (found := joined / "000000.clusters").exists():
            rows = np.fromfile(found, "<u4").reshape(-1, 2)
            clusters[rows[:, 0]] = rows[:, 1]
        if (found := joined / "000000.remove").exists():
            removed[np.fromfile(found, "<u4")] = True
    return clusters, removed
