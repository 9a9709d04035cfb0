"""Do our products, K-FAC and EK-FAC rank documents as kronfluence's do, and predict retraining as well?

    WINNOW_TEST_DATA=DIR python benchmarks/attribution.py agreement [--bench small] [--folder DIR]

Both score the bench's first whole training (its last checkpoint) on the bench's documents and queries, with the same
parameters (every linear layer of the blocks, biases included, and the head), damping 0.1 times a layer's mean
eigenvalue, float32. ``--labels sampled`` gives both the same labels, drawn once from the model's predictions (the true
Fisher); ``text`` gives both the text's (the empirical Fisher); with ``own`` each draws for itself, so that what it
shows beside ``sampled`` is the noise of a draw. Printed: Spearman's correlation of the N scores of a query (mean and
least over queries), the LDS of each over the whole bank, and their difference with the 95% interval of a paired
bootstrap over subsets and queries. The bank is trained first where ``--folder`` lacks it. Needs kronfluence.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from attribution_ekfac import DAMPING, Windows, agreement, plain_linear

METHODS = ("identity", "kfac", "ekfac")
SCOPES = {"blocks": ("blocks+bias",), "head": ("head",), "blocks+head": ("blocks+bias", "head")}


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--bench", choices=("tiny", "small", "mixed"), default="small")
    parser.add_argument("--labels", choices=("sampled", "text", "own"), nargs="+", default=["sampled", "text", "own"])
    parser.add_argument("--scopes", choices=tuple(SCOPES), nargs="+", default=list(SCOPES))
    parser.add_argument("--folder", type=Path, help="where banks are kept (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train the bank")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the labels that are drawn")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the table of a bench."""
    if options.folder is not None:
        board(options, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        board(options, Path(folder))


def board(options: argparse.Namespace, folder: Path) -> None:
    """Train what ``folder`` lacks, score with both, and print the table."""
    import torch

    from winnow.attribution.bench import get_bench, prepare
    from winnow.attribution.lds import compare, mean_lds

    torch.set_num_threads(options.threads)
    prepared = prepare(get_bench(options.bench), folder, workers=options.workers)
    bank, whole = prepared.bank, prepared.runs[0]
    model = plain_linear(whole.final.load()).eval()
    documents, queries = whole.documents, (*prepared.tuning.tokens, *prepared.judging.tokens)
    losses = bank.losses[:, :, bank.columns(queries)]
    print(
        f"{options.bench}: {len(documents)} documents, {len(queries)} queries, {losses.shape[0]} subsets x "
        f"{losses.shape[1]} seeds, bank {bank.digest[:16]}, damping {DAMPING:g}, float32, label seed {options.seed}\n"
    )
    print("| scope | method | labels | rank, mean | rank, least | LDS, ours | LDS, kronfluence | difference (95%) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    rows: list[dict[str, Any]] = []
    parts = sorted({part for scope in options.scopes for part in SCOPES[scope]})
    for labels in options.labels:
        mine = ours(model, documents, queries, parts, labels, options.seed)
        theirs = kronfluence(model, documents, queries, parts, labels, options.seed)
        for scope in options.scopes:
            for method in METHODS:
                if method == "identity" and labels != options.labels[0]:
                    continue  # it has no curvature, hence no labels of its own
                one, other = (
                    np.sum([found[method][part] for part in SCOPES[scope]], axis=0) for found in (mine, theirs)
                )
                mean, least = agreement(one, other)
                here, there = (mean_lds(scores, bank.masks, losses) for scores in (one, other))
                apart = compare(one, other, bank.masks, losses)
                rows.append(
                    {
                        "bench": options.bench,
                        "bank": bank.digest,
                        "scope": scope,
                        "method": method,
                        "labels": "" if method == "identity" else labels,
                        "rank_mean": mean,
                        "rank_least": least,
                        "lds_ours": here,
                        "lds_kronfluence": there,
                        "difference": apart.mean,
                        "low": apart.low,
                        "high": apart.high,
                    }
                )
                print(
                    f"| {scope} | {method} | {rows[-1]['labels']} | {mean:.4f} | {least:.4f} | {here:.3f} | "
                    f"{there:.3f} | {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] |",
                    flush=True,
                )
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def ours(
    model: Any, documents: Any, queries: Any, parts: list[str], labels: str, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return this package's scores float64 ``[Q, N]`` by method and scope."""
    from winnow.attribution.capture import capturing, context_length
    from winnow.attribution.curvature import fit_curvature
    from winnow.attribution.directional import query_gradients, score_along

    with capturing(model, "+".join(parts)) as capture:
        curvature = fit_curvature(
            capture, documents, context_length(model), labels="text" if labels == "text" else "sampled", seed=seed
        )
    found: dict[str, dict[str, np.ndarray]] = {method: {} for method in METHODS}
    for part in parts:
        gradients = query_gradients(model, queries, part)
        for method in METHODS:
            directions = {
                name: value
                if method == "identity"
                else curvature.layers[name].solve(value, DAMPING, kfac=method == "kfac")
                for name, value in gradients.items()
            }
            found[method][part] = score_along(model, documents, directions, part).influence
    return found


def kronfluence(
    model: Any, documents: Any, queries: Any, parts: list[str], labels: str, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return kronfluence's scores float64 ``[Q, N]`` by method and scope."""
    import torch
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from torch.nn.functional import cross_entropy

    from winnow.attribution.sites import find_sites

    members = {part: list(find_sites(model, part)) for part in parts}

    class NextToken(Task):
        """Each document's mean loss, summed over the batch; labels drawn beforehand unless they are its own."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            logits = model(input_ids=batch["inputs"], use_cache=False).logits
            targets = batch["drawn" if sample else "targets"]
            if sample and labels == "own":
                with torch.no_grad():
                    chances = torch.softmax(logits.detach().flatten(0, 1), dim=-1)
                    targets = torch.multinomial(chances, 1).view(targets.shape)
            return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / targets.shape[1]

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return [name for names in members.values() for name in names]

    torch.manual_seed(seed)
    task = NextToken()
    asked, trained = Windows(queries), Drawn(documents, draw(model, documents, seed))
    found: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        wrapped = prepare_model(copy.deepcopy(model), task)
        analyzer = Analyzer("agreement", wrapped, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=40)
        for method in METHODS:
            arguments = FactorArguments(strategy=method, use_empirical_fisher=labels == "text")
            analyzer.fit_all_factors(method, trained, per_device_batch_size=16, factor_args=arguments)
            analyzer.compute_pairwise_scores(
                method,
                method,
                query_dataset=asked,
                train_dataset=trained,
                per_device_query_batch_size=16,
                per_device_train_batch_size=32,
                score_args=ScoreArguments(damping_factor=None, compute_per_module_scores=True),
            )
            scores = analyzer.load_pairwise_scores(method)
            found[method] = {
                part: sum(scores[name].double() for name in names).numpy() for part, names in members.items()
            }
    return found


class Drawn(Windows):
    """Token arrays of one length with labels drawn for them, int64 ``[N, T]``."""

    def __init__(self, docs: Any, labels: Any) -> None:
        super().__init__(docs)
        self.labels = labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"drawn": self.labels[index]}


def draw(model: Any, documents: Any, seed: int) -> Any:
    """Return labels int64 ``[N, T]`` from the model's predictions, by the uniform numbers that our own pass uses."""
    import torch

    from winnow.attribution.batching import uniforms

    found = []
    for document in documents:
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(document[None, :-1].astype(np.int64)), use_cache=False).logits[0]
        cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
        numbers = torch.from_numpy(uniforms(document, seed, len(cumulative))).to(cumulative.dtype)
        wanted = numbers[:, None] * cumulative[:, -1:]
        found.append(torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp(max=logits.shape[-1] - 1))
    return torch.stack(found)
