"""What a term of a preset says of documents: a scorer, the one-step oracle, or an influence model fitted to probes.

All are fitted to the selecting part of a target at one checkpoint and give float64 values, **larger = rather take it**;
NaN where a document cannot be measured. What fitting and measuring cost is noted as it is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from winnow.attribution.run import RunCheckpoint
from winnow.errors import UserError
from winnow.identity import seeded_keys
from winnow.lab.pool import LabPool
from winnow.lab.targets import Target
from winnow.presets import ScoreTerm
from winnow.quality.scorers import ScorerContext, make_scorer, scorer_names
from winnow.selection.options import option, read_options

SAMPLE = 4096
"""Documents of the pool that scorers learn from, drawn by seeded hash."""

Measure = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Cost:
    """What a step of a choice spent: ``flops`` of a model's passes (``embed``: the encoder's), ``seconds``, on how many
    ``documents``; ``at_tokens``: how far training was."""

    step: str
    flops: float
    seconds: float
    documents: int
    at_tokens: int = 0


@dataclass(frozen=True, eq=False)
class World:
    """What a choice looks at: ``available`` bool ``[N]`` of the pool, one target, the checkpoints of the run so far.

    ``measured`` keeps a term's values once they are known of the whole pool: one score serves several uses.
    """

    pool: LabPool
    target: Target
    checkpoints: tuple[RunCheckpoint, ...]
    available: np.ndarray
    seed: int
    costs: list[Cost] = field(default_factory=list)
    measured: dict[str, np.ndarray] = field(default_factory=dict)

    @contextmanager
    def spending(self, step: str, documents: int) -> Iterator[Callable[[float], None]]:
        """Note what the block costs; it is handed a function that takes the operations spent."""
        flops, start = [0.0], time.perf_counter()

        def spend(more: float) -> None:
            flops[0] += more

        yield spend
        self.costs.append(Cost(step, flops[0], time.perf_counter() - start, documents))

    @property
    def candidates(self) -> np.ndarray:
        """Positions of the available documents, int64."""
        return np.flatnonzero(self.available)

    def draw(self, count: int, salt: str) -> np.ndarray:
        """Return up to ``count`` available positions, drawn by seeded hash, sorted; int64."""
        rows = self.candidates
        keys = seeded_keys(self.pool.doc_ids[rows], self.seed, salt)
        return np.sort(rows[np.argsort(keys, kind="stable")[:count]])


@dataclass(frozen=True)
class OracleOptions:
    """Of a term ``oracle``: how many tokens of the selecting part a probe measures."""

    reference_tokens: int = option(4000, 2)


@dataclass(frozen=True)
class ModelOptions:
    """Of a term ``influence_model``: how many documents are probed, how, and what is fitted to them."""

    probes: int = option(600, 30)
    measure: str = option("oracle", choices=("oracle", "gradient"))
    surrogate: str = option("ridge", choices=("ridge", "mlp", "trees"))
    reference_tokens: int = option(4000, 2)


def measure_names() -> tuple[str, ...]:
    """Return the names that a term may have, sorted."""
    return tuple(sorted({*scorer_names(), "oracle", "influence_model"}))


def fit_measure(world: World, term: ScoreTerm) -> Measure:
    """Return the function from positions to values, untransformed. Raises :class:`UserError` for an unknown term."""
    if term.scorer == "oracle":
        return _oracle(world, read_options("measure 'oracle'", OracleOptions, term.options).reference_tokens)
    if term.scorer == "influence_model":
        return _influence_model(world, read_options("measure 'influence_model'", ModelOptions, term.options))
    if term.scorer not in scorer_names():
        raise UserError(f"preset: no measure '{term.scorer}'; choose one of {', '.join(measure_names())}")
    return _scorer(world, term)


def values_of(world: World, term: ScoreTerm) -> np.ndarray:
    """Return a term's values of all available documents, float64 ``[N]``, NaN elsewhere; kept for the next use."""
    key = repr((term.scorer, sorted(term.options.items())))
    if key not in world.measured:
        values = np.full(len(world.pool), np.nan)
        values[world.candidates] = fit_measure(world, term)(world.candidates)
        world.measured[key] = values
    return world.measured[key]


def _scorer(world: World, term: ScoreTerm) -> Measure:
    scorer = make_scorer(term.scorer, term.options)
    needs = scorer.needs
    sample = world.pool.documents(world.draw(SAMPLE, "lab:sample")) if "sample" in needs else None
    context = ScorerContext(world.target.documents(), sample, world.checkpoints, None, world.seed)
    with world.spending(f"fit {term.scorer}", 0 if sample is None else len(sample)) as spend:
        fitted = scorer.fit(context)
        spend(fitted.flops)

    def measure(positions: np.ndarray) -> np.ndarray:
        with world.spending(f"score {term.scorer}", len(positions)) as spend:
            scored = fitted.score(world.pool.documents(positions))
            spend(scored.flops)
        return scored.values

    return measure


def _oracle(world: World, reference_tokens: int) -> Measure:
    from winnow.attribution.oracle import OneStepOracle

    checkpoint = world.checkpoints[-1]
    if checkpoint.adamw is None:
        raise UserError("measure 'oracle' needs the optimiser's settings: give a checkpoint that recorded them")
    with world.spending("fit oracle", 0):
        oracle = OneStepOracle(
            checkpoint.load(),
            list(world.target.selecting_tokens),
            checkpoint.adamw,
            checkpoint.optimizer,
            reference_tokens=reference_tokens,
            seed=world.seed,
        )

    def measure(positions: np.ndarray) -> np.ndarray:
        with world.spending("probe oracle", len(positions)) as spend:
            scores = oracle.probe(list(world.pool.tokens[positions]))
            spend(scores.flops)
        return scores.influence

    return measure


def _influence_model(world: World, options: ModelOptions) -> Measure:
    from winnow.attribution.surrogates import make_surrogate
    from winnow.attribution.surrogates.model import fit_influence_model

    pool = world.pool
    if pool.vectors is None:
        raise UserError("measure 'influence_model' needs the documents' vectors: embed the pool")
    chosen: Any = ScoreTerm("oracle", {"reference_tokens": options.reference_tokens})
    if options.measure == "gradient":
        chosen = ScoreTerm("gradient")
    probes = world.draw(options.probes, "lab:probes")
    labels = fit_measure(world, chosen)(probes)
    with world.spending("fit influence_model", len(probes)):
        model = fit_influence_model(
            pool.doc_ids[probes],
            pool.vectors[probes],
            None,
            labels,
            surrogate=make_surrogate(options.surrogate, seed=world.seed),
        )
    vectors = pool.vectors

    def measure(positions: np.ndarray) -> np.ndarray:
        with world.spending("score influence_model", len(positions)):
            return model.predict(vectors[positions])

    return measure
