"""What a run read, step by step, and what it lost on the queries: the records that simulators are fitted to.

A training loop records, for every optimiser step, which documents it read and what share each had in the step's loss,
the learning rate, and the queries' losses after it (or after every few steps). A document's share is its predicted
tokens over the step's: 1/B for each of B documents of one length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow.errors import UserError
from winnow.identity import canonical_json

_PARTS = ("offsets", "documents", "shares", "rates", "losses")


@dataclass(frozen=True)
class Reading:
    """What T steps read: step t reads ``documents[offsets[t]:offsets[t + 1]]`` with ``shares`` of its loss.

    ``offsets`` int64 ``[T + 1]``, ``documents`` int64 ``[K]`` places in the corpus, ``shares`` float64 ``[K]``, 1 in
    all in each step; ``rates`` float64 ``[T]``: the learning rates, or ones where they are not known.
    """

    offsets: np.ndarray
    documents: np.ndarray
    shares: np.ndarray
    rates: np.ndarray

    def __post_init__(self) -> None:
        """Raise :class:`UserError` where the parts do not fit."""
        whole = len(self.offsets) == len(self.rates) + 1 and self.offsets[0] == 0
        if not whole or self.offsets[-1] != len(self.documents) or len(self.documents) != len(self.shares):
            raise UserError("reading: offsets, documents, shares and rates do not fit; record every step whole")

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return len(self.rates)

    def weights(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a step's documents int64 ``[B]`` and their weights float64 ``[B]``: share times learning rate."""
        part = slice(int(self.offsets[step]), int(self.offsets[step + 1]))
        return self.documents[part], self.shares[part] * self.rates[step]


@dataclass(frozen=True)
class RunRecord:
    """A run: what it read, and ``losses`` float64 ``[T + 1, Q]`` on the queries before the first step and after each.

    A row is NaN where the queries were not measured; the first and the last are.
    """

    reading: Reading
    losses: np.ndarray

    def __post_init__(self) -> None:
        """Raise :class:`UserError` where the losses do not fit the steps."""
        if len(self.losses) != self.reading.steps + 1:
            raise UserError(f"run: {len(self.losses)} rows of losses, {self.reading.steps} steps; record one row more")
        if not (np.isfinite(self.losses[0]).all() and np.isfinite(self.losses[-1]).all()):
            raise UserError("run: the queries must be measured before the first step and after the last")

    @property
    def measured(self) -> np.ndarray:
        """Int64: the rows at which every query was measured, ascending."""
        return np.flatnonzero(np.isfinite(self.losses).all(axis=1))


def read_batches(batches: Sequence[np.ndarray], rates: np.ndarray | None = None) -> Reading:
    """Return the reading of steps whose documents (int ``[B]`` each) count alike; ``rates`` None: ones."""
    sizes = np.array([len(batch) for batch in batches], dtype=np.int64)
    if not len(sizes) or sizes.min() < 1:
        raise UserError("reading: a step without documents; leave it out")
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    documents = np.concatenate(list(batches)).astype(np.int64)
    known = np.ones(len(sizes)) if rates is None else np.asarray(rates, dtype=np.float64)
    return Reading(offsets, documents, np.repeat(1.0 / sizes, sizes), known)


def read_manifest(
    documents: np.ndarray, tokens: np.ndarray, context: int, batch_windows: int, rates: np.ndarray | None = None
) -> Reading:
    """Return what training reads of a manifest: ``documents`` int ``[D]`` in its order, packed into windows.

    ``tokens`` int ``[N]``: the length of every document of the corpus, without the end-of-text token that packing adds
    (:func:`winnow.train.batches.pack`); a step reads ``batch_windows`` windows of ``context`` tokens. ``rates`` None:
    ones. Raises :class:`UserError` when ``rates`` are fewer than the steps.
    """
    documents = np.asarray(documents, dtype=np.int64)
    lengths = np.asarray(tokens, dtype=np.int64)[documents] + 1
    ends = np.cumsum(lengths)
    step_tokens = context * batch_windows
    steps = -(-int(ends[-1]) // step_tokens) if len(ends) else 0
    if steps == 0:
        raise UserError("the manifest has no documents; there is nothing to simulate")
    if rates is not None and len(rates) < steps:
        raise UserError(f"the manifest takes {steps} steps, learning rates are given for {len(rates)}; give them all")
    # Cut both at document ends and at step ends: each piece lies in one document and one step.
    cuts = np.unique(np.concatenate([[0], ends, np.arange(1, steps) * step_tokens]))
    cuts = cuts[cuts <= ends[-1]]
    owner = documents[np.searchsorted(ends, cuts[:-1], side="right")]
    step = cuts[:-1] // step_tokens
    sizes = np.diff(cuts).astype(np.float64)
    offsets = np.searchsorted(step, np.arange(steps + 1))
    totals = np.add.reduceat(sizes, offsets[:-1])
    known = np.ones(steps) if rates is None else np.asarray(rates[:steps], dtype=np.float64)
    return Reading(offsets.astype(np.int64), owner, sizes / totals[step], known)


@dataclass(frozen=True)
class Intervals:
    """A run's stretches between measurements: ``weights`` float64 ``[I, N]`` summed over their steps, ``before`` and
    ``after`` float64 ``[I, Q]``."""

    weights: np.ndarray
    before: np.ndarray
    after: np.ndarray


def intervals(run: RunRecord, count: int) -> Intervals:
    """Return the stretches of a run over a corpus of ``count`` documents; one a step where every step is measured."""
    rows = run.measured
    weights = step_weights(run.reading, count)
    summed = np.add.reduceat(weights, rows[:-1], axis=0)
    return Intervals(summed, run.losses[rows[:-1]], run.losses[rows[1:]])


def step_weights(reading: Reading, count: int) -> np.ndarray:
    """Return float64 ``[T, N]``: every document's share times learning rate in every step."""
    if len(reading.documents) and int(reading.documents.max()) >= count:
        raise UserError(f"the run read document {int(reading.documents.max())} of a corpus of {count}")
    weights = np.zeros((reading.steps, count))
    step = np.repeat(np.arange(reading.steps), np.diff(reading.offsets))
    np.add.at(weights, (step, reading.documents), reading.shares * reading.rates[step])
    return weights


def save_runs(path: Path, runs: Sequence[RunRecord]) -> None:
    """Write runs as one safetensors file."""
    from safetensors.numpy import save_file

    tensors = {}
    for place, run in enumerate(runs):
        reading = run.reading
        values = (reading.offsets, reading.documents, reading.shares, reading.rates, run.losses)
        for name, value in zip(_PARTS, values, strict=True):
            tensors[f"{place:06d}.{name}"] = np.ascontiguousarray(value)
    save_file(tensors, path, metadata={"runs": canonical_json(len(runs))})


def load_runs(path: Path) -> list[RunRecord]:
    """Read runs back. Raises :class:`UserError` when the file is none of :func:`save_runs`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            count = json.loads(file.metadata()["runs"])
            parts = [[file.get_tensor(f"{place:06d}.{name}") for name in _PARTS] for place in range(count)]
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: no file of recorded runs ({error}); record them again") from error
    return [RunRecord(Reading(*part[:-1]), part[-1]) for part in parts]
