"""Files to stored Parquet parts: Winnow beside polars and datatrove, its memory, its growth, and the cost of 1% more.

    python benchmarks/ingest.py [throughput] [memory] [growth] [increment] [--data FOLDER ...]
                                [--megabytes 1000] [--documents 1000000]

The data are real texts (JSON Lines below --data, field ``text``), repeated with a mark in front so that every document
is another one, written as JSON Lines with id, url, title and text. Every measurement is a process of its own.

throughput  JSON Lines.zst -> Parquet. Winnow's library call (``read_all``: decompress, check, parse, metadata, doc_id,
            words, quarantine, occurrences and text parts) beside polars (``read_ndjson`` + ``write_parquet``, and
            ``scan_ndjson().sink_parquet``; the better counts) and, on one core and a share of the data, datatrove
            (``JsonlReader`` + ``ParquetWriter``). All write zstd level 1. Commit and publish are timed apart.
memory      peak resident memory of the same call from 50 MB to 2 GB of JSON
growth      one delivery of N/8 ... N documents: reading, commit, publish
increment   1% more documents beside a first delivery
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
SOURCES = ("wiki_en", "books", "usenet", "web_gov", "code")
PER_FILE = 256 * 10**6
SECTIONS = ("throughput", "memory", "growth", "increment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--data", nargs="*", type=Path, help="folders of JSON Lines (.jsonl or .jsonl.zst)")
    parser.add_argument("--megabytes", type=int, default=1000, help="of JSON for throughput")
    parser.add_argument("--documents", type=int, default=1_000_000, help="of the largest delivery of growth")
    parser.add_argument("--scratch", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(globals()[options.worker](**json.loads(options.arguments))))
        return
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there is: {', '.join(SECTIONS)}")
    print(f"{os.cpu_count()} cores; data: {', '.join(path.name for path in folders(options.data))}\n")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        for section in options.sections or SECTIONS:
            globals()[section](Path(name), options)
            for left in Path(name).iterdir():
                shutil.rmtree(left, ignore_errors=True)


# -- data -----------------------------------------------------------------------------------------------------------


def folders(chosen: list[Path] | None) -> list[Path]:
    return chosen or [DATA / name for name in SOURCES if (DATA / name).is_dir()]


def texts(places: list[Path]) -> list[dict[str, Any]]:
    """Return the records of all files, whole."""
    import zstandard

    records = []
    for place in places:
        for path in sorted([*place.glob("*.jsonl"), *place.glob("*.jsonl.zst")] if place.is_dir() else [place]):
            with path.open("rb") as file:
                plain = zstandard.ZstdDecompressor().stream_reader(file) if path.suffix == ".zst" else file
                for line in io.TextIOWrapper(io.BufferedReader(plain), encoding="utf-8"):
                    record = json.loads(line)
                    if record.get("text", "").strip():
                        # Every record has every field: datatrove's Parquet writer stops at a batch without one.
                        records.append({key: str(record.get(key) or "") for key in ("text", "title", "url")})
    if not records:
        sys.exit("no data: give --data FOLDER with JSON Lines files whose records have a text")
    return records


def lines(records: list[dict[str, Any]], longest: int | None = None) -> Iterator[bytes]:
    """Yield JSON lines without end, every text another one; ``longest`` cuts texts to so many characters."""
    number = 0
    while True:
        for record in records:
            text = f"{number}: {record['text'][:longest]}"
            yield json.dumps({"id": f"doc-{number}", **record, "text": text}, ensure_ascii=False).encode() + b"\n"
            number += 1


def write_megabytes(folder: Path, records: list[dict[str, Any]], megabytes: int, suffix: str = ".jsonl.zst") -> int:
    """Write files of about 256 MB of JSON each; return the bytes of JSON."""
    return write(folder, lines(records), suffix, most_bytes=megabytes * 10**6)[0]


def write(
    folder: Path, stream: Iterator[bytes], suffix: str, most_bytes: int | None = None, most: int | None = None
) -> tuple[int, int]:
    import zstandard

    folder.mkdir(parents=True)
    total = documents = files = 0
    while (most_bytes is None or total < most_bytes) and (most is None or documents < most):
        size = 0
        with (folder / f"{files:04d}{suffix}").open("wb") as file:
            sink = zstandard.ZstdCompressor(3).stream_writer(file) if suffix.endswith(".zst") else file
            while size < PER_FILE and (most_bytes is None or total < most_bytes) and (most is None or documents < most):
                line = next(stream)
                sink.write(line)
                size, total, documents = size + len(line), total + len(line), documents + 1
            if sink is not file:
                sink.close()
        files += 1
    return total, documents


# -- contenders: each runs in a process of its own --------------------------------------------------------------------


def ours(corpus: str, home: str, workers: int) -> dict[str, Any]:
    """Read files into parts and spools, as a delivery does, without a transaction."""
    from winnow.config import Config
    from winnow.home import Home
    from winnow.stages.corpus import reading_of
    from winnow.stages.progress import Progress
    from winnow.stages.reading import read_all
    from winnow.text.deliveries import scan
    from winnow.text.planning import plan_tasks

    place = Home(Path(home))
    config = Config.model_validate({"corpus": {"locations": [{"root": corpus}], "workers": workers}})
    warm(place)
    started, cpu = time.perf_counter(), cpu_seconds()
    files = scan(place, config.corpus)
    plan = plan_tasks([(file, reading_of(config.corpus, file)) for file in files], config.corpus.shard_bytes)
    progress = Progress(plan.bytes, lambda count: None)
    reads = read_all(plan, place, config.store, place.scratch / "bench", workers, progress)
    seconds = time.perf_counter() - started
    documents = sum(read.tally.occurrences for read in reads)
    assert documents and not any(read.tally.quarantined for read in reads)
    return {"seconds": seconds, "cpu": cpu_seconds() - cpu, "documents": documents, **memory_used()}


def warm(place: Any) -> None:
    """Load compiled kernels before the clock runs: a service compiles once."""
    import pyarrow as pa

    from winnow.text._kernels import count_words

    count_words(__import__("numpy").zeros(1, "uint8"), __import__("numpy").array([0, 1]))
    pa.table({"x": [1]})


def polars_read_write(corpus: str, home: str, lazy: bool) -> dict[str, Any]:
    import polars as pl

    started, cpu, documents = time.perf_counter(), cpu_seconds(), 0
    Path(home).mkdir(parents=True)
    for path in sorted(Path(corpus).rglob("*.jsonl.zst")):
        target = Path(home) / f"{path.name}.parquet"
        if lazy:
            pl.scan_ndjson(path).sink_parquet(target, compression="zstd", compression_level=1)
        else:
            pl.read_ndjson(path).write_parquet(target, compression="zstd", compression_level=1)
        documents += pl.scan_parquet(target).select(pl.len()).collect().item()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": cpu_seconds() - cpu,
        "documents": documents,
        **memory_used(),
    }


def datatrove(corpus: str, home: str) -> dict[str, Any]:
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter

    started, cpu, documents = time.perf_counter(), cpu_seconds(), 0
    reader = JsonlReader(corpus, compression="zstd", doc_progress=False, recursive=True)
    with ParquetWriter(home, compression="zstd") as writer:
        for document in reader.run(rank=0, world_size=1):
            writer.write(document)
            documents += 1
    return {
        "seconds": time.perf_counter() - started,
        "cpu": cpu_seconds() - cpu,
        "documents": documents,
        **memory_used(),
    }


def delivery(corpus: str, home: str) -> dict[str, Any]:
    """Deliver what is new in a corpus: reading, commit, publish."""
    from winnow.config import Config
    from winnow.home import Home
    from winnow.stages.corpus import deliver, known_shards
    from winnow.store.stage import Stage
    from winnow.store.store import Store
    from winnow.text.deliveries import plan, scan

    place = Home(Path(home))
    config = Config.model_validate({"corpus": {"locations": [{"root": corpus}]}})
    store = Store(place, config.store)
    warm(place)
    started = time.perf_counter()
    with store.read() as connection:
        known = known_shards(connection, config.corpus)
    found = plan(scan(place, config.corpus), known)
    report = deliver(store, config.corpus, found, Stage(store, "corpus", "bench", partition=found.key))
    seconds = time.perf_counter() - started
    store.publish()
    return {
        "seconds": seconds,
        "read": report.read_seconds,
        "commit": report.commit_seconds,
        "publish": time.perf_counter() - started - seconds,
        "documents": report.occurrences,
        **memory_used(),
    }


def cpu_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def memory_used() -> dict[str, float]:
    """Return the peak of this process and of its largest child, MB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"peak": own, "child_peak": child}


def spawn(worker: str, one_core: bool = False, **arguments: Any) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", worker, "--arguments", json.dumps(arguments)]
    if one_core and shutil.which("taskset"):
        command = ["taskset", "-c", "0", *command]
    threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"} if one_core else {}
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "DATATROVE_COLORIZE_LOGS": "0", "LOGURU_LEVEL": "ERROR"},
    )
    return json.loads(result.stdout.splitlines()[-1])


# -- sections ---------------------------------------------------------------------------------------------------------


def throughput(scratch: Path, options: argparse.Namespace) -> None:
    records = texts(folders(options.data))
    size = write_megabytes(scratch / "corpus", records, options.megabytes)
    part = write_megabytes(scratch / "part", records, min(options.megabytes, 200))
    del records
    both, one = str(scratch / "corpus"), str(scratch / "part")
    rows = {
        "winnow, all cores": (size, spawn("ours", corpus=both, home=str(scratch / "h1"), workers=0)),
        "polars, read + write": (size, spawn("polars_read_write", corpus=both, home=str(scratch / "p1"), lazy=False)),
        "polars, scan + sink": (size, spawn("polars_read_write", corpus=both, home=str(scratch / "p2"), lazy=True)),
        "winnow, one core": (part, spawn("ours", True, corpus=one, home=str(scratch / "h2"), workers=1)),
        "datatrove, one core": (part, spawn("datatrove", True, corpus=one, home=str(scratch / "d"))),
    }
    print(f"throughput: {size / 1e6:.0f} MB of JSON in .jsonl.zst -> Parquet, zstd 1 (one core: {part / 1e6:.0f} MB)")
    print(f"{'':24}{'MB/s':>8}{'MB/CPU s':>10}{'docs/s':>10}{'peak MB':>9}{'child MB':>9}")
    for name, (amount, row) in rows.items():
        print(
            f"{name:24}{amount / 1e6 / row['seconds']:8.0f}{amount / 1e6 / row['cpu']:10.0f}"
            f"{row['documents'] / row['seconds']:10.0f}{row['peak']:9.0f}{row['child_peak']:9.0f}"
        )
    seconds = {name: row["seconds"] for name, (_, row) in rows.items()}
    best = min(seconds["polars, read + write"], seconds["polars, scan + sink"])
    print(f"winnow / the better polars: {best / seconds['winnow, all cores']:.2f}x   (target 0.6)")
    ratio = seconds["datatrove, one core"] / seconds["winnow, one core"]
    print(f"winnow / datatrove, one core: {ratio:.1f}x   (target 5)\n")


def memory(scratch: Path, options: argparse.Namespace) -> None:
    records = texts(folders(options.data))
    print("memory: peak of reading, one worker, one file of JSON Lines.zst")
    peaks = []
    for megabytes in (50, 200, 800, 2000):
        folder = scratch / f"m{megabytes}"
        global PER_FILE
        PER_FILE = 10**12
        size = write_megabytes(folder, records, megabytes)
        row = spawn("ours", corpus=str(folder), home=str(scratch / f"h{megabytes}"), workers=1)
        peaks.append(row["peak"])
        print(f"{size / 1e6:8.0f} MB of JSON {row['peak']:8.0f} MB peak {size / 1e6 / row['seconds']:8.0f} MB/s")
        shutil.rmtree(folder)
        shutil.rmtree(scratch / f"h{megabytes}")
    print(f"largest / smallest: {max(peaks) / min(peaks):.2f}   (target 1.10)\n")
    PER_FILE = 256 * 10**6


def growth(scratch: Path, options: argparse.Namespace) -> None:
    records = texts(folders(options.data))
    print("growth: one delivery into an empty store, documents of at most 1,000 characters")
    print(f"{'documents':>10}{'MB':>7}{'seconds':>9}{'read':>8}{'commit':>8}{'publish':>9}{'peak MB':>9}{'x time':>8}")
    before = None
    for share in (8, 4, 2, 1):
        folder = scratch / f"g{share}"
        size, documents = write(folder, lines(records, 1000), ".jsonl.zst", most=options.documents // share)
        row = spawn("delivery", corpus=str(folder), home=str(scratch / f"h{share}"))
        ratio = f"{row['seconds'] / before:8.2f}" if before else ""
        before = row["seconds"]
        print(
            f"{documents:10}{size / 1e6:7.0f}{row['seconds']:9.1f}{row['read']:8.1f}{row['commit']:8.1f}"
            f"{row['publish']:9.1f}{row['peak']:9.0f}{ratio}"
        )
        shutil.rmtree(folder)
        shutil.rmtree(scratch / f"h{share}")
    print("(target: at most 2.1 times the time for twice the documents)\n")


def increment(scratch: Path, options: argparse.Namespace) -> None:
    records = texts(folders(options.data))
    stream = lines(records, 1000)
    documents = options.documents // 2
    write(scratch / "corpus" / "first", stream, ".jsonl.zst", most=documents)
    first = spawn("delivery", corpus=str(scratch / "corpus"), home=str(scratch / "home"))
    write(scratch / "corpus" / "more", stream, ".jsonl.zst", most=documents // 100)
    more = spawn("delivery", corpus=str(scratch / "corpus"), home=str(scratch / "home"))
    print(f"increment: {documents:,} documents, then {documents // 100:,} more")
    for name, row in (("first", first), ("1% more", more)):
        parts = f"read {row['read']:.1f}, commit {row['commit']:.1f}"
        print(f"{name:10}{row['seconds']:8.1f} s ({parts}), publish {row['publish']:.1f} s")
    print(f"1% more - 3% of the first: {more['seconds'] - 0.03 * first['seconds']:.1f} s   (target: under 5 s)\n")


if __name__ == "__main__":
    main()
