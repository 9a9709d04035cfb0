"""Selection at scale: time and peak memory from what is stored to a decision on every document.

    python benchmarks/selection_scale.py [--documents 1000000] [--clusters 10000] [--within top_k] [--policy quad_ucb]

Documents have embeddings and signals in a store, and projected gradients in a gradient store, all made from a seed: a
document's influence is its cluster's plus its own. Measured is what a selection then
does without any training: the influence model's prediction and spread of every document from its stored features, the
influence of every stored gradient, arms, opening round and bandit on those influences, ``decide`` with its table, and
the random control. The data are made in one process, the selection runs in another, whose memory is measured. A second
run at a quarter of the documents (same clusters) tells how both grow. One process; OMP_NUM_THREADS sets the threads of
the matrix products.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from winnow.store.store import Store

SEED = 0
DIMENSION = 384
ENCODER = "encoder"
PROBES = 1_000
ROWS = 20_000  # written at a time
LAYER = 16  # rows and columns of a layer's projected gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=2, help="a gradient has 256 numbers a layer")
    parser.add_argument("--within", default="top_k")
    parser.add_argument("--policy", default="quad_ucb")
    parser.add_argument("--once", action="store_true", help="leave out the run at a quarter of the documents")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.documents, options.clusters, options.layers)
    elif options.run:
        print(json.dumps(run(options.run, options.within, options.policy)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Print the table of phases at one size, and at a quarter of it."""
    sizes = [options.documents] if options.once else [options.documents // 4, options.documents]
    found = [apart(options, size) for size in sizes]
    print(f"{options.clusters:,} clusters, dimension {DIMENSION}, seed {SEED},")
    print(f"gradients of {options.layers * LAYER**2}, within {options.within}, policy {options.policy}\n")
    print(f"{'documents':28}" + "".join(f"{size:>12,}" for size in sizes) + ("" if options.once else f"{'growth':>9}"))
    for unit, name in (("wall", "seconds"), ("cpu", "CPU seconds"), ("peak", "peak MiB after it")):
        print(f"\n{name}")
        rows = [(phase, [run["phases"][phase][unit] for run in found]) for phase in found[0]["phases"]]
        if unit == "peak":
            rows.insert(0, ("imports", [run["before"] for run in found]))
        else:
            rows.append(("together", [sum(phase[unit] for phase in run["phases"].values()) for run in found]))
        for phase, values in rows:
            growth = "" if options.once else f"{values[-1] / max(values[0], 1e-3):8.1f}x"
            print(f"  {phase:26}" + "".join(f"{value:12.1f}" for value in values) + growth)
    print()
    for name in ("probes", "rounds", "selected", "tokens", "mean_selected", "mean_control"):
        print(f"{name:28}" + "".join(f"{run['told'][name]:>12,.6g}" for run in found))


def apart(options: argparse.Namespace, documents: int) -> dict[str, Any]:
    """Make the data in one process and select in another; return what the latter says."""
    with tempfile.TemporaryDirectory() as folder:
        this = [sys.executable, __file__, "--clusters", str(options.clusters), "--documents", str(documents)]
        this += ["--within", options.within, "--policy", options.policy, "--layers", str(options.layers)]
        subprocess.run([*this, "--make", folder], check=True)
        done = subprocess.run([*this, "--run", folder], check=True, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def make(folder: Path, documents: int, clusters: int, layers: int) -> None:
    """Write candidates, a store of features, gradients, the gradient of the reference and an influence model."""
    from winnow.attribution.surrogates.files import save_model
    from winnow.attribution.surrogates.model import fit_influence_model
    from winnow.identity import ids_from_numpy
    from winnow.stages.features import SIGNALS
    from winnow.store.store import add_parts, insert

    draw = np.random.default_rng(SEED)
    ids = draw.integers(0, 256, (documents, 16), dtype=np.uint8)
    label = draw.integers(0, clusters, documents)
    influence = draw.normal(size=clusters)[label] + draw.normal(size=documents)
    signals = draw.standard_normal((documents, len(SIGNALS)))
    known = pa.table({"doc_id": ids_from_numpy(ids)})
    table = known.append_column("cluster", pa.array(label))
    table = table.append_column("tokens", pa.array(draw.integers(50, 2_000, documents)))
    pq.write_table(table, folder / "candidates.parquet")
    direction = draw.normal(size=DIMENSION).astype(np.float32) / np.sqrt(DIMENSION)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (documents, DIMENSION))

    def embeddings() -> Iterator[pa.Table]:
        for start in range(0, documents, ROWS):
            rows = slice(start, min(start + ROWS, documents))
            part = draw.standard_normal((rows.stop - start, DIMENSION), dtype=np.float32)
            part += influence[rows, None].astype(np.float32) * direction
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            vectors[rows] = part
            lists = pa.ListArray.from_arrays(np.arange(len(part) + 1, dtype=np.int32) * DIMENSION, part.reshape(-1))
            yield pa.table({"doc_id": known["doc_id"][rows], "model": [ENCODER] * len(part), "vector": lists})

    store = open_store(folder)
    parts = store.write_parts("embeddings", embeddings())
    with store.write() as connection:
        insert(connection, "documents", known.append_column("source", pa.array(["web"] * documents)))
        named = {name: signals[:, number] for number, name in enumerate(SIGNALS)}
        insert(connection, "signals", pa.table({"doc_id": known["doc_id"], "version": ["1"] * documents, **named}))
        add_parts(connection, parts)
    some = slice(0, PROBES)
    model = fit_influence_model(ids[some], vectors[some], signals[some], influence[some], signal_names=SIGNALS)
    save_model(model, folder / "model.safetensors")
    make_gradients(folder, influence, layers, draw)


def make_gradients(folder: Path, influence: np.ndarray, layers: int, draw: np.random.Generator) -> None:
    """Write gradients whose product with the reference's is the influence."""
    from winnow.attribution.gradient_store import GradientChunk, GradientStore, StoreIndex
    from winnow.attribution.projection import Layout

    layout = Layout({f"layer{number}": (LAYER, LAYER) for number in range(layers)})
    np.save(folder / "query.npy", np.full(layout.width, 1 / layout.width, dtype=np.float32))
    store = GradientStore.create(folder / "gradients", StoreIndex(layout, len(influence), "scale", {"seed": SEED}))
    for number in range(store.index.parts):
        places = store.places(number)
        chunks = []
        for start in range(places.start, places.stop, ROWS):
            rows = np.arange(start, min(start + ROWS, places.stop))
            values = draw.standard_normal((len(rows), layout.width), dtype=np.float32)
            values += (influence[rows] - values.mean(axis=1))[:, None].astype(np.float32)
            chunks.append(GradientChunk(rows - places.start, values, np.ones(len(rows)), (None,) * len(rows)))
        store.write_part(number, chunks)


def open_store(folder: Path) -> Store:
    """Return the store of the features."""
    from winnow.config import Store as Settings
    from winnow.home import Home
    from winnow.store.store import Store

    return Store(Home(folder / "home"), Settings())


def run(folder: Path, within: str, policy: str) -> dict[str, Any]:
    """Select, and return seconds by phase and the peak memory of this process."""
    import torch

    from winnow.attribution.gradient_store import GradientStore
    from winnow.attribution.surrogates.files import load_model
    from winnow.identity import ids_to_numpy
    from winnow.selection import BanditSettings, build_arms, decide, opening_probes, random_control, run_bandit
    from winnow.selection.within import make_within
    from winnow.stages.features import stored_features

    warm()
    before, phases, clock = peak(), {}, (time.perf_counter(), time.process_time())

    def phase(name: str) -> None:
        nonlocal clock
        now = (time.perf_counter(), time.process_time())
        phases[name] = {"wall": now[0] - clock[0], "cpu": now[1] - clock[1], "peak": peak()}
        clock = now

    candidates = pq.read_table(folder / "candidates.parquet")
    ids, labels = ids_to_numpy(candidates["doc_id"]), candidates["cluster"].to_numpy()
    tokens = candidates["tokens"].to_numpy()
    model = load_model(folder / "model.safetensors")
    predicted, spread = np.empty(len(ids)), np.empty(len(ids))
    for places, vectors, signals in stored_features(open_store(folder), ENCODER, candidates):
        predicted[places] = model.predict(vectors, signals)
        spread[places] = model.spread(vectors, signals)
    phase("influence model's scores")
    store, query = GradientStore.open(folder / "gradients"), torch.from_numpy(np.load(folder / "query.npy"))
    measured = np.empty(len(ids))
    for where, block in store.blocks():
        measured[where] = (block @ query).double().numpy()
    phase("influence of gradients")
    arms = build_arms(ids, labels, tokens)
    phase("arms")
    budget = int(tokens.sum()) // 4
    opening = opening_probes(arms, 4, SEED)
    settings = BanditSettings(
        block_tokens=budget // 2_000, max_probes=len(ids) // 10, policy=policy, arms_per_round=50, seed=SEED
    )
    result = run_bandit(arms, opening, measured[opening], lambda some: measured[some], budget, settings)
    ledger = result.ledger()
    phase("bandit")
    rows_of = np.load(folder / "vectors.npy", mmap_mode="r")
    made = decide(arms, ledger, predicted, budget, SEED, within=make_within(within), vectors=rows_of)
    phase("decide")
    table = made.table()
    phase("its table")
    control = random_control(ids, tokens, budget, SEED)
    phase("random control")
    told = {
        "probes": len(opening) + len(result.probed),
        "rounds": result.rounds,
        "selected": table["verdict"].to_pylist().count("selected"),
        "tokens": made.tokens,
        "mean_selected": float(measured[made.selected].mean()),
        "mean_control": float(measured[control.selected].mean()),
        "mean_spread": float(spread.mean()),
    }
    return {"phases": phases, "before": before, "told": told}


def warm() -> None:
    """Compile what is compiled, on a handful of documents."""
    from winnow.selection import build_arms, decide, random_control

    arms = build_arms(np.eye(16, dtype=np.uint8)[:4], np.zeros(4, int), np.ones(4, int))
    ledger = pa.table({"round": [1], "cluster": [0], "tokens_granted": [2]})
    decide(arms, ledger, None, 2, 0).table()
    random_control(arms.doc_ids, arms.tokens, 2, 0)


def peak() -> float:
    """Peak resident memory of this process in MiB, mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
