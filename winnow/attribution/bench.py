"""The benches of attribution: small models, a bank of subset trainings, and how well each estimator predicts it.

``small`` is 512 beginnings of English Wikipedia and a GPT-2 of two layers, ``mixed`` as many of Wikipedia, code and
books and a Llama of four layers and 1.3 million parameters, ``tiny`` docstrings of the standard library and a model of
seconds. One half of the queries is there to choose an estimator's parameter scope and damping, the other to judge it:
no query judges what it has tuned (:mod:`winnow.attribution.leaderboard`).

Both halves are measured on the same subset models, so a setting that fits the noise of these models, or the draw of
these subsets, is judged by the same noise, and the LDS of a tuned estimator may be flattered by it. Judging on other
subsets than those of the tuning would leave half of them for each. On 36 subsets of ``small``, ``adam_fisher`` tuned
over scope and damping reached 0.587 judged on the half of the subsets that had tuned it and 0.596 on the other half
(both ways round): no flattery to be seen, while the standard error grew from 0.037 on all of them to 0.054 on a half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow.attribution.bank import BankPlan, SubsetBank, bank_digest, train_bank
from winnow.attribution.bench_data import Corpus, docstrings, read_texts, subwords_corpus, words_corpus
from winnow.attribution.bench_runs import train_run
from winnow.attribution.lds import ceiling
from winnow.attribution.retraining import Recipe
from winnow.attribution.run import Queries, TrainingRun
from winnow.errors import UserError

RUN_SEEDS = 1000
"""Whole trainings have seeds of their own: no subset model shares its initial weights with them."""


@dataclass(frozen=True)
class Bench:
    """``corpus`` reads the documents and queries; the first ``tuning`` queries tune, the others judge.

    ``checkpoints`` of a whole training are kept, evenly spaced.
    """

    name: str
    corpus: Callable[[], Corpus]
    recipe: Recipe
    plan: BankPlan
    tuning: int
    checkpoints: int = 6


def _tiny() -> Corpus:
    return words_corpus(docstrings(0), documents=64, queries=16, vocabulary=128, context=32)


def _small() -> Corpus:
    return words_corpus(read_texts("wiki_en", 0), documents=512, queries=64, vocabulary=1000, context=64)


def _mixed() -> Corpus:
    texts = [read_texts(source, 0) for source in ("wiki_en", "code", "books")]
    return subwords_corpus(texts, documents=512, queries=64, vocabulary=2048, context=64)


BENCHES = {
    bench.name: bench
    for bench in (
        Bench("tiny", _tiny, Recipe("gpt2", 128, 16, 1, 2, 32, epochs=6, batch=8), BankPlan(12), 8, 3),
        Bench("small", _small, Recipe("gpt2", 1000, 64, 2, 4, 64), BankPlan(64), 32),
        Bench("mixed", _mixed, Recipe("llama", 2048, 128, 4, 4, 64, intermediate=344, epochs=5), BankPlan(48), 32),
    )
}


def get_bench(name: str) -> Bench:
    """Return a bench by name. Raises :class:`UserError` when there is none."""
    if name not in BENCHES:
        raise UserError(f"bench '{name}' is unknown; use one of {', '.join(BENCHES)}")
    return BENCHES[name]


@dataclass(frozen=True)
class Prepared:
    """A bench with its bank trained: ``runs`` are whole trainings, the first the one that single scores explain."""

    bench: Bench
    bank: SubsetBank
    runs: tuple[TrainingRun, ...]
    tuning: Queries
    judging: Queries

    @property
    def ceiling(self) -> float:
        """The LDS of noiseless losses on the judging queries."""
        return ceiling(self.bank.losses[:, :, self.bank.columns(self.judging.tokens)])


def prepare(
    bench: Bench,
    folder: Path,
    *,
    runs: int = 1,
    workers: int = 1,
    encode: Callable[[Sequence[str]], np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Train what ``folder`` lacks of the bench's bank and of ``runs`` whole trainings.

    The bank lies in a folder named by its digest: other data or another recipe never meets an old bank. Raises
    :class:`UserError` when the bench's corpus is absent.
    """
    corpus = bench.corpus()
    made = bank_digest(corpus.documents, corpus.queries, bench.recipe, bench.plan)
    home = folder / f"{bench.name}-{made[:16]}"
    bank = train_bank(
        home, corpus.documents, corpus.queries, bench.recipe, bench.plan, workers=workers, progress=progress
    )
    whole = tuple(
        TrainingRun(
            documents=corpus.documents,
            checkpoints=train_run(
                home / f"run-{seed}", corpus.documents, bench.recipe, RUN_SEEDS + seed, bench.checkpoints
            ),
            texts=corpus.texts,
            encode=encode,
        )
        for seed in range(runs)
    )
    half = bench.tuning
    tuning = Queries(corpus.queries[:half], corpus.query_texts[:half])
    return Prepared(bench, bank, whole, tuning, Queries(corpus.queries[half:], corpus.query_texts[half:]))
