"""Contamination: MB/s a core of each method, and what it flags in documents as they are.

    python -m benchmarks.contamination [--data DIR] [--documents 25000]

``--data`` holds ``wiki_en/docs.jsonl.zst`` and ``eval_targets/*.jsonl.zst`` (by default that of ``WINNOW_TEST_DATA``).
Words are cut once for all sets (the first line); then a line a set: items, items that cannot be found, seconds to
index, MB of text a second that are searched by ``gapped``, by ``longest_run`` (which cuts the words itself, each time)
and by ``gpt3``, and the documents that each of them flags. All on one thread, compiled beforehand.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard

from winnow.contamination import build_gapped, build_index, contaminated, find_matches, find_overlap, split_words
from winnow.contamination.items import item_from
from winnow.contamination.ngrams import find_collisions

DATA = Path(os.environ.get("WINNOW_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--documents", type=int, default=25_000)
    options = parser.parse_args()
    texts = [record["text"] for record in _records(options.data / "wiki_en" / "docs.jsonl.zst")][: options.documents]
    documents = pa.array(texts, pa.large_string())
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    split_words(documents.slice(0, 1), threads=1)
    words, seconds = _timed(lambda: split_words(documents, threads=1))
    bare, _ = _timed(lambda: split_words(documents, "gpt3", threads=1))
    print(f"{len(texts)} documents, {megabytes:.1f} MB; words cut at {megabytes / seconds:.0f} MB/s")
    print(f"{'set':14}{'items':>7}{'ignored':>9}{'index s':>9}{'MB/s':>34}{'documents flagged':>30}")
    print(f"{'':39}{'gapped':>12}{'longest_run':>12}{'gpt3':>10}{'gapped':>10}{'longest_run':>12}{'gpt3':>8}")
    for path in sorted((options.data / "eval_targets").glob("*.jsonl.zst")):
        rows = list(_records(path))
        items = [
            item_from(row["prompt"], {name: row[name] for name in row if name not in ("prompt", "text")})
            for row in rows
        ]
        whole = [row["text"] for row in rows]
        gapped, indexing = _timed(partial(build_gapped, items))
        run = build_index(whole, 8)
        thirteen = build_index([text if len(text.split()) >= 13 else "" for text in whole], 13, "gpt3")
        find_matches(split_words(documents.slice(0, 9)), gapped, threads=1)
        find_overlap(documents.slice(0, 9), run, threads=1)
        find_collisions(split_words(documents.slice(0, 9), "gpt3"), thirteen, threads=1)
        found, first = _timed(partial(find_matches, words, gapped, threads=1))
        runs, second = _timed(partial(find_overlap, documents, run, threads=1))
        grams, third = _timed(partial(find_collisions, bare, thirteen, threads=1))
        flagged = (
            len(set(found.filter(found["contaminated"])["position"].to_pylist())),
            int(contaminated(runs, run, 13).sum()),
            len(set(grams["position"].to_pylist())),
        )
        print(
            f"{path.name.split('.')[0]:14}{len(items):>7}{sum(gapped.ignored.values()):>9}{indexing:>9.2f}"
            + "".join(f"{megabytes / one:>{width}.0f}" for one, width in ((first, 12), (second, 12), (third, 10)))
            + "".join(f"{one:>{width}}" for one, width in zip(flagged, (10, 12, 8), strict=True))
        )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _records(path: Path) -> Any:
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file)
        yield from map(json.loads, io.TextIOWrapper(stream, encoding="utf-8"))


if __name__ == "__main__":
    main()
