"""Near duplicates: Winnow beside datasketch, rensa, datatrove, daft and text-dedup, on the same documents in one run.

    python benchmarks/duplicates.py sketches [--documents 10000] [--repeats 3] [--peers NAME ...]
    python benchmarks/duplicates.py groups   [--documents 1000000] [--threshold 0.8] [--full]
    python benchmarks/duplicates.py pipeline [--documents 1000000] [--threshold 0.8]
    python benchmarks/duplicates.py quality  [--sets NAME ...]

sketches  Text to signatures: 128 permutations, 5-word shingles, on one core and on two. A peer without shingling gets
          Python's; "peer" is its rate with the input made beforehand. Peers without threads run as two processes.
groups    Signatures to verified groups, beside datasketch's MinHashLSH (every document inserted, then queried; its
          objects are made beforehand) on the same signatures, at its own bands and at ours. It verifies nothing and
          makes no groups: its answer is unverified neighbours, document by document. Ours reads the texts of candidates
          from uncompressed Parquet.
pipeline  The whole way in a store, without Dagster: text parts, sketches, pairs, groups; a quarter, half and all of
          the documents on two cores, then 1% more.
quality   Pairs found of known ones, by bin of similarity, beside datasketch and datatrove.

Documents are real texts of about 2 kB and variants by seeded edits (``duplicates_data.py``). Every measurement is a
process of its own, so that peak memory is its own; a peer that is not installed is said to be so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("sketches", "groups", "pipeline", "quality")
STAGES = ("sketches s", "pairs s", "groups s")
LSH_DOCUMENTS = 1_000_000
"""What datasketch gets without ``--full``."""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS, nargs="?", help="what to measure")
    parser.add_argument("--documents", type=int, help="how many (sketches: 10,000; groups, pipeline: 1,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the documents")
    parser.add_argument("--threshold", type=float, default=0.8, help="of Jaccard similarity (groups, pipeline)")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts, after one warm-up (sketches)")
    parser.add_argument("--peers", nargs="*", help="names, or parts of names, of the peers to run (sketches)")
    parser.add_argument("--sets", nargs="*", help="of the known duplicates (quality)")
    parser.add_argument("--full", action="store_true", help="give the peer all documents, however long (groups)")
    parser.add_argument("--scratch", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, json.loads(options.arguments))))
    elif not options.section:
        parser.error(f"which section? one of {', '.join(SECTIONS)}")
    else:
        with tempfile.TemporaryDirectory(dir=options.scratch, prefix="duplicates-") as scratch:
            globals()[options.section](Path(scratch), options)


# -- processes ---------------------------------------------------------------------------------------------------------


def spawn(worker: str, cores: int = 0, first_core: int = 0, **arguments: Any) -> Row:
    """Run a function of ``WORKERS`` in a process of its own, on so many cores (0: all), and return its figures."""
    threads = {name: str(cores) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if cores}
    quiet = {"DATATROVE_COLORIZE_LOGS": "0", "LOGURU_LEVEL": "ERROR", "TQDM_DISABLE": "1", "DAFT_PROGRESS_BAR": "0"}
    arguments = {"cores": cores, "first_core": first_core, "arguments": arguments}
    done = subprocess.run(
        [sys.executable, __file__, "--worker", worker, "--arguments", json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **threads, **quiet, "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)},
    )
    return json.loads(done.stdout.splitlines()[-1])


def work(worker: str, settings: Row) -> Row:
    if settings["cores"] and hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        chosen = [usable[(settings["first_core"] + i) % len(usable)] for i in range(settings["cores"])]
        os.sched_setaffinity(0, chosen)
    logging.getLogger("winnow").setLevel(logging.ERROR)
    found = WORKERS[worker](**settings["arguments"])
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"peak": peak, **found}


def build(
    folder: str, documents: int, seed: int, first: int = 0, last: int | None = None, compression: str = "none"
) -> Row:
    from duplicates_data import Documents, Recipe, load_passages, write_documents

    made = Documents(load_passages(), Recipe(documents, seed))
    return {"bytes": write_documents(Path(folder), made, first, last, compression)}


def described(documents: int, seed: int, size: float) -> str:
    return (
        f"{documents:,} documents, {size / 1e6:,.1f} MB of UTF-8 text, 30% variants, 1% with one "
        f"boilerplate, seed {seed}; {os.cpu_count()} cores"
    )


# -- sketches ----------------------------------------------------------------------------------------------------------


def sketches(scratch: Path, options: argparse.Namespace) -> None:
    from duplicates_peers import NUM_PERM, SHINGLE_WORDS
    from duplicates_sketches import OURS, PEERS

    documents = options.documents or 10_000
    size = spawn("build", folder=str(scratch / "documents"), documents=documents, seed=options.seed)["bytes"]
    print(f"sketches: {described(documents, options.seed, size)}")
    print(f"{NUM_PERM} permutations, {SHINGLE_WORDS}-word shingles; the best of {options.repeats} after a warm-up\n")
    chosen = [name for name in PEERS if not options.peers or any(part in name for part in options.peers)]
    heads = ("MB/s", "MB/CPU s", "docs/s", "peer MB/s", "2 cores", "peak MB", "ratio", "at least")
    print(f"{'':24}" + "".join(f"{head:>10}" for head in heads))
    fastest: Row = {}
    for name in (*OURS, *chosen):
        peer = (OURS | PEERS)[name]
        if peer.missing:
            print(f"{name:24}  not installed ({', '.join(peer.missing)}): pip install -c constraints.txt -e '.[bench]'")
            continue
        common: Row = {"name": name, "folder": str(scratch / "documents"), "repeats": options.repeats}
        try:
            one = spawn("sketch", 1, **common, threads=1)
            if peer.threads:
                two = size / spawn("sketch", 2, **common, threads=2)["seconds"]
            else:
                with ThreadPoolExecutor(2) as pool:
                    halves = [
                        pool.submit(spawn, "sketch", 1, i, **common, threads=1, share=i, shares=2) for i in (0, 1)
                    ]
                two = size / max(half.result()["seconds"] for half in halves)
        except subprocess.CalledProcessError as error:
            print(f"{name:24}  failed, exit status {error.returncode}: what it wrote is above")
            continue
        fastest = fastest or one
        figures = (size / one["seconds"], size / one["cpu"], documents / one["seconds"] * 1e6, size / one["own"], two)
        print(f"{name:24}" + "".join(f"{figure / 1e6:>10,.1f}" for figure in figures[:2]), end="")
        print(f"{figures[2] / 1e6:>10,.0f}" + "".join(f"{figure / 1e6:>10,.1f}" for figure in figures[3:]), end="")
        print(f"{one['peak']:>10,.0f}", end="")
        print(f"{one['cpu'] / fastest['cpu']:>9,.1f}x{f'{peer.target:g}x' if peer.target else '':>10}", end="")
        print(f"   {peer.note}")
    print(
        f"\nratio: CPU time on one core against '{next(iter(OURS))}', whatever else runs; at least: our aim\n"
        "(and 100 MB/s for that itself, on one core). peak: resident memory of the process, its texts included.\n"
    )


# -- groups ------------------------------------------------------------------------------------------------------------


def groups(scratch: Path, options: argparse.Namespace) -> None:
    documents = options.documents or 1_000_000
    folder, signed = str(scratch / "documents"), str(scratch / "signed")
    size = spawn("build", folder=folder, documents=documents, seed=options.seed)["bytes"]
    distinct = spawn("sign", folder=folder, target=signed, scheme="datasketch")["documents"]
    print(f"groups: {described(documents, options.seed, size)}")
    print(f"{distinct:,} distinct texts with words, the same 128 permutations for all, Jaccard {options.threshold:g}\n")
    heads = ("bands", "documents", "seconds", "CPU s", "peak MB", "pairs", "wall", "CPU", "memory")
    print(f"{'':32}" + "".join(f"{head:>11}" for head in heads))
    common: Row = {"signed": signed, "threshold": options.threshold}
    ours = [spawn("groups", cores, **common, folder=folder) for cores in (2, 1)]
    for cores, row in zip((2, 1), ours, strict=True):
        print(_groups_line(f"winnow, verified, {cores} core{'s' * (cores > 1)}", row))
    if importlib.util.find_spec("datasketch") is None:
        print(f"{'datasketch':32}  not installed")
        return
    asked = distinct if options.full or documents <= LSH_DOCUMENTS else LSH_DOCUMENTS
    for name, plan in (("its bands", None), ("our bands", ours[0]["bands"])):
        small, row = (spawn("lsh", 1, **common, most=most, plan=plan) for most in (asked // 4, asked))
        whole = asked == distinct
        print(_groups_line(f"datasketch, {name}", row, ours[1] if whole else None, ours[0] if whole else None))
        growth = row["seconds"] / small["seconds"]
        print(f"{'':32}{growth:.1f}x the time and {row['peak'] / small['peak']:.1f}x the memory of {asked // 4:,}")
        if not whole:
            share, times = distinct / asked, growth ** (math.log(distinct / asked) / math.log(4))
            print(
                f"{'':32}at that growth {row['seconds'] * times:,.0f} s, {row['peak'] * share:,.0f} MB (--full runs it)"
            )
    print(
        "\npairs: verified ones; datasketch's are unverified neighbours of its queries, and it makes no groups.\n"
        "wall, CPU, memory: datasketch's against winnow's on two cores, on one, on two; the aims are 20x and 4x.\n"
    )


def _groups_line(name: str, row: Row, one_core: Row | None = None, two_cores: Row | None = None) -> str:
    bands = "x".join(map(str, row["bands"]))
    line = f"{name:32}{bands:>11}{row['documents']:>11,}{row['seconds']:>11,.1f}{row['cpu']:>11,.1f}"
    line += f"{row['peak']:>11,.0f}{row['pairs']:>11,}"
    if one_core and two_cores:
        line += f"{row['seconds'] / two_cores['seconds']:>10,.1f}x{row['cpu'] / one_core['cpu']:>10,.1f}x"
        line += f"{row['peak'] / two_cores['peak']:>10,.1f}x"
    return line


# -- pipeline ----------------------------------------------------------------------------------------------------------


def pipeline(scratch: Path, options: argparse.Namespace) -> None:
    most = options.documents or 1_000_000
    print(
        f"pipeline: from text parts to groups in a store, 2 cores, Jaccard {options.threshold:g}, seed {options.seed}\n"
    )
    heads = ("documents", "MB", *STAGES, "total s", "peak MB", "pairs", "removed")
    print("".join(f"{head:>12}" for head in heads))
    totals = {}
    for documents in (most // 4, most // 2, most):
        corpus, home = scratch / f"corpus-{documents}", str(scratch / f"home-{documents}")
        more = documents // 100
        recipe: Row = {"documents": documents + more, "seed": options.seed, "compression": "zstd"}
        size = spawn("build", folder=str(corpus / "first"), **recipe, last=documents)["bytes"]
        common: Row = {"corpus": str(corpus), "home": home}
        spawn("deliver", **common)
        row = spawn("pipeline", 2, **common, threshold=options.threshold)
        totals[documents] = sum(row[stage] for stage in STAGES)
        _pipeline_line(row, size)
        if documents == most:
            size = spawn("build", folder=str(corpus / "more"), **recipe, first=documents)["bytes"]
            spawn("deliver", **common)
            added = spawn("pipeline", 2, **common, threshold=options.threshold)
            _pipeline_line(added, size)
            share = sum(added[stage] for stage in STAGES) / totals[most]
            print(f"\n1% more documents: {share:.1%} of the time of the whole   (aim: at most 3%)")
        shutil.rmtree(corpus)
        shutil.rmtree(home)
    growth = totals[most] / totals[most // 4]
    print(f"four times the documents: {growth:.2f} times the time   (aim: at most 4.4)")
    print(
        f"{most:,} documents: {totals[most] / 60:.1f} minutes   (aims for 1,000,000: under 12 minutes, under 3 GiB)\n"
    )


def _pipeline_line(row: Row, size: float) -> None:
    line = f"{row['documents']:>12,}{size / 1e6:>12,.0f}" + "".join(f"{row[stage]:>12,.1f}" for stage in STAGES)
    line += (
        f"{sum(row[stage] for stage in STAGES):>12,.1f}{row['peak']:>12,.0f}{row['pairs']:>12,}{row['removed']:>12,}"
    )
    print(line, flush=True)


# -- quality -----------------------------------------------------------------------------------------------------------


def quality(scratch: Path, options: argparse.Namespace) -> None:
    from duplicates_quality import DATA, SETS, SYSTEMS, THRESHOLDS

    print(
        "quality: pairs found of all pairs of distinct texts whose Jaccard similarity of 5-word shingles is in a bin\n"
    )
    heads = ("at", "exact groups", "[t, t+.05)", "[t+.05, .95)", "[.95, 1]", "removed", "below t", "peak MB")
    print(f"{'':24}{'':16}{heads[0]:>4}" + "".join(f"{head:>21}" for head in heads[1:5]), end="")
    print("".join(f"{head:>9}" for head in heads[5:]))
    for name in options.sets or SETS:
        if not (DATA / name).is_dir():
            print(f"{name:24}absent; set WINNOW_TEST_DATA to the folder of test corpora")
            continue
        for system, (_, modules) in SYSTEMS.items():
            if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
                print(f"{name:24}{system:16}not installed ({', '.join(missing)})")
                continue
            row = spawn("quality", name=name, system=system)
            for threshold in THRESHOLDS:
                found = row[str(threshold)]
                line = f"{name:24}{system:16}{threshold:>4g}{_share(*found['exact']):>21}"
                line += "".join(f"{_share(*counts):>21}" for counts in found["bins"])
                line += f"{found['removed']:>9,}{found['below']:>9,}{row['peak']:>9,.0f}"
                print(line, flush=True)
    print(
        "\nexact groups: all copies of a text found together. Found means: winnow, the two share a keeper; its pairs,\n"
        "that pair is verified; datasketch, the query of one returns the other; datatrove, one cluster. below t:\n"
        "removed, but the exact similarity to the document that stays is under the threshold. datatrove has one\n"
        "plan, 14 x 8, and its own words, whatever t is.\n"
    )


def _share(found: int, every: int) -> str:
    return f"{found / every:.4f} {found:,}/{every:,}" if every else "-"


def in_module(module: str, function: str) -> Callable[..., Row]:
    """Return a function of a module beside this one, imported when it is called."""
    return lambda **arguments: getattr(importlib.import_module(module), function)(**arguments)


WORKERS: dict[str, Callable[..., Row]] = {
    "build": build,
    "sketch": in_module("duplicates_sketches", "timed_sketch"),
    "lsh": in_module("duplicates_peers", "lsh_neighbours"),
    "quality": in_module("duplicates_quality", "judged"),
    **{name: in_module("duplicates_ours", name) for name in ("sign", "groups", "deliver", "pipeline")},
}

if __name__ == "__main__":
    main()
