"""What the estimators are worth on real text: facts, broken documents, removal, recovery, memory, stability.

    python benchmarks/attribution.py validation [--only facts corruption ...] [--cache FOLDER] [--out FILE.json]

Every section trains small Llamas of two layers (360,000 parameters for ``facts``, 230,000 else) on one thread, scores
with each estimator at the final checkpoint and prints the rows of the leaderboard with 95% intervals. Nothing is tuned
on what is judged: damping is 0.1 throughout, the parameter scopes are those named. Trainings are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from attribution_validation_data import World, fact_world, spam_world, wiki_world

from winnow.attribution.adamw import run_optimizer
from winnow.attribution.bench_runs import train_run
from winnow.attribution.estimators import make_estimator
from winnow.attribution.retraining import Recipe, losses
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.attribution.validation.brittleness import brittleness
from winnow.attribution.validation.corruption import corruption, plant
from winnow.attribution.validation.fact_tracing import fact_tracing
from winnow.attribution.validation.memorisation import memorisation
from winnow.attribution.validation.one_step import one_step
from winnow.attribution.validation.recovery import recover
from winnow.attribution.validation.rows import Result, leaderboard
from winnow.attribution.validation.stability import stability, variance_shares
from winnow.attribution.validation.tail_patch import patching, tail_patch
from winnow.attribution.validation.trained import final_model, removal_losses

LEXICAL = ("bm25", "tfidf")
SCOPES = ("head", "all")
ESTIMATORS = ("grad_dot", "grad_cos", "adam_dot", "adam_fisher", "ekfac", "trackstar")


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--cache", type=Path, default=Path("validation-runs"))
    parser.add_argument("--out", type=Path, help="write the rows as JSON")


def run(options: argparse.Namespace) -> None:
    """Run the sections and print their rows."""
    logging.basicConfig(level=logging.WARNING)
    rows: list[dict[str, Any]] = []
    for name in options.only:
        started = time.perf_counter()
        results = list(SECTIONS[name](options.cache))
        table = leaderboard(results)
        print(f"\n{name}: {time.perf_counter() - started:.0f} s, one thread, float32, {os.cpu_count()} cores")
        _show(table)
        rows += table.to_pylist()
        if options.out is not None:
            options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _show(table: pa.Table) -> None:
    for one in table.to_pylist():
        interval = f"[{one['low']:.4g}, {one['high']:.4g}]" if one["low"] is not None else ""
        value = "-" if one["value"] is None else f"{one['value']:.4g}"
        print(f"  {one['validation']:13}{one['method']:32}{one['measure']:20}{one['at']:12}{value:>10} {interval}")


def scores(run: TrainingRun, queries: Queries, folder: Path) -> dict[str, np.ndarray]:
    """Return the scores ``[Q, N]`` of the lexical methods and of every gradient method by scope; kept in ``folder``."""
    found = {}
    for name, scope in (*((name, "") for name in LEXICAL), *itertools.product(ESTIMATORS, SCOPES)):
        key = f"{name} {scope}".strip()
        path = folder / f"{key.replace(' ', '-')}-{len(queries)}.npy"
        if not path.exists():
            started = time.perf_counter()
            np.save(path, _score(run, queries, name, scope or "blocks"))
            print(f"  {key}: {time.perf_counter() - started:.1f} s", flush=True)
        found[key] = np.load(path)
    return found


def _score(run: TrainingRun, queries: Queries, name: str, scope: str) -> np.ndarray:
    settings = Settings(scope=scope, projection=16 if name == "trackstar" else 0)
    return make_estimator(name).fit(run, settings).score(queries)


FACTS_ASKED = 60
FACTS = Recipe("llama", 2048, 64, 2, 4, 128, intermediate=172, epochs=6)


def facts(cache: Path) -> Iterator[Result]:
    """Fact tracing, tail-patch and the one-step oracle, at the end of one training on passages that state facts."""
    world = fact_world(documents=1000, facts=FACTS_ASKED, vocabulary=FACTS.vocab, context=FACTS.context)
    stated = int(world.states.any(axis=0).sum())
    print(f"  {len(world.facts)} facts, {len(world.documents)} passages, {stated} of which state one", flush=True)
    checkpoints = train_run(cache / "facts", world.documents, FACTS, 0, 3)
    run = TrainingRun(tuple(world.documents), checkpoints, texts=world.texts)
    found = scores(run, world.queries, cache / "facts")
    for name, values in found.items():
        yield fact_tracing(name, values, world.states)
    model, final, optimizer = run.final.load(), run.final, run_optimizer(run, Settings())
    asked = [place for place, answer in enumerate(world.answers) if answer is not None][:40]
    answers = [answer for place in asked if (answer := world.answers[place]) is not None]
    tokens = [world.queries.tokens[place] for place in asked]
    with patching(model, optimizer, final.optimizer, world.documents, tokens, answers) as patch:
        yield from tail_patch({name: values[asked] for name, values in found.items()}, patch, world.ids, depth=5)
    # The oracle is slow: half of what it is asked are documents that state a fact, half are others.
    probed = np.concatenate([np.flatnonzero(world.states.any(axis=0))[:100], np.arange(700, 800)])
    few = TrainingRun([world.documents[place] for place in probed], run.checkpoints)
    truth = _score(few, Queries(world.queries.tokens[:24]), "oracle", "all")
    for name, values in found.items():
        yield one_step(name, values[:24, probed], truth)


SMALL = Recipe("llama", 1024, 64, 2, 4, 64, intermediate=172, epochs=6)


def corrupted(cache: Path) -> Iterator[Result]:
    """Self-influence on a training set of which a tenth is broken."""
    world = wiki_world(documents=600, queries=1, vocabulary=SMALL.vocab, context=SMALL.context)
    planted = plant(world.documents, 0.1, seed=0)
    checkpoints = train_run(cache / "corruption", planted.documents, SMALL, 0, 4)
    run = TrainingRun(tuple(planted.documents), checkpoints)
    for name, values in self_influences(run).items():
        yield corruption(name, values, planted.kind)


def self_influences(run: TrainingRun) -> dict[str, np.ndarray]:
    """Return float64 ``[N]`` by method, high = cannot be fitted from the rest: losses and forms of self-influence."""
    found = {"loss": losses(run.final.load(), run.documents, SMALL.context)}  # type: ignore[arg-type]
    anything = Queries([run.documents[0]])
    for name in ("self_influence", "self_influence_ekfac"):
        for scope in SCOPES:
            found[f"{name} {scope}"] = _score(run, anything, name, scope)[0]
    final = TrainingRun(run.documents, run.checkpoints[-1:])
    for scope in SCOPES:
        found[f"self_influence {scope}, final"] = _score(final, anything, "self_influence", scope)[0]
    return found


def removal(cache: Path) -> Iterator[Result]:
    """Remove what each method finds for three groups of five facts; train again with three seeds."""
    world = fact_world(documents=400, facts=15, vocabulary=SMALL.vocab, context=SMALL.context)
    checkpoints = train_run(cache / "removal", world.documents, SMALL, 1000, 1)
    run = TrainingRun(tuple(world.documents), checkpoints, texts=world.texts)
    methods = (("tfidf", ""), ("adam_fisher", "head"), ("ekfac", "all"))
    found = {f"{name} {scope}".strip(): _score(run, world.queries, name, scope or "blocks") for name, scope in methods}
    groups = list(np.arange(len(world.facts)).reshape(3, 5))
    retrain = removal_losses(SMALL, world.documents, world.queries.tokens)
    yield from brittleness(found, retrain, world.ids, removals=(20,), seeds=(0, 1, 2), groups=groups)


def recovered(cache: Path) -> Iterator[Result]:
    """A tenth of the training set is spam; ten spam messages (and ten others) that are not in it are known."""
    world, culprits, bad = spam_world(300, 60, 240, 10, 10, SMALL.vocab, SMALL.context)

    def train(keep: np.ndarray, seed: int) -> tuple[Any, np.ndarray]:
        return final_model(SMALL, [world.documents[row] for row in np.flatnonzero(keep)], seed), keep

    def measure(trained: tuple[Any, np.ndarray]) -> np.ndarray:
        return losses(trained[0], world.queries.tokens, SMALL.context)

    for name, scope in (("tfidf", ""), ("grad_dot", "all"), ("ekfac", "head"), ("ekfac", "all")):

        def influence(
            trained: tuple[Any, np.ndarray], keep: np.ndarray, name: str = name, scope: str = scope
        ) -> np.ndarray:
            state = RunCheckpoint("now", lambda: trained[0])
            run = TrainingRun(tuple(world.documents), (state,), world.texts)
            return _score(run, world.queries, name, scope or "blocks")

        yield recover(
            f"{name} {scope}".strip(),
            train,
            measure,
            influence,
            bad,
            world.ids,
            rounds=4,
            per_round=15,
            culprits=culprits,
            seed=0,
        )


def memory(cache: Path) -> Iterator[Result]:
    """Documents read 0, 1, 2, 4 and 8 times in one pass, against themselves before it."""
    world = wiki_world(documents=400, queries=200, vocabulary=SMALL.vocab, context=SMALL.context)
    recipe = Recipe("llama", SMALL.vocab, 64, 2, 4, SMALL.context, intermediate=172, epochs=2)
    times = np.concatenate([np.repeat([1, 2, 4, 8], 100), np.zeros(200, dtype=int)])
    everything = [*world.documents, *world.queries.tokens]
    read = [doc for doc, count in zip(everything, times, strict=True) for _ in range(count)]
    before = losses(recipe.build(0), everything, recipe.context)
    after = losses(final_model(recipe, read, 0), everything, recipe.context)
    yield memorisation(after, 2 * times)
    yield memorisation(after, 2 * times, before)


def stable(cache: Path) -> Iterator[Result]:
    """The same scores by three seeds and three checkpoints of each."""
    world = wiki_world(documents=300, queries=16, vocabulary=SMALL.vocab, context=SMALL.context)
    runs = [train_run(cache / f"stability-{seed}", world.documents, SMALL, seed, 3) for seed in range(3)]
    for name, scope in itertools.product(("grad_dot", "ekfac"), SCOPES):
        found = np.array([[_at(state, world, name, scope) for state in states] for states in runs])
        yield stability(f"{name} {scope}, seeds", found[:, -1])
        yield stability(f"{name} {scope}, checkpoints", found[0])
        shares = ", ".join(f"{part} {share:.0%}" for part, share in variance_shares(found).items())
        print(f"  variance of {name} {scope}: {shares}", flush=True)


def _at(state: RunCheckpoint, world: World, name: str, scope: str) -> np.ndarray:
    return _score(TrainingRun(tuple(world.documents), (state,)), world.queries, name, scope)


SECTIONS: dict[str, Callable[[Path], Iterator[Result]]] = {
    "facts": facts,
    "corruption": corrupted,
    "removal": removal,
    "recovery": recovered,
    "memory": memory,
    "stability": stable,
}
