"""Repeated spans of a corpus: rate, memory and disk by size, each size in a process of its own.

    python benchmarks/spans.py [--data FOLDER] [--megabytes 50 200] [--threads 1 2] [--unit bytes]

Real texts, each once, in seeded order; what a size needs beyond them are real texts with their words shuffled (seed 0),
which repeat little. ``cpu`` is MB of text a second of processor time, which a busy machine distorts less. Memory is the
growth of the peak over the texts themselves.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
FOLDERS = ("wiki_en", "books", "usenet", "web_gov", "dialogue", "code", "legal_de", "wiki_zh", "forum_stackexchange")
BATCH = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of folders with .jsonl.zst files, field 'text'")
    parser.add_argument("--megabytes", type=int, nargs="*", default=[50, 200])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--unit", choices=("bytes", "words"), default="bytes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.data, arguments.megabytes[0] * 10**6, arguments.threads[0], arguments.unit)
        return
    print(f"substrings of 100 bytes or 50 words ({arguments.unit}), lines, paragraphs; seed 0; {arguments.data}")
    print("|   MB | threads | documents | seconds | MB/s | cpu | share | windows a byte | disk MB | memory MB |")
    print("|" + " --- |" * 10)
    for megabytes in arguments.megabytes:
        for threads in arguments.threads:
            command = [sys.executable, __file__, "--worker", "--data", str(arguments.data), "--unit", arguments.unit]
            sizes = ["--megabytes", str(megabytes), "--threads", str(threads)]
            subprocess.run([*command, *sizes], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def read(data: Path, wanted: int) -> list[str]:
    """Return distinct real texts in seeded order, then shuffled ones, of ``wanted`` bytes together."""
    import zstandard

    texts = []
    for path in sorted(path for folder in FOLDERS for path in (data / folder).glob("*.jsonl.zst")):
        if "pairs" not in path.name:
            with path.open("rb") as raw:
                stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8")
                texts += [json.loads(line)["text"] for line in stream]
    texts = list(dict.fromkeys(texts))
    draw = random.Random(0)
    draw.shuffle(texts)
    taken, size = [], 0
    for text in texts:
        if size >= wanted:
            break
        taken.append(text)
        size += len(text.encode())
    while size < wanted:
        words = texts[draw.randrange(len(texts))].split(" ")
        draw.shuffle(words)
        taken.append(" ".join(words))
        size += len(taken[-1].encode())
    return taken


def peak_megabytes() -> float:
    """Return the most memory that this process had (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def work(data: Path, wanted: int, threads: int, unit: str) -> None:
    import numpy as np
    import pyarrow as pa

    from winnow.dedup.spans import SpanFinder, SpanPlan, repeated_spans

    texts = read(data, wanted)
    lengths = np.array([len(text) for text in texts])
    batches = [pa.array(texts[at : at + BATCH], pa.large_string()) for at in range(0, len(texts), BATCH)]
    del texts
    plan = SpanPlan(words=unit == "words", length=50 if unit == "words" else 100)
    repeated_spans(["compile the kernels first, please. " * 20] * 2, plan)
    size = sum(batch.nbytes for batch in batches)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of reading
    before = peak_megabytes()
    began, processor = time.monotonic(), time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        SpanFinder(lengths, size, plan, Path(folder), threads=threads) as finder,
    ):
        for take in (finder.read, finder.compare):
            for number, batch in enumerate(batches):
                take(batch, np.arange(len(batch)) + number * BATCH)
        disk = sum(path.stat().st_size for path in Path(folder).iterdir())
        inside = sum(int(part.characters.sum()) for part in finder.found())
    seconds, processor = time.monotonic() - began, time.process_time() - processor
    memory = peak_megabytes() - before
    print(
        f"| {size / 1e6:4.0f} | {threads} | {len(lengths):,} | {seconds:.1f} | {size / 1e6 / seconds:.1f} | "
        f"{size / 1e6 / processor:.1f} | {inside / lengths.sum():.2%} | {finder.candidates / size:.3f} | "
        f"{disk / 1e6:.0f} | {memory:.0f} |"
    )


if __name__ == "__main__":
    main()
