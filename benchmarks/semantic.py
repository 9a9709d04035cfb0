"""Semantic duplicates: time, memory and what is found of planted duplicates, on vectors of all-MiniLM's dimension.

    python benchmarks/semantic.py [--documents 100000] [--template]

Nine tenths of the vectors are random with some common directions; the others are such vectors, turned a little (cosine
about 0.99). ``--template`` makes all vectors variants of one instead, the dense case. One process; OMP_NUM_THREADS sets
the threads of the matrix products.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from typing import Any

import numpy as np

from winnow.dedup.semantic import SemanticDuplicates, find_semantic_duplicates
from winnow.dedup.semantic_clusters import cluster_documents

DIMENSION = 384
COMMON = 32
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--template", action="store_true", help="all vectors are variants of one")
    parser.add_argument("--epsilon", type=float, default=0.05)
    options = parser.parse_args()
    draw = np.random.default_rng(SEED)
    ids = draw.integers(0, 256, (options.documents, 16), dtype=np.uint8)
    planted = 0 if options.template else options.documents // 10
    with tempfile.TemporaryFile() as file:
        vectors = np.memmap(file, np.float32, "w+", shape=(options.documents, DIMENSION))
        fill(vectors, draw, planted, options.template)
        find_semantic_duplicates(cluster_documents(ids[:100], vectors[:100]), options.epsilon)  # compiles
        before = peak()
        started = time.perf_counter()
        clusters = cluster_documents(ids, vectors)
        clustered = time.perf_counter()
        paper = find_semantic_duplicates(clusters, options.epsilon)
        compared = time.perf_counter()
        code = find_semantic_duplicates(clusters, options.epsilon, "code")
        after = peak()
        print(f"{options.documents:,} vectors of {DIMENSION}, seed {SEED}, {vectors.nbytes / 2**20:,.0f} MiB in a file")
        print(f"clusters   {clusters.count} (largest {clusters.largest:,}), {clustered - started:.1f} s")
        print(f"compared   {compared - clustered:.1f} s, both variants and the sweep")
        print(f"memory     peak {after:,.0f} MiB ({before:,.0f} before), mapped pages included")
        both = len(np.intersect1d(paper.removed, code.removed))
        print(f"removed    paper {len(paper.removed):,}, code {len(code.removed):,}, by both {both:,}")
        if planted:
            first, second = np.arange(planted), options.documents - planted + np.arange(planted)
            found = np.mean(paper.keeper[first] == paper.keeper[second])
            together = np.mean(clusters.cluster[first] == clusters.cluster[second])
            others = np.setdiff1d(paper.removed, np.concatenate([first, second]))
            print(f"planted    {found:.4f} found, {together:.4f} in one cluster; {len(others)} others removed")
        print("epsilon    " + "  ".join(f"{row['epsilon']:g}" for row in rows(paper, "paper")))
        for variant in ("paper", "code"):
            print(f"{variant:10} " + "  ".join(f"{row['kept_share']:.3f}" for row in rows(paper, variant)))


def fill(vectors: np.ndarray, draw: np.random.Generator, planted: int, template: bool) -> None:
    """Write unit vectors; the last ``planted`` ones are the first ones, turned a little."""
    directions = draw.normal(size=(COMMON, DIMENSION)).astype(np.float32)
    middle = draw.normal(size=DIMENSION).astype(np.float32)
    own = len(vectors) - planted
    for start in range(0, own, 10_000):
        count = min(10_000, own - start)
        noise = draw.normal(size=(count, DIMENSION)).astype(np.float32)
        if template:
            rows = middle + 0.1 * noise
        else:
            rows = draw.normal(size=(count, COMMON)).astype(np.float32) @ directions + 2 * noise
        vectors[start : start + count] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for start in range(0, planted, 10_000):
        count = min(10_000, planted - start)
        noise = draw.normal(size=(count, DIMENSION)).astype(np.float32) / np.float32(np.sqrt(DIMENSION))
        rows = vectors[start : start + count] + 0.12 * noise
        vectors[own + start : own + start + count] = rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows(found: SemanticDuplicates, variant: str) -> list[dict[str, Any]]:
    return [row for row in found.sweep().to_pylist() if row["variant"] == variant]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
