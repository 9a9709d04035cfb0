"""Publishing a store: seconds, milliseconds of a query on ``scores_wide``, file size, peak memory, and how they grow.

    python -m benchmarks.publish [--documents 250000 1000000] [--scorers 20] [--folder DIR]

The store is synthetic: every table that has a row a document is full, the scores lie in a part a scorer and 500,000
documents. Every size runs in a process of its own; the store is built in another, which does not count. "copied" is the
time of a bare ``cp`` of the working file, for comparison: what publishing cannot be faster than.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = "'web/' || (i // 10000) AS shard, i % 10000 AS row, 'source ' || (i % 7) AS source, i::VARCHAR AS original_id"
SIZES = "i % 9000 AS characters, i % 9000 AS bytes, i % 1500 AS words"
FILLED = {
    "documents": f"{PLACE}, {SIZES}, 1 AS dup_count",
    "occurrences": f"{PLACE}, {SIZES}, 'https://example.org/' || i AS url, i::VARCHAR AS metadata",
    "signals": "'1' AS version, i % 5 > 0 AS gopher_passed, SIGNALS",
    "token_counts": "'tokenizer' AS tokenizer, i % 2000 AS tokens",
    "clusters": "'clustering' AS clustering, i % 500 AS cluster, random() AS distance",
    "judged": "'contamination:reference' AS stage, 'version' AS version",
    "duplicates": "'near' AS kind, doc_id AS keeper_id",
}
QUERIES = {
    "means": "SELECT source, count(*), avg(scorer_00), max(scorer_07) FROM scores_wide WHERE gopher_passed GROUP BY 1",
    "top": "SELECT doc_id FROM scores_wide ORDER BY scorer_03 DESC NULLS LAST LIMIT 100",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", nargs="*", type=int, default=[250_000, 1_000_000])
    parser.add_argument("--scorers", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="keep the stores here and use them again")
    parser.add_argument("--worker", choices=("build", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.worker:
        folder, documents = arguments.folder, arguments.documents[0]
        found = build(folder, documents, arguments.scorers) if arguments.worker == "build" else measure(folder)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        results = []
        for documents in arguments.documents:
            folder = (arguments.folder or Path(temporary)) / f"{documents}-{arguments.scorers}"
            if not folder.exists():
                spawn("build", folder, documents, arguments.scorers)
            results.append({"documents": documents} | spawn("measure", folder, documents, arguments.scorers))
    report(results, arguments.scorers)


def spawn(worker: str, folder: Path, documents: int, scorers: int) -> dict[str, float]:
    command = [
        *(sys.executable, __file__, "--worker", worker, "--folder", str(folder)),
        *("--documents", str(documents), "--scorers", str(scorers)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def report(results: list[dict[str, float]], scorers: int) -> None:
    columns = (
        "publish s",
        "CPU s",
        "copied s",
        *(f"{name} ms" for name in QUERIES),
        "working MB",
        "published MB",
        "peak MB",
    )
    print(f"{scorers} scorers, memory_limit 2GB\n")
    print(f"{'documents':>12}" + "".join(f"{name:>14}" for name in columns))
    for row in results:
        print(f"{row['documents']:>12,}" + "".join(f"{row[name]:>14,.2f}" for name in columns))
    if len(results) > 1:
        first, last = results[0], results[-1]
        growth = "".join(f"{last[name] / first[name]:>13.1f}x" for name in columns)
        print(f"{last['documents'] / first['documents']:>11.1f}x" + growth)


def build(folder: Path, documents: int, scorers: int) -> dict[str, float]:
    """Fill a store: one transaction for the tables, a part a scorer and 500,000 documents."""
    import numpy as np
    import pyarrow as pa

    from winnow.config import Store as StoreSettings
    from winnow.home import Home
    from winnow.identity import ids_as_keys, ids_from_numpy
    from winnow.quality.signals import COLUMNS
    from winnow.store.store import Store, add_parts, insert, insert_row, load

    draw = np.random.default_rng(1)
    ids = draw.integers(0, 256, (documents, 16), dtype=np.uint8)
    ids = ids[np.argsort(ids_as_keys(ids), order=("high", "low"))]
    store = Store(Home(folder), StoreSettings())
    began = time.perf_counter()
    parts = []
    for number in range(scorers):
        names = {"scorer": f"scorer_{number:02}", "version": f"{number:016x}", "checkpoint": "warmup"}
        pieces = []
        for piece in np.array_split(ids, max(1, documents // 125_000)):
            texts = {name: pa.array([value] * len(piece), pa.string()) for name, value in names.items()}
            pieces.append(
                pa.table({"doc_id": ids_from_numpy(piece), "score": draw.standard_normal(len(piece)), **texts})
            )
        parts += store.write_parts("scores", pieces)
    signals = ", ".join(f'random() AS "{name}"' for name in COLUMNS)
    with store.write() as connection:
        load(connection, "synthetic", pa.table({"doc_id": ids_from_numpy(ids), "i": np.arange(documents)}))
        for name, columns in FILLED.items():
            added = columns.replace("SIGNALS", signals)
            connection.execute(f"INSERT INTO {name} BY NAME SELECT doc_id, {added} FROM synthetic")
        connection.execute("DELETE FROM duplicates WHERE hash(doc_id) % 20 > 0")
        connection.execute("DROP TABLE synthetic")
        add_parts(connection, parts)
        insert_row(connection, "manifests", version="v0001", checkpoint="warmup", influence_model="m")
        insert(connection, "costs", pa.table({"stage": ["built"]}))
    return {"seconds": time.perf_counter() - began}


def measure(folder: Path) -> dict[str, float]:
    from winnow.config import Store as StoreSettings
    from winnow.home import Home
    from winnow.store.published import open_published
    from winnow.store.store import Store, insert_row

    store = Store(Home(folder), StoreSettings())
    with store.write() as connection:
        insert_row(connection, "costs", stage="measured")
    working = folder / "store" / "store.duckdb"
    copy = folder / "copy"
    began = time.perf_counter()
    subprocess.run(["cp", str(working), str(copy)], check=True)
    found = {"copied s": time.perf_counter() - began}
    copy.unlink()
    began, used = time.perf_counter(), time.process_time()
    store.publish()
    found["publish s"], found["CPU s"] = time.perf_counter() - began, time.process_time() - used
    found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    with open_published(store.home) as connection:
        for name, query in QUERIES.items():
            began = time.perf_counter()
            connection.execute(query).fetchall()
            found[f"{name} ms"] = 1e3 * (time.perf_counter() - began)
    found["working MB"], found["published MB"] = (path.stat().st_size / 1e6 for path in (working, store.home.published))
    return found


if __name__ == "__main__":
    main()
