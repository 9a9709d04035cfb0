"""Scorers: speed, and what they prefer, beside the peers that do the same.

    python benchmarks/scorers.py [--documents 6000] [--peers PYTHON]

The pool are the first 1,500 characters of documents of wiki_en, usenet, web_gov, books, code, dialogue and spam_sms, as
many of each, in the folder that WINNOW_TEST_DATA names (default ../shared/data); the reference are items of LAMBADA, a
half to fit to and a half, held out, to tell from the pool. ``--peers`` is a Python that has ``data-selection`` (DSIR)
and ``fasttext-wheel`` (the classifier, with DCLM's settings): each peer runs there on the same texts, one process, one
thread. Reading the texts is not counted on either side; a time is the least of ``--repeat`` runs, a peer's that of one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from winnow.quality.scorers import Documents, ScorerContext, make_scorer

SOURCES = ("wiki_en", "usenet", "web_gov", "books", "code", "dialogue", "spam_sms")
CHARACTERS = 1_500
ITEMS = 1_000
SEED = 0
OURS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dsir", {"length": "sum"}),
    ("classifier", {}),
    ("dsir", {}),
    ("perplexity", {"shape": "low"}),
    ("perplexity", {"shape": "low", "corpus": "reference"}),
    ("random", {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=6_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="a Python that has the peers")
    options = parser.parse_args()
    pool, items = read_texts(options.documents)
    size = sum(len(text.encode()) for text in pool) / 1e6
    print(f"{len(pool):,} documents, {size:.1f} MB; reference {ITEMS:,} items and {len(items) - ITEMS:,} held out")
    asked = pool + items[ITEMS:]
    peers = run_peers(options.peers, pool, items) if options.peers else {}
    print(f"{'scorer':34} {'fit s':>8} {'score s':>8} {'MB/s':>8} {'AUC':>7}   peer: MB/s (ours x), AUC, Spearman")
    for name, settings in OURS:
        fit, score, values = timed(name, settings, pool, items[:ITEMS], asked, options.repeat)
        speed = sum(len(text.encode()) for text in asked) / 1e6 / score
        label = f"{name} {' '.join(f'{key}={value}' for key, value in settings.items())}"
        line = f"{label:34} {fit:8.2f} {score:8.2f} {speed:8.1f} {auc(values, len(pool)):7.4f}"
        if peer := peers.get(name):
            line += f"   {peer['name']}: {peer['speed']:.2f} ({speed / peer['speed']:.0f} x; fit {peer['fit']:.1f} s)"
            theirs = np.array(peer["values"])
            line += f", {auc(theirs, len(pool)):.4f}, {spearman(values[: len(pool)], theirs[: len(pool)]):.3f}"
        print(line)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB")


def read_texts(documents: int) -> tuple[list[str], list[str]]:
    """Return the pool's texts and the reference's items."""
    folder = Path(os.environ.get("WINNOW_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))
    each = documents // len(SOURCES)
    pool = [text for source in SOURCES for text in list(first_texts(folder / source / "docs.jsonl.zst", each))]
    items = list(first_texts(folder / "eval_targets" / "lambada.jsonl.zst", 2 * ITEMS))
    return pool, items


def first_texts(path: Path, count: int) -> Any:
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file), "utf-8")
        for line in lines:
            text = json.loads(line)["text"][:CHARACTERS]
            if count and len(text) > 50:
                yield text
                count -= 1


def timed(
    name: str, settings: dict, pool: list[str], reference: list[str], asked: list[str], repeat: int
) -> tuple[float, float, np.ndarray]:
    """Return the least seconds of fitting and of scoring, and the scores."""
    context = ScorerContext(Documents.from_texts(reference), Documents.from_texts(pool), seed=SEED)
    documents = Documents.from_texts(asked)
    fits, scores = [], []
    for _ in range(repeat):
        seconds, fitted = clocked(make_scorer(name, settings).fit, context)
        fits.append(seconds)
        seconds, found = clocked(fitted.score, documents)
        scores.append(seconds)
    return min(fits), min(scores), found.values


def clocked(work: Callable[[Any], Any], given: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work(given)
    return time.perf_counter() - started, found


def run_peers(python: Path, pool: list[str], items: list[str]) -> dict[str, dict]:
    """Run every peer in the other Python; what it measured by the name of our scorer."""
    with tempfile.TemporaryDirectory() as name:
        texts = Path(name) / "texts.json"
        texts.write_text(json.dumps({"pool": pool, "items": items[:ITEMS], "held_out": items[ITEMS:]}))
        found = {}
        for ours in ("dsir", "classifier"):
            script = Path(__file__).with_name("scorers_peers.py")
            run = subprocess.run([python, script, ours, texts], capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"peer of {ours}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            else:
                found[ours] = json.loads(run.stdout.splitlines()[-1])
        return found


def auc(values: np.ndarray, pool: int) -> float:
    """Return the chance that a held-out item scores above a document of the pool, ties a half."""
    order = ranks(values)
    held_out = order[pool:]
    return float((held_out.sum() - len(held_out) * (len(held_out) - 1) / 2) / (len(held_out) * pool))


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0, ties their mean; what is not a number comes last."""
    values = np.where(np.isfinite(values), values, -np.inf)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


if __name__ == "__main__":
    main()
