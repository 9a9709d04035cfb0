"""Projected gradients: ours against TRAK's and dattri's at one total dimension; the store of them and its searches.

    python benchmarks/attribution.py projected [--documents 256] [--length 128] [--projection 16] [--threads 1]

Gradients of the block linear layers of one Llama (random weights), over two sets of documents: all of one length, and
texts of five sources of the test data as long as they are, up to four times that. Passes are in float32, or where the
name says so in bfloat16. Each method has a process of its own; they take turns, ``--rounds`` times, but those by vmap
once. A row: the least processor seconds of a round, what other work on the machine stretches least, over those of
``floor`` and of ours; wall seconds of the first round, with all that a method compiles or prepares in it; what it adds
to its process's peak memory. ``agreement``: Spearman's correlation, over pairs of 32 documents with 128, of the
projected products with those of the unprojected gradients: two-sided projections are cheaper than dense ones, and
noisier at the same dimension.

- ``floor``: a plain forward and backward pass, weight gradients included, over batches of 16 sorted by length;
- ``ours``: two-sided signs, hooks, a row's bits the same in any company;
- ``dattri_logra``: dattri's hooks with its own two-sided projection, batches of 16 sorted by length; ``_unsorted``: as
  the documents come, each batch padded to its longest; ``_single``: one document at a time, no padding;
- ``trak``: ``traker`` on the CPU, vmap and its BasicProjector, batches of 64, over which it shares a random matrix;
- ``dattri_trak``: dattri's per-example gradients and ``random_project``, batches of 64 as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attribution_projected_methods import LAYERS, METHODS, SEED, UNEVEN, VMAP, VOCABULARY, Docs, build_model

QUERIES, COMPARED = 32, 128
SOURCES = ("wiki_en", "forum_stackexchange", "dialogue", "spam_sms", "code")
CHARACTERS = 4000
"""Of a text that are tokenised: more than the longest document holds."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--length", type=int, default=128, help="predicted tokens of a document")
    parser.add_argument("--projection", type=int, default=16, help="rows and columns kept of a layer's gradient")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--lengths", nargs="+", choices=("equal", "uneven"), default=("equal", "uneven"))
    parser.add_argument("--stored", type=int, default=20_000, help="rows of the store that is searched; 0 = none")


def run(options: argparse.Namespace) -> None:
    """Measure every method in a process of its own and print the tables."""
    for lengths in options.lengths:
        docs = equal_documents(options.documents, options.length)
        names = [name for name in options.only if name not in UNEVEN]
        if lengths == "uneven":
            docs, names = real_documents(options.documents, 4 * options.length), options.only
        sizes = [len(doc) - 1 for doc in docs]
        print(
            f"{len(docs)} documents of {min(sizes)} to {max(sizes)} positions, mean {np.mean(sizes):.0f}; "
            f"projection {options.projection}, {options.threads} threads, seed {SEED}"
        )
        compare(names, docs, max(sizes) + 1, options)
    if options.stored:
        with fresh() as process:
            print(process.submit(searches, options.stored, options.projection, options.threads).result())


def compare(names: list[str], docs: Docs, context: int, options: argparse.Namespace) -> None:
    """Let the methods take turns and print the table."""
    rounds: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(fresh()) for name in names}
        for turn in range(options.rounds):
            for name, process in list(processes.items()):
                if turn and name in VMAP:
                    continue
                try:
                    timed = process.submit(measure, name, docs, context, options.projection, options.threads).result()
                    rounds.setdefault(name, []).append(timed)
                except ImportError as error:
                    print(f"{name:22s} not measured: {error}; install the 'bench-attribution' extra")
                    del processes[name]
        least = {name: min(processor for _, processor in times) for name, times in rounds.items()}
        for name, process in processes.items():
            memory, dimension, agreed = process.submit(facts, docs, context).result()
            ratios = "".join(
                f"{least[name] / least[other]:7.2f}x {other}" for other in ("floor", "ours") if other in least
            )
            print(
                f"{name:22s} {least[name]:7.2f} s{ratios}  first {rounds[name][0][0]:6.1f} s {memory:6,.0f} MiB"
                + (f"  D {dimension:6,}  agreement {agreed:.3f}" if dimension else ""),
                flush=True,
            )


def fresh() -> ProcessPoolExecutor:
    """Return a process that has run nothing."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


_LAST: dict[str, Any] = {}
"""This process's method: its rows, and the memory before it."""


def measure(name: str, docs: Docs, context: int, projection: int, threads: int) -> tuple[float, float]:
    """Return the wall and processor seconds of one round, preparation included in the first one's wall seconds."""
    import torch

    torch.set_num_threads(threads)
    wall = time.perf_counter()
    if not _LAST:
        build_model(context)
        _LAST["before"] = peak()
        wall = time.perf_counter()
        _LAST["method"] = METHODS[name](docs, context, projection)
    processor = time.process_time()
    _LAST["rows"] = _LAST["method"]()
    return time.perf_counter() - wall, time.process_time() - processor


def facts(docs: Docs, context: int) -> tuple[float, int, float]:
    """Return the MiB that the rounds added to this process's peak, the dimension of the rows and their agreement."""
    from winnow.attribution.correlation import spearman
    from winnow.attribution.projected import Making, projected_gradients

    memory, rows = peak() - _LAST["before"], _LAST["rows"]
    if rows is None:
        return memory, 0, 0.0
    few = min(COMPARED, len(docs))
    exact = projected_gradients(build_model(context), docs[:few], Making("blocks")).values.numpy()
    # A document with itself would dominate any correlation.
    others = ~np.eye(min(QUERIES, few), few, dtype=bool)
    left, right = exact[:QUERIES] @ exact.T, rows[:QUERIES] @ rows[:few].T
    return memory, rows.shape[1], spearman(left[others], right[others])


def peak() -> float:
    """Return this process's peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def equal_documents(count: int, length: int) -> Docs:
    """Return int64 ``[length + 1]`` each: words by Zipf's law, half of each document from ten words of its own."""
    draw, shape = np.random.default_rng(SEED), (count, length + 1)
    common = np.minimum(draw.zipf(1.3, shape), VOCABULARY) - 1
    own = draw.integers(0, VOCABULARY, (count // 4 + 1, 10))[np.arange(count) // 4]
    picked = np.take_along_axis(own, draw.integers(0, 10, shape), axis=1)
    return list(np.where(draw.random(shape) < 0.5, picked, common))


def real_documents(count: int, length: int) -> Docs:
    """Return texts of all sources in turn, in a byte-level BPE of their own, cut to ``length + 1`` tokens."""
    from winnow.attribution.bench_data import read_texts
    from winnow.train.tokenizer import train_tokenizer

    each = -(-count // len(SOURCES))
    groups = [[text[:CHARACTERS] for text in read_texts(source, SEED)[:each]] for source in SOURCES]
    texts = [text for group in zip(*groups, strict=True) for text in group][:count]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    encoded = (np.array(one.ids[: length + 1], dtype=np.int64) for one in tokenizer.encode_batch_fast(texts))
    return [doc for doc in encoded if len(doc) > 1]


def searches(count: int, projection: int, threads: int) -> str:
    """Write a float16 store of rows that come in families, and time the searches of 32 queries in it."""
    import faiss
    import torch

    from winnow.attribution.autocorrelation import products
    from winnow.attribution.gradient_store import GradientChunk, GradientStore, StoreIndex
    from winnow.attribution.projection import Layout
    from winnow.attribution.retrieval import GradientIndex, top_rows

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    layout = Layout({str(site): (projection, projection) for site in range(7 * LAYERS)})
    draw = np.random.default_rng(SEED)
    families = draw.standard_normal((max(QUERIES, count // 50), layout.width), dtype=np.float32)
    queries = torch.from_numpy(families[:QUERIES] + draw.standard_normal((QUERIES, layout.width), dtype=np.float32))

    def chunks(store: GradientStore, number: int) -> Any:
        places = np.array(store.places(number))
        for start in range(0, len(places), 512):
            here = np.arange(start, min(start + 512, len(places)))
            values = families[places[here] % len(families)] + draw.standard_normal(
                (len(here), layout.width), dtype=np.float32
            )
            yield GradientChunk(here, values, np.zeros(len(here)), (None,) * len(here))

    lines = [f"store of {count:,} rows, D {layout.width:,}, float16, {count * layout.width * 2 / 2**20:,.0f} MiB"]
    with tempfile.TemporaryDirectory() as folder:
        store = GradientStore.create(Path(folder) / "s", StoreIndex(layout, count, "none", {}))
        for number in store.missing():
            store.write_part(number, chunks(store, number))
        before = peak()
        rates = {"all products": timed(partial(products, queries, store))[0]}
        rates["exact top 20"], (_, exact) = timed(partial(top_rows, queries, store, 20))
        lines.append(f"peak memory of both searches {peak() - before:,.0f} MiB, mapped pages included")
        lists = max(4, int(np.sqrt(count)))
        seconds, index = timed(partial(GradientIndex.build, store, lists=lists))
        rates["faiss built"] = seconds
        rates["faiss top 20"], (_, found) = timed(partial(index.top, queries, 20, store))
        recall = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(found, exact, strict=True)])
        lines += [f"{name:14s} {seconds:7.3f} s for {QUERIES} queries" for name, seconds in rates.items()]
        lines.append(f"faiss: {lists} lists, an eighth probed, candidates ranked exactly: recall at 20 {recall:.3f}")
    return "\n".join(lines)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add(parser)
    run(parser.parse_args())
