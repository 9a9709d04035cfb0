"""Products of every document's gradient with many queries: their cost over a plain forward and backward pass.

    python benchmarks/attribution.py products [--queries 32] [--threads 1] [--rounds 5]

A Llama with a tied head (random weights) reads documents of one length. ``plain`` is forward and backward with weight
gradients over the same batches, with the faster attention kernel of the two; ``ours`` is one pass that gives every
document's products with every query's direction (given in the dtype of the pass). Passes alternate, the ratio is of
the fastest rounds, of processor seconds (a shared machine stretches wall seconds; both are printed). ``error``: largest
relative difference, over queries, of the scores of two documents from the products of gradients by ordinary autograd in
float32.

Memory: every row has a process of its own. ``step`` is the peak that one AdamW training step adds to a process that
holds the model, ``ours`` what scoring adds to one that holds model and directions, and ``directions`` these: 4 bytes x
parameters x queries, 2 in bfloat16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

SCOPES = {"blocks": 1.10, "blocks+embeddings+head": 1.35}
DTYPES = ("float32", "bfloat16")
SEED = 0
MIB = 1 << 20


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--scopes", nargs="+", default=list(SCOPES))


def run(options: argparse.Namespace) -> None:
    """Measure every scope and dtype and print the tables."""
    print(
        f"{options.documents} documents of {options.positions} positions, {options.queries} queries, Llama "
        f"{options.layers} x {options.hidden}, vocabulary {options.vocabulary}, {alone(parameters, options):,} "
        f"parameters, {options.threads} threads, seed {SEED}"
    )
    columns = ("plain s", "ours s", "ratio", "wall", "target", "error")
    print(f"{'scope':24s} {'dtype':9s} " + " ".join(f"{column:>8s}" for column in columns))
    for dtype in options.dtypes:
        for scope in options.scopes:
            found = alone(cost, options, scope, dtype)
            target = f"{SCOPES[scope]:.2f}" if scope in SCOPES else "-"
            print(
                f"{scope:24s} {dtype:9s} {found['plain']:8.2f} {found['ours']:8.2f} {found['ratio']:8.2f} "
                f"{found['wall']:8.2f} {target:>8s} {found['error']:8.1e}",
                flush=True,
            )
    print(f"\n{'scope':24s} {'dtype':9s} {'step MiB':>9s} {'ours MiB':>9s} {'ratio':>6s} {'directions MiB':>14s}")
    for dtype in options.dtypes:
        step = alone(step_memory, options, dtype)
        for scope in options.scopes:
            ours, held = alone(scoring_memory, options, scope, dtype)
            print(
                f"{scope:24s} {dtype:9s} {step / MIB:9.0f} {ours / MIB:9.0f} {ours / step:6.2f} {held / MIB:14.0f}",
                flush=True,
            )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def parameters(options: argparse.Namespace) -> int:
    """Return the model's number of parameters."""
    return sum(value.numel() for value in build(options).parameters())


def cost(options: argparse.Namespace, scope: str, dtype: str) -> dict[str, float]:
    """Return the fastest round of plain passes and of ours in processor seconds, and how far the scores are off."""
    import torch

    from winnow.attribution.directional import query_gradients, score_along

    model = build(options)
    docs, queries = documents(options, options.documents, 0), documents(options, options.queries, 1)
    directions = query_gradients(model, queries, scope)
    plain: dict[str, list[tuple[float, float]]] = {"sdpa": [], "eager": []}
    ours: list[tuple[float, float]] = []
    given = {name: value.to(getattr(torch, dtype)) for name, value in directions.items()}
    influence = score_along(model, docs[:2], given, scope, dtype).influence
    for kernel in plain:
        passes(model, docs[:2], dtype, kernel)
    for _ in range(options.rounds):
        for kernel, seconds in plain.items():
            seconds.append(timed(partial(passes, model, docs, dtype, kernel)))
        ours.append(timed(partial(score_along, model, docs, given, scope, dtype)))
    fastest = [min(min(found[clock] for found in seconds) for seconds in plain.values()) for clock in (0, 1)]
    best = [min(found[clock] for found in ours) for clock in (0, 1)]
    exact = by_autograd(model, docs[:2], directions, scope)
    error = np.abs(influence - exact).max() / np.abs(exact).max()
    return {
        "plain": fastest[1],
        "ours": best[1],
        "ratio": best[1] / fastest[1],
        "wall": best[0] / fastest[0],
        "error": float(error),
    }


def step_memory(options: argparse.Namespace, dtype: str) -> int:
    """Return the bytes that a training step adds at its peak: activations, gradients and AdamW's moments."""
    import torch

    model = build(options)
    docs = documents(options, options.documents, 0)
    before = reset_peak()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    passes(model, docs, dtype, "sdpa", optimizer)
    return peak() - before


def scoring_memory(options: argparse.Namespace, scope: str, dtype: str) -> tuple[int, int]:
    """Return the bytes that scoring adds at its peak beside the directions, and those of the directions."""
    import torch

    from winnow.attribution.directional import score_along
    from winnow.attribution.sites import find_sites

    model = build(options)
    docs = documents(options, options.documents, 0)
    shapes = {name: site.shape for name, site in find_sites(model, scope).items()}
    kind = getattr(torch, dtype)
    directions = {name: torch.ones(options.queries, *shape, dtype=kind) for name, shape in shapes.items()}
    before = reset_peak()
    score_along(model, docs, directions, scope, dtype)
    return peak() - before, sum(value.nbytes for value in directions.values())


def build(options: argparse.Namespace) -> Any:
    """Return the model, and set the threads of its process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 64,
        intermediate_size=options.hidden * 8 // 3 // 32 * 32,
        vocab_size=options.vocabulary,
        max_position_embeddings=options.positions + 1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def documents(options: argparse.Namespace, count: int, seed: int) -> list[np.ndarray]:
    """Return documents of random tokens, frequent and rare ones as in text."""
    generator = np.random.default_rng([SEED, seed])
    chances = 1.0 / np.arange(1, options.vocabulary + 1)
    size = options.positions + 1
    return [generator.choice(options.vocabulary, size, p=chances / chances.sum()) for _ in range(count)]


def passes(model: Any, docs: list[np.ndarray], dtype: str, attention: str, optimizer: Any = None) -> None:
    """Run forward and backward with weight gradients over the batches that scoring uses, and a step if asked."""
    import torch

    from winnow.attribution.batching import batches
    from winnow.attribution.capture import token_losses

    model.set_attn_implementation(attention)
    model.train()
    for batch in batches(docs, len(docs[0])):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(input_ids=torch.from_numpy(batch.inputs), use_cache=False).logits
        losses = token_losses(logits, torch.from_numpy(batch.targets))
        del logits
        (losses * torch.from_numpy(batch.weights)).sum().backward()
        if optimizer is not None:
            optimizer.step()
    model.zero_grad(set_to_none=True)


def by_autograd(model: Any, docs: list[np.ndarray], directions: dict[str, Any], scope: str) -> np.ndarray:
    """Return the products float64 ``[Q, N]`` of the directions with whole gradients of one document at a time."""
    import torch

    from winnow.attribution.capture import token_losses
    from winnow.attribution.sites import find_sites

    model.eval()
    columns = []
    for doc in docs:
        ids = torch.from_numpy(doc)[None]
        token_losses(model(input_ids=ids[:, :-1], use_cache=False).logits, ids[:, 1:]).mean().backward()
        own = {name: value.grad for name, value in model.named_parameters()}
        column: Any = 0.0
        for name, site in find_sites(model, scope).items():
            column = column + (directions[name] * site.matrix(own)).flatten(1).double().sum(dim=1)
        columns.append(column.numpy())
        model.zero_grad(set_to_none=True)
    return np.stack(columns, axis=1)


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def reset_peak() -> int:
    """Forget the process's peak memory and return what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the process's peak memory since it was reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
