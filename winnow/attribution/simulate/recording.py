"""Training small models on chosen documents while recording what a simulator learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.attribution.retraining import Recipe, losses, one_thread
from winnow.attribution.simulate.runs import RunRecord, read_batches
from winnow.train.batches import PADDING
from winnow.train.loop import learning_rate, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def record_run(
    recipe: Recipe,
    documents: Sequence[np.ndarray],
    members: np.ndarray,
    queries: Sequence[np.ndarray],
    *,
    order: int,
    seed: int = 0,
    every: int = 1,
) -> RunRecord:
    """Train a model on ``documents[members]`` (token arrays) and return its record, places in ``documents``.

    ``seed`` draws the initial weights, ``order`` the order of each epoch (hashed with the documents' tokens). The
    queries are measured before the first step, after every ``every`` steps and after the last. A simulator knows one
    initial state only: give all runs that it is fitted to the same ``seed``.
    """
    members = np.sort(np.asarray(members, dtype=np.int64))
    chosen = [documents[member] for member in members]
    epochs = [canonical_order(chosen, seed=(order << 16) + epoch) for epoch in range(recipe.epochs)]
    places = np.concatenate(epochs)
    windows = np.full((len(chosen), recipe.context), PADDING, dtype=np.int32)
    for row, document in enumerate(chosen):
        cut = document[: recipe.context]
        windows[row, : len(cut)] = cut
    settings = recipe.settings(len(chosen))
    steps = -(-len(places) // recipe.batch)
    measured: list[np.ndarray] = []

    def measure(model: PreTrainedModel) -> float:
        due = len(measured) % every == 0 or len(measured) == steps
        measured.append(losses(model, queries, recipe.context) if due else np.full(len(queries), np.nan))
        return float(measured[-1].mean())

    with one_thread():
        train(recipe.build(seed), windows[places], settings, evaluate=measure, eval_every_tokens=1)
    rates = np.array([learning_rate(settings, step, settings.total_steps or steps) for step in range(steps)])
    batches = [members[places[start : start + recipe.batch]] for start in range(0, len(places), recipe.batch)]
    return RunRecord(read_batches(batches, rates), np.array(measured))
