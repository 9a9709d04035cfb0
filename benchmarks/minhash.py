"""Text to signatures: Winnow's schemes beside datasketch 2, rensa and datatrove, in one run on the same documents.

    python benchmarks/minhash.py [--data FILE_OR_FOLDER ...] [--megabytes 20] [--repeats 3]

Every contender gets the same texts and makes 128 values of the same 5-word shingles, in a process of its own. The peers
have no shingling (datatrove's needs spaCy), so theirs is the usual Python (``re.findall`` and ``" ".join``); the column
"sketch" leaves it out. datasketch runs ``MinHash.update_batch`` on a copied sketch (as its ``bulk`` does) with xxh32;
rensa runs ``RMinHash.digest_matrix_from_token_byte_sets``; datatrove joins and hashes the words it is given and runs
``get_signature``. The best of the repeats counts, after one warm-up. Below: every normalisation and unit, and the exact
sets of shingle hashes, per core.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
BATCH = 512  # documents whose shingles a peer holds at once
NUM_PERM, SEED = 128, 1
# name: (function, threads (0 = all cores), scheme, normalisation, unit); scheme "" = sets of hashes
CONTENDERS = {
    "winnow, 1 thread": ("winnow", 1, "winnow", "datasketch-words", "words"),
    "winnow, all cores": ("winnow", 0, "winnow", "datasketch-words", "words"),
    "as datasketch": ("winnow", 1, "datasketch", "datasketch-words", "words"),
    "as its legacy": ("winnow", 1, "datasketch-legacy", "datasketch-words", "words"),
    "as datatrove": ("winnow", 1, "datatrove", "datatrove", "words"),
    "rensa, 1 thread": ("rensa", 1),
    "rensa, all cores": ("rensa", 0),
    "datasketch": ("datasketch", 1),
    "datatrove, words": ("datatrove", 1),
}
VARIANTS = {
    f"{normalization}, {unit}{size}": ("winnow", 1, "winnow", normalization, f"{unit}:{size}")
    for normalization in ("datasketch-words", "datatrove", "rpv2", "dolma")
    for unit, size in (("words", 5), ("tokens", 5), ("characters", 24))
} | {"sets of shingle hashes": ("winnow", 1, "", "datasketch-words", "words")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="*", type=Path, help="JSON Lines (.jsonl or .jsonl.zst, field 'text') or folders"
    )
    parser.add_argument("--megabytes", type=float, default=20, help="stop reading after so much text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments)))
        return
    results = {name: spawn(name, arguments.repeats) for name in CONTENDERS | VARIANTS}
    first = results["winnow, 1 thread"]
    print(f"data: {first['data']}: {first['documents']} documents, {first['megabytes']:.1f} MB of UTF-8 text")
    print(f"{NUM_PERM} values, seed {SEED}, 5-word shingles; {os.cpu_count()} cores; best of {arguments.repeats}\n")
    print(f"{'':30}{'docs/s':>10}{'MB/s':>9}{'MB/CPU s':>10}{'ratio':>8}{'sketch MB/s':>13}{'peak MB':>9}")
    for name, row in results.items():
        speed = row["megabytes"] / row["seconds"]
        ratio = row["cpu"] / first["cpu"]
        sketch = f"{row['megabytes'] / row['sketch']:.1f}" if row["sketch"] else "-"
        print(
            f"{name:30}{row['documents'] / row['seconds']:>10,.0f}{speed:>9.1f}{row['megabytes'] / row['cpu']:>10.1f}"
            f"{ratio:>7.1f}x{sketch:>13}{row['peak']:>9.0f}"
        )
    with tempfile.TemporaryDirectory() as empty:
        cold = spawn("winnow, 1 thread", 1, {"NUMBA_CACHE_DIR": empty})
    print(f"\nwinnow's first call: {cold['first']:.1f} s with an empty compilation cache, {first['first']:.1f} s after")
    print("ratio: CPU time against winnow on one thread (other work on the machine does not count).")
    print("sketch: the peer alone, its shingles made beforehand. peak: resident memory of the process, data included.")


def spawn(name: str, repeats: int, environment: dict[str, str] | None = None) -> dict:
    """Run one contender in a process of its own and return its figures."""
    threads = (CONTENDERS | VARIANTS)[name][1]
    limits = {"RAYON_NUM_THREADS": str(threads)} if threads else {}
    command = [sys.executable, __file__, *sys.argv[1:], "--repeats", str(repeats), "--worker", name]
    done = subprocess.run(
        command, env={**os.environ, **limits, **(environment or {})}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def work(arguments: argparse.Namespace) -> dict:
    function, threads, *how = (CONTENDERS | VARIANTS)[arguments.worker]
    label, texts = load(arguments.data, arguments.megabytes)
    documents, size = len(texts), sum(len(text.encode()) for text in texts) / 1e6
    contenders: dict[str, Callable[..., Iterator[tuple[float, float]]]] = {
        "winnow": winnow,
        "rensa": rensa,
        "datasketch": datasketch,
        "datatrove": datatrove,
    }
    run = contenders[str(function)](texts, threads or (os.cpu_count() or 1), *how)
    began = time.perf_counter()
    next(run)
    first = time.perf_counter() - began
    timed = []
    for _ in range(arguments.repeats):
        used = time.process_time()
        seconds, sketch = next(run)
        timed.append((seconds, sketch, time.process_time() - used))
    seconds, sketch, cpu = (min(column) for column in zip(*timed, strict=True))
    return {
        "data": label,
        "documents": documents,
        "megabytes": size,
        "first": first,
        "seconds": seconds,
        "sketch": sketch,
        "cpu": cpu,
        "peak": peak(),
    }


def peak() -> float:
    """Return the largest resident memory of this process so far, in MB (Linux counts in KiB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def winnow(texts: list[str], threads: int, scheme: str, normalization: str, unit: str) -> Iterator[tuple[float, float]]:
    """Yield (seconds, 0) per run over all texts; the first item is the warm-up."""
    import pyarrow as pa

    sys.path.insert(0, str(ROOT))
    from winnow.dedup.minhash import Sketching, signatures
    from winnow.dedup.shingles import Shingling, shingle_hashes

    unit, _, size = unit.partition(":")
    shingling = Shingling(normalization, unit, int(size or 5))

    def once(part: pa.Array) -> None:
        if scheme:
            signatures(part, Sketching(shingling, scheme, NUM_PERM, SEED), threads)
        else:
            shingle_hashes(part, shingling, threads)

    array = pa.array(texts, pa.large_string())
    texts.clear()
    once(array[:4])
    yield 0.0, 0.0
    while True:
        began = time.perf_counter()
        once(array)
        yield time.perf_counter() - began, 0.0


def rensa(texts: list[str], threads: int) -> Iterator[tuple[float, float]]:
    """Yield (seconds, seconds without shingling); rayon reads its number of threads from the environment."""
    from rensa import RMinHash

    def sketch(batch: list[list[bytes]]) -> None:
        RMinHash.digest_matrix_from_token_byte_sets(batch, num_perm=NUM_PERM, seed=SEED)

    yield from batched(texts, sketch)


def datasketch(texts: list[str], threads: int) -> Iterator[tuple[float, float]]:
    """Yield (seconds, seconds without shingling)."""
    import xxhash
    from datasketch import MinHash

    empty = MinHash(num_perm=NUM_PERM, seed=SEED, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")

    def sketch(batch: list[list[bytes]]) -> None:
        for shingles in batch:
            empty.copy().update_batch(shingles)

    yield from batched(texts, sketch)


def datatrove(texts: list[str], threads: int) -> Iterator[tuple[float, float]]:
    """Yield (seconds, seconds without shingling): its stage from joined shingles on, without files."""
    import numpy as np
    import xxhash
    from datatrove.pipeline.dedup import minhash

    minhash.load_word_tokenizer = lambda language: None
    config = minhash.MinhashConfig(num_buckets=NUM_PERM // 8, hashes_per_bucket=8, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        stage = minhash.MinhashDedupSignature(folder, config)

        def sketch(batch: list[list[bytes]]) -> None:
            for shingles in batch:
                hashes = np.fromiter([xxhash.xxh64_intdigest(shingle) for shingle in shingles], np.uint64)
                if len(hashes):
                    stage.get_signature(hashes.reshape(-1, 1))

        yield from batched(texts, sketch)


def batched(texts: list[str], sketch) -> Iterator[tuple[float, float]]:
    words = re.compile(r"\w+")

    def shingles(text: str) -> list[bytes]:
        found = words.findall(text.lower())
        width = min(5, len(found))
        return [" ".join(found[i : i + width]).encode() for i in range(len(found) - width + 1)] if found else []

    sketch([shingles(text) for text in texts[:4]])
    yield 0.0, 0.0
    while True:
        sketching = 0.0
        began = time.perf_counter()
        for start in range(0, len(texts), BATCH):
            batch = [shingles(text) for text in texts[start : start + BATCH]]
            ready = time.perf_counter()
            sketch(batch)
            sketching += time.perf_counter() - ready
        yield time.perf_counter() - began, sketching


def load(paths: list[Path] | None, megabytes: float) -> tuple[str, list[str]]:
    """Return a label and texts: of the files given, else the test corpora, else the standard library's help pages."""
    files = [file for path in paths or [DATA / "wiki_en", DATA / "usenet"] for file in expand(path)]
    texts, left = [], megabytes * 1e6
    for text in (text for file in files for text in read(file)):
        texts.append(text)
        left -= len(text)
        if left <= 0:
            break
    if texts:
        return ", ".join(f"{file.parent.name}/{file.name}" for file in files), texts
    if paths:
        raise SystemExit(f"no documents in {', '.join(map(str, paths))}")
    from pydoc_data.topics import topics

    return "pydoc topics of the standard library", list(topics.values()) * 10


def expand(path: Path) -> list[Path]:
    return (
        sorted(path.glob("docs.jsonl*")) or sorted(path.glob("*.jsonl*")) if path.is_dir() else [path][: path.exists()]
    )


def read(file: Path) -> Iterator[str]:
    import zstandard

    with file.open("rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw) if file.suffix == ".zst" else raw
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)["text"]


if __name__ == "__main__":
    main()
