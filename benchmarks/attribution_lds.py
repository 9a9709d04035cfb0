"""How well estimators of influence predict retraining: the leaderboard of a bench, and who beats TF-IDF.

    WINNOW_TEST_DATA=DIR python benchmarks/attribution.py lds [--bench small] [--estimators adam_fisher,tfidf]

The bank of subset trainings is trained once and kept in ``--folder``, by ``--workers`` processes of one thread each.
Every estimator is tuned on one half of the queries and judged on the other; "minus TF-IDF" is its LDS minus that of
TF-IDF cosine on the same subsets and queries, with the 95% interval of a paired bootstrap. float32 models, float64
sums of scores.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

BASELINE = "tfidf"


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--bench", default="small", help="tiny, small or mixed")
    parser.add_argument("--estimators", help="comma-separated (default: all)")
    parser.add_argument("--runs", type=int, default=1, help="trainings whose scores are averaged")
    parser.add_argument("--average", action="store_true", help="average over every checkpoint too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where banks and trainings are kept (default: that of `winnow attribution bench` under WINNOW_HOME; where "
        "that is not set, a temporary folder, gone at the end)",
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON lines")


def run(options: argparse.Namespace) -> None:
    """Train what is missing, and print the leaderboard."""
    from winnow.home import Home
    from winnow.stages.attribution_bench import bench_folder

    if options.folder is not None or os.environ.get("WINNOW_HOME"):
        board(options, options.folder or bench_folder(Home.from_environment()))
        return
    with tempfile.TemporaryDirectory() as folder:
        board(options, Path(folder))


def board(options: argparse.Namespace, folder: Path) -> None:
    """Train what ``folder`` lacks, and print the leaderboard."""
    from winnow.attribution.bench import get_bench, prepare
    from winnow.attribution.estimators import estimator_names
    from winnow.attribution.leaderboard import measure
    from winnow.attribution.run import Settings

    bench = get_bench(options.bench)
    start = time.perf_counter()
    prepared = prepare(bench, folder, runs=options.runs, workers=options.workers, encode=encode, progress=progress)
    print(f"\nbank and runs: {time.perf_counter() - start:.0f} s, {options.workers} processes of one thread")
    bank = prepared.bank
    print(
        f"{bench.name}: {bank.masks.shape[1]} documents, {len(bank.masks)} subsets of a share {bench.plan.alpha}, "
        f"seeds {bench.plan.seeds}, {len(prepared.tuning)} tuning and {len(prepared.judging)} judging queries, "
        f"ceiling {prepared.ceiling:.3f}, bank {bank.digest[:16]}\n"
    )
    print("| estimator | scope | damping | LDS | s.e. | share of ceiling | tuning LDS | minus TF-IDF | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    names = options.estimators.split(",") if options.estimators else estimator_names()
    for name in names:
        row = measure(prepared, name, Settings(), average=options.average)
        print(line(row, against(prepared, row, options.average)), flush=True)
        if options.out:
            import json

            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row.record()) + "\n")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def against(prepared: Any, row: Any, average: bool) -> str:
    """Return the row's LDS minus the baseline's, with its interval; empty where they are not judged alike."""
    from winnow.attribution.lds import compare
    from winnow.attribution.leaderboard import scores_of
    from winnow.attribution.run import Settings

    if row.lds is None or row.estimator == BASELINE or row.subsets < len(prepared.bank.masks):
        return ""
    settings = Settings()
    settings = replace(settings, scope=row.scope or settings.scope, damping=row.damping or settings.damping)
    ours = scores_of(prepared, row.estimator, settings, average=average and row.checkpoints > 1)
    theirs = scores_of(prepared, BASELINE, Settings())
    losses = prepared.bank.losses[:, :, prepared.bank.columns(prepared.judging.tokens)]
    found = compare(ours, theirs, prepared.bank.masks, losses)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def line(row: Any, difference: str) -> str:
    """Return a row of the printed table."""
    if row.lds is None:
        return f"| {row.estimator} | | | not measured: {row.reason} | | | | | |"
    share = "" if row.share is None else f"{row.share:.2f}"
    damping = "" if row.damping is None else f"{row.damping:g}"
    cells = (row.estimator, row.scope or "", damping, f"{row.lds:.3f}", f"{row.se:.3f}", share)
    return "| " + " | ".join((*cells, f"{row.tuning_lds:.3f}", difference, f"{row.seconds:.1f}")) + " |"


def encode(texts: Any) -> Any:
    """Return the bundled encoder's vectors, float32."""
    from winnow.embed.encoder import encode as vectors
    from winnow.embed.encoder import load_encoder

    return vectors(load_encoder(), list(texts))


def progress(done: int, total: int) -> None:
    """Show how far the bank is."""
    print(f"\r{done} of {total} subset models trained", end="", flush=True)
