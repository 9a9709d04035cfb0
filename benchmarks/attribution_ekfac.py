"""EK-FAC influence of every document on every query: ours against kronfluence, same model, documents and threads.

    python benchmarks/attribution.py ekfac [--model mixed] [--queries 32] [--threads 1] [--repeats 3]

Both fit factors on the training documents (labels sampled from the model, then the text's) and score all pairs at
damping 0.1 times the mean eigenvalue, in float32, over the linear layers of the blocks. ``mixed`` and ``small`` are the
models and corpora of ``winnow attribution bench`` (GPT-2's Conv1D as nn.Linear, all that kronfluence tracks), trained
first and then scored on their own documents; ``wide`` is an untrained Llama of four layers of width 512 on random
windows of 256 tokens, for timing alone. kronfluence is given the best of ``--batches``. Each contender runs in a
process of its own, and the best of ``--repeats`` is printed, by wall clock and by processor time. Needs kronfluence.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from winnow.attribution.bench import get_bench
from winnow.attribution.correlation import spearman
from winnow.attribution.retraining import Recipe, retrain

DAMPING = 0.1
SCOPE = "blocks+bias"  # kronfluence counts biases where a layer has one
WIDE = Recipe("llama", 4096, 512, 4, 8, 256, intermediate=1376)


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--model", choices=("small", "mixed", "wide"), default="mixed")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="batch sizes tried for kronfluence")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")


@dataclass(frozen=True)
class Job:
    """What a contender is given: weights, documents and queries (token arrays), and how to run."""

    recipe: Recipe
    weights: Path
    documents: tuple[np.ndarray, ...]
    queries: tuple[np.ndarray, ...]
    threads: int
    sampled: bool
    seed: int
    batch: int = 0

    def model(self) -> Any:
        """Return the model, with linear layers only."""
        import torch
        from safetensors.torch import load_file

        torch.set_num_threads(self.threads)
        model = self.recipe.build(0)
        model.load_state_dict(load_file(self.weights))
        return plain_linear(model).eval()


@dataclass(frozen=True)
class Outcome:
    """Seconds (wall, processor) for factors and for scores, scores float64 ``[Q, N]``, the process's peak in MiB."""

    factors: tuple[float, float]
    pairs: tuple[float, float]
    scores: np.ndarray
    peak: float


def ours(job: Job) -> Outcome:
    """Fit and score with this package."""
    from winnow.attribution.capture import capturing, context_length
    from winnow.attribution.curvature import fit_curvature
    from winnow.attribution.directional import query_gradients, score_along

    model = job.model()
    clock = Clock()
    with capturing(model, SCOPE) as capture:
        curvature = fit_curvature(
            capture,
            job.documents,
            context_length(model),
            labels="sampled" if job.sampled else "text",
            seed=job.seed,
        )
    factors = clock.lap()
    directions = query_gradients(model, job.queries, SCOPE)
    for name, layer in curvature.layers.items():
        directions[name] = layer.solve(directions[name], DAMPING)
    scores = score_along(model, job.documents, directions, SCOPE).influence
    return Outcome(factors, clock.lap(), scores, peak())


def kronfluence(job: Job) -> Outcome:
    """Fit and score with kronfluence."""
    import torch
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from torch.nn.functional import cross_entropy

    class NextToken(Task):
        """Each document's mean loss, summed over the batch, as ours."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            logits = model(input_ids=batch["inputs"], use_cache=False).logits
            labels = batch["targets"]
            if sample:
                with torch.no_grad():
                    chances = torch.softmax(logits.detach().flatten(0, 1), dim=-1)
                    labels = torch.multinomial(chances, 1).view(labels.shape)
            return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            from winnow.attribution.sites import find_sites

            return list(find_sites(plain))

    plain = job.model()
    torch.manual_seed(job.seed)
    task = NextToken()
    model = prepare_model(copy.deepcopy(plain), task)
    documents, queries = Windows(job.documents), Windows(job.queries)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("bench", model, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=40)
        clock = Clock()
        arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=not job.sampled)
        analyzer.fit_all_factors("factors", documents, per_device_batch_size=job.batch, factor_args=arguments)
        factors = clock.lap()
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=queries,
            train_dataset=documents,
            per_device_query_batch_size=len(job.queries),
            per_device_train_batch_size=job.batch,
            score_args=ScoreArguments(damping_factor=None),
        )
        pairs = clock.lap()
        scores = analyzer.load_pairwise_scores("scores")["all_modules"]
        return Outcome(factors, pairs, scores.double().numpy(), peak())


class Clock:
    """Seconds since the lap before, by the wall and by the processor."""

    def __init__(self) -> None:
        self._last = (time.perf_counter(), time.process_time())

    def lap(self) -> tuple[float, float]:
        """Return (wall, processor) seconds."""
        before, self._last = self._last, (time.perf_counter(), time.process_time())
        return self._last[0] - before[0], self._last[1] - before[1]


class Windows:
    """Token arrays of one length as kronfluence's data set."""

    def __init__(self, docs: tuple[np.ndarray, ...]) -> None:
        import torch

        self.tokens = torch.from_numpy(np.stack(docs).astype(np.int64))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": self.tokens[index, :-1], "targets": self.tokens[index, 1:]}


def plain_linear(model: Any) -> Any:
    """Replace GPT-2's Conv1D by nn.Linear of the transposed weight: the same function."""
    from torch import nn

    for name, module in list(model.named_modules()):
        if type(module).__name__ == "Conv1D":
            rows, columns = module.weight.shape
            linear = nn.Linear(rows, columns)
            linear.weight = nn.Parameter(module.weight.detach().T.contiguous())
            linear.bias = nn.Parameter(module.bias.detach())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear)
    return model


def peak() -> float:
    """Return this process's peak resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best(function: Any, jobs: list[Job], repeats: int) -> tuple[Outcome, Job]:
    """Return the outcome of least processor time of some jobs, each repeated in a process of its own."""
    outcomes = []
    for job in jobs:
        for _ in range(repeats):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                outcomes.append((pool.apply(function, (job,)), job))
    return min(outcomes, key=lambda pair: pair[0].factors[1] + pair[0].pairs[1])


def agreement(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean and the least of the queries' rank correlations."""
    ranks = [spearman(a, b) for a, b in zip(one, other, strict=True)]
    return float(np.mean(ranks)), float(np.min(ranks))


def compared(mine: Outcome, theirs: Outcome, place: int) -> dict[str, float]:
    """Return seconds and ratios by one clock: factors excluded (scores) and included (all)."""
    (ours_factors, ours_scores), (factors, scores) = ((one.factors[place], one.pairs[place]) for one in (mine, theirs))
    return {
        "ours_factors": ours_factors,
        "ours_scores": ours_scores,
        "kronfluence_factors": factors,
        "kronfluence_scores": scores,
        "ratio_factors": factors / ours_factors,
        "ratio_scores": scores / ours_scores,
        "ratio_all": (factors + scores) / (ours_factors + ours_scores),
    }


def prepare(options: argparse.Namespace, folder: Path) -> Job:
    """Train or make the model, keep its weights and return the job."""
    from safetensors.torch import save_file

    if options.model == "wide":
        generator = np.random.default_rng(options.seed)
        shape = (options.documents + options.queries, WIDE.context + 1)
        tokens = list(generator.integers(0, WIDE.vocab, shape))
        recipe = replace(WIDE, context=WIDE.context + 1)
        model = recipe.build(options.seed)
        documents, queries = tuple(tokens[: options.documents]), tuple(tokens[options.documents :])
    else:
        bench = get_bench(options.model)
        corpus, recipe = bench.corpus(), bench.recipe
        documents, queries = corpus.documents[: options.documents], corpus.queries[: options.queries]
        model = list(retrain(recipe, documents, options.seed))[-1].model
    weights = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    return Job(recipe, weights, documents, queries, options.threads, True, options.seed)


def run(options: argparse.Namespace) -> None:
    """Print seconds, ratios, memory and rank agreement."""
    try:
        import kronfluence as installed
    except ImportError as error:
        raise SystemExit("kronfluence is not installed: pip install kronfluence (see the bench extra)") from error
    version = getattr(installed, "__version__", "")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        job = prepare(options, Path(name))
        print(
            f"model {options.model} {job.recipe}; {len(job.documents)} documents of {len(job.documents[0])} tokens, "
            f"{len(job.queries)} queries, float32, {options.threads} threads, seed {options.seed}, "
            f"best of {options.repeats}; kronfluence {version}"
        )
        for sampled in (True, False):
            asked = replace(job, sampled=sampled)
            mine, _ = best(ours, [asked], options.repeats)
            theirs, used = best(
                kronfluence, [replace(asked, batch=batch) for batch in options.batches], options.repeats
            )
            mean, least = agreement(mine.scores, theirs.scores)
            row = {
                "labels": "sampled" if sampled else "text",
                **{
                    f"{clock}_{what}": value
                    for place, clock in enumerate(("wall", "processor"))
                    for what, value in compared(mine, theirs, place).items()
                },
                "rank_mean": mean,
                "rank_least": least,
                "ours_peak_mib": mine.peak,
                "kronfluence_peak_mib": theirs.peak,
                "kronfluence_batch": used.batch,
            }
            if sampled:
                again, _ = best(ours, [replace(asked, seed=options.seed + 1)], 1)
                row["ours_other_draws"] = agreement(mine.scores, again.scores)[0]
                other, _ = best(kronfluence, [replace(used, seed=options.seed + 1)], 1)
                row["kronfluence_other_draws"] = agreement(theirs.scores, other.scores)[0]
            rows.append(row)
            print(
                "\n".join(
                    f"  {key:26} {value if isinstance(value, str) else f'{value:.4g}'}" for key, value in row.items()
                )
            )
            print(flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
