"""Projected gradients: ours against TRAK's and dattri's at one total dimension; the store of them and its searches.

    python benchmarks/attribution.py projected [--documents 128] [--projection 16] [--threads 1] [--only ours ...]

One Llama (random weights), documents of one length (the peers do not pad), gradients of block linear layers, float32.
Every method runs in a process of its own and is timed over all documents, in wall and in processor seconds; the ratio
is of the latter, which other work on the machine stretches less. The memory is what it adds to that process's peak.
``agreement``: Spearman's correlation, over pairs of 32 documents with all, of the projected products with those of the
unprojected gradients: two-sided projections are cheaper than dense ones, and noisier at the same dimension.

- ``ours``: two-sided signs, hooks; ``floor`` is a plain forward and backward pass over the same documents;
- ``trak``: ``traker`` on the CPU, vmap and its BasicProjector; batches of 64, over which it shares a random matrix;
- ``dattri_trak``: dattri's per-example gradients and ``random_project``; batches of 64 as well;
- ``dattri_logra``: dattri's hooks with its own two-sided projection, the same method as ours; batches of 16.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

LENGTH, VOCABULARY, HIDDEN, LAYERS, MLP = 129, 2048, 128, 4, 352
QUERIES = 32
PEER_BATCH = 64
SEED = 0
Seconds = tuple[float, float]
"""Wall and processor seconds."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--projection", type=int, default=16, help="rows and columns kept of a layer's gradient")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--stored", type=int, default=20_000, help="rows of the store that is searched")


def run(options: argparse.Namespace) -> None:
    """Measure every method in a process of its own and print the table."""
    print(
        f"{options.documents} documents of {LENGTH - 1} positions, Llama {LAYERS} x {HIDDEN}, float32, "
        f"{options.threads} threads, seed {SEED}"
    )
    found: dict[str, dict[str, Any]] = {}
    for name in options.only:
        found[name] = alone(measure, name, options.documents, options.projection, options.threads)
        if "missing" in found[name]:
            print(f"{name:14s} not measured: {found[name]['missing']}", flush=True)
            continue
        print(describe(name, found[name], found.get("ours")), flush=True)
    print(alone(searches, options.stored, options.projection, options.threads))


def describe(name: str, row: dict[str, Any], ours: dict[str, Any] | None) -> str:
    ratio = f"{row['seconds'] / ours['seconds']:6.1f}x ours" if ours else " " * 11
    cost = f"{row['wall']:8.2f} s {row['seconds']:8.2f} s of processor {ratio} {row['mebibytes']:7,.0f} MiB"
    return f"{name:14s} {cost}" + (
        f"  D {row['dimension']:6,}  agreement {row['agreement']:.3f}" if row["dimension"] else ""
    )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(name: str, documents: int, projection: int, threads: int) -> dict[str, Any]:
    """Time one method; return seconds, peak memory, dimension and agreement."""
    import torch

    torch.set_num_threads(threads)
    model, docs = build_model(), build_documents(documents)
    before = peak()
    try:
        (wall, seconds), rows = METHODS[name](model, docs, projection)
    except ImportError as error:
        return {"missing": f"{error}; install the 'bench' extra"}
    found: dict[str, Any] = {"wall": wall, "seconds": seconds, "mebibytes": peak() - before, "dimension": 0}
    if rows is not None:
        found |= {"dimension": rows.shape[1], "agreement": agreement(model, docs, rows)}
    return found


def now() -> Seconds:
    return time.perf_counter(), time.process_time()


def elapsed(since: Seconds) -> Seconds:
    wall, processor = now()
    return wall - since[0], processor - since[1]


def peak() -> float:
    """Return this process's peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build_model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=MLP,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    return model


def build_documents(count: int) -> np.ndarray:
    """Return int64 ``[N, LENGTH]``: words by Zipf's law, half of each document from ten words of its own."""
    draw = np.random.default_rng(SEED)
    common = np.minimum(draw.zipf(1.3, (count, LENGTH)), VOCABULARY) - 1
    own = draw.integers(0, VOCABULARY, (count // 4 + 1, 10))[np.arange(count) // 4]
    picked = np.take_along_axis(own, draw.integers(0, 10, (count, LENGTH)), axis=1)
    return np.where(draw.random((count, LENGTH)) < 0.5, picked, common)


def block_layers(model: Any) -> list[str]:
    from winnow.attribution.sites import find_sites

    return list(find_sites(model, "blocks"))


def agreement(model: Any, docs: np.ndarray, rows: np.ndarray) -> float:
    from winnow.attribution.correlation import spearman
    from winnow.attribution.projected import Making, projected_gradients

    few = min(128, len(docs))
    exact = projected_gradients(model, list(docs[:few]), Making("blocks")).values.numpy()
    # A document with itself would dominate any correlation.
    others = ~np.eye(min(QUERIES, few), few, dtype=bool)
    left, right = exact[:QUERIES] @ exact.T, rows[:QUERIES] @ rows[:few].T
    return spearman(left[others], right[others])


def ours(model: Any, docs: np.ndarray, projection: int) -> tuple[Seconds, np.ndarray]:
    from winnow.attribution.projected import Making, projected_gradients
    from winnow.attribution.projection import Projection

    making = Making("blocks", Projection(projection, SEED))
    projected_gradients(model, list(docs[:16]), making)
    started = now()
    rows = projected_gradients(model, list(docs), making).values.numpy()
    return elapsed(started), rows


def floor(model: Any, docs: np.ndarray, _: int) -> tuple[Seconds, None]:
    """A plain forward and backward pass, all weight gradients included."""
    import torch

    def step(batch: np.ndarray) -> None:
        model.zero_grad(set_to_none=True)
        token_loss(model(torch.from_numpy(batch[:, :-1])).logits, torch.from_numpy(batch[:, 1:])).sum().backward()

    step(docs[:16])
    started = now()
    for start in range(0, len(docs), 16):
        step(docs[start : start + 16])
    return elapsed(started), None


def token_loss(logits: Any, labels: Any) -> Any:
    """Return each document's mean token loss."""
    from torch.nn import functional

    return functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(dim=1)


def trak(model: Any, docs: np.ndarray, projection: int) -> tuple[Seconds, np.ndarray]:
    import torch
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput

    class Loss(AbstractModelOutput):
        def __init__(self) -> None:
            super().__init__()

        @staticmethod
        def get_output(model: Any, weights: Any, buffers: Any, ids: Any) -> Any:
            call = torch.func.functional_call(model, (weights, buffers), (ids[None, :-1],))
            return token_loss(call.logits, ids[None, 1:]).sum()

        @staticmethod
        def get_out_to_loss_grad(model: Any, weights: Any, buffers: Any, batch: Any) -> Any:
            return torch.ones(len(batch[0]), 1)

    names = [f"{name}.weight" for name in block_layers(model)]
    with tempfile.TemporaryDirectory() as folder:
        traker = TRAKer(
            model,
            Loss(),
            len(docs),
            save_dir=folder,
            device="cpu",
            proj_dim=len(names) * projection**2,
            use_half_precision=False,
            grad_wrt=names,
            logging_level=40,
        )
        traker.load_checkpoint(model.state_dict(), model_id=0)
        started = now()
        for start in range(0, len(docs), PEER_BATCH):
            batch = torch.from_numpy(docs[start : start + PEER_BATCH])
            traker.featurize([batch], num_samples=len(batch))
        seconds = elapsed(started)
        return seconds, np.array(traker.saver.current_store["grads"])


def dattri_trak(model: Any, docs: np.ndarray, projection: int) -> tuple[Seconds, np.ndarray]:
    import torch
    from dattri.func.projection import random_project
    from dattri.task import AttributionTask

    names = [f"{name}.weight" for name in block_layers(model)]

    def loss(parameters: Any, ids: Any) -> Any:
        logits = torch.func.functional_call(model, parameters, (ids[None, :-1],)).logits
        return token_loss(logits, ids[None, 1:]).sum()

    task = AttributionTask(loss, model, model.state_dict())
    parameters, _ = task.get_param(ckpt_idx=0, layer_name=names)
    task_gradient = task.get_grad_target_func(in_dims=(None, 0), layer_name=names, ckpt_idx=0)
    projector, out = None, []
    started = now()
    for start in range(0, len(docs), PEER_BATCH):
        batch = torch.from_numpy(docs[start : start + PEER_BATCH])
        gradients = task_gradient(parameters, batch)
        if projector is None:
            projector = random_project(gradients, len(batch), len(names) * projection**2, 32, device="cpu")
        out.append(projector(gradients).detach())
    return elapsed(started), torch.cat(out).numpy()


def dattri_logra(model: Any, docs: np.ndarray, projection: int) -> tuple[Seconds, np.ndarray]:
    import torch
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    names = block_layers(model)

    def loss(model: Any, batch: Any, _: str) -> Any:
        ids = batch["input_ids"]
        return token_loss(model(ids[:, :-1]).logits, ids[:, 1:]).sum()

    task = AttributionTask(loss, model, model.state_dict())
    tokens: Any = [{"input_ids": torch.from_numpy(doc)} for doc in docs]
    loader: Any = torch.utils.data.DataLoader(tokens, batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        attributor = LoGraAttributor(
            task, names, hessian="Identity", proj_dim=projection**2, offload="cpu", cache_dir=folder
        )
        attributor._setup_compressors(loader)
        started = now()
        attributor.cache(loader)
        seconds = elapsed(started)
        rows = [value for value, _ in attributor.offload_manager.create_gradient_dataloader("gradients", batch_size=64)]
        return seconds, torch.cat(rows).numpy()


METHODS: dict[str, Callable[[Any, np.ndarray, int], tuple[Seconds, Any]]] = {
    "ours": ours,
    "floor": floor,
    "dattri_logra": dattri_logra,
    "trak": trak,
    "dattri_trak": dattri_trak,
}


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
