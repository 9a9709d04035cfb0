"""Run simulators: loss curves predicted for runs never seen, against additive baselines.

    python benchmarks/attribution.py simulate [--bench tiny] [--documents 64] [--runs 24] [--held 8] [--every 2]

Small models are trained from one initial state on random halves of the documents in random orders, and their queries'
losses recorded; half of the queries of the bench. Simulators are fitted to ``--runs`` of them and predict the others
from the first losses and the order of the documents alone. "mean curve" says for every run what the fitted runs lost on
average; "additive" sums an estimator's scores (of a whole training on all documents, so it has seen more), scaled to
the runs by least squares; "on unseen queries" is featurised, fitted on half of the queries and judged on the others.
Errors are in nats squared; ranks are Spearman's correlations over held-out runs (a query at a time) and over queries.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--bench", default="tiny", help="tiny, small or mixed: corpus, model and recipe")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--held", type=int, default=8)
    parser.add_argument("--every", type=int, default=2, help="steps between measurements")
    parser.add_argument("--estimators", nargs="*", default=["tracin", "tfidf"])
    parser.add_argument("--cache", type=Path, help="a file that keeps the recorded runs")


def run(options: argparse.Namespace) -> None:
    """Record, fit, predict and print the table."""
    from winnow.attribution.bench import get_bench
    from winnow.attribution.simulate.additive import fit_additive
    from winnow.attribution.simulate.featurised import Features, fit_featurised
    from winnow.attribution.simulate.judging import judge
    from winnow.attribution.simulate.linear import fit_linear
    from winnow.embed.encoder import encode, load_encoder

    bench = get_bench(options.bench)
    corpus = bench.corpus()
    documents, texts = corpus.documents[: options.documents], corpus.texts[: options.documents]
    queries, query_texts = corpus.queries[: bench.tuning], corpus.query_texts[: bench.tuning]
    start = time.perf_counter()
    records = _records(options, bench.recipe, documents, queries)
    fitted, held = records[: options.runs], records[options.runs :]
    print(
        f"{options.bench}: {len(documents)} documents, {len(queries)} queries, {fitted[0].reading.steps} steps a run,"
    )
    print(f"{len(fitted)} runs fitted, {len(held)} held out; recorded in {time.perf_counter() - start:.0f} s\n")
    print(f"{'':24}{'curve error':>13}{'final error':>13}{'rank of runs':>14}{'of queries':>12}{'seconds':>9}")

    def tell(name: str, curves: list[np.ndarray], judged: list[Any], seconds: float) -> None:
        found = judge(curves, judged)
        print(
            f"{name:24}{found.curve_error:>13.5f}{found.final_error:>13.5f}"
            f"{found.final_rank:>14.3f}{found.query_rank:>12.3f}{seconds:>9.1f}"
        )

    mean = np.mean([record.losses for record in fitted], axis=0)
    tell("mean curve", [mean for _ in held], held, 0.0)
    for name in options.estimators:
        scores, seconds = _scores(name, bench.recipe, documents, texts, queries, query_texts)
        additive = fit_additive(fitted, scores)
        curves = [additive.simulate(record.reading, record.losses[0]) for record in held]
        tell(f"additive, {name}", curves, held, seconds)
    start = time.perf_counter()
    linear = fit_linear(fitted, len(documents))
    seconds = time.perf_counter() - start
    tell("linear", [linear.simulate(record.reading, record.losses[0]) for record in held], held, seconds)
    encoder = load_encoder()
    lexical, _ = _scores("tfidf", bench.recipe, documents, texts, queries, query_texts)
    features = Features.of(encode(encoder, list(texts)), encode(encoder, list(query_texts)), lexical)
    start = time.perf_counter()
    featurised = fit_featurised(fitted, features)
    seconds = time.perf_counter() - start
    curves = [featurised.simulate(record.reading, record.losses[0], features) for record in held]
    tell("featurised", curves, held, seconds)
    known = np.arange(len(queries)) % 2 == 0
    fresh = Features(features.documents, features.queries[~known], features.similarities[~known])
    seen = Features(features.documents, features.queries[known], features.similarities[known])
    featurised = fit_featurised([_only(record, known) for record in fitted], seen)
    judged = [_only(record, ~known) for record in held]
    curves = [featurised.simulate(record.reading, record.losses[0], fresh) for record in judged]
    tell("  on unseen queries", curves, judged, 0.0)
    tell("  mean curve of those", [mean[:, ~known] for _ in judged], judged, 0.0)


def _records(options: argparse.Namespace, recipe: Any, documents: Any, queries: Any) -> list[Any]:
    from winnow.attribution.simulate.recording import record_run
    from winnow.attribution.simulate.runs import load_runs, save_runs

    if options.cache is not None and options.cache.exists():
        return load_runs(options.cache)
    records = []
    for place in range(options.runs + options.held):
        members = np.random.default_rng(place).permutation(len(documents))[: len(documents) // 2]
        records.append(record_run(recipe, documents, members, queries, order=place, every=options.every))
    if options.cache is not None:
        save_runs(options.cache, records)
    return records


def _scores(
    name: str, recipe: Any, documents: Any, texts: Any, queries: Any, query_texts: Any
) -> tuple[np.ndarray, float]:
    from winnow.attribution.bench_runs import train_run
    from winnow.attribution.estimators import make_estimator
    from winnow.attribution.run import Queries, Settings, TrainingRun

    with tempfile.TemporaryDirectory() as folder:
        whole = TrainingRun(documents, train_run(Path(folder) / "run", documents, recipe, 0, 3), texts)
        start = time.perf_counter()
        scores = make_estimator(name).fit(whole, Settings()).score(Queries(queries, query_texts))
        return scores, time.perf_counter() - start


def _only(record: Any, queries: np.ndarray) -> Any:
    from winnow.attribution.simulate.runs import RunRecord

    return RunRecord(record.reading, record.losses[:, queries])
