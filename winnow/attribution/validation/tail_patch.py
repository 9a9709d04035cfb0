r"""Tail-patch: from the final checkpoint, does one training step on a document found raise the answer's probability.

For query q with an answer (a span of its tokens), documents i_1..i_k of highest score, and p_i the model's probability
of the answer after one optimiser step on document i alone,

    tail-patch(q) = mean over its k documents of (p_i - p_0),

p_0 after the same step with a zero gradient, so that momentum and weight decay, alike for every document, are not
counted as an effect of it. Probabilities of small models are tiny; the change of the answer's log-probability a token
(nats) is reported beside. As many documents drawn at random are always measured too.

Source: Chang et al. 2024 (TrackStar), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import Batch
from winnow.attribution.stepping import Steps, document_losses, in_batches
from winnow.attribution.validation.intervals import mean_interval
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.adamw import AdamW

RANDOM = "random documents"

Patch = Callable[[int, np.ndarray], np.ndarray]
"""``patch(document, queries)``: float64 ``[len(queries), 2]``, the change of the answers' probability and of their
log-probability a token after one step on a document; NaN when the document cannot be stepped on."""


@dataclass(frozen=True)
class TailPatch:
    """``probability``, ``log_probability`` float64 ``[Q]``: mean change over each query's ``depth`` documents."""

    method: str
    depth: int
    probability: np.ndarray
    log_probability: np.ndarray
    seed: int = 0

    def to_rows(self) -> list[Row]:
        at, queries = f"k={self.depth}", len(self.probability)
        measures = {"probability": self.probability, "log_probability": self.log_probability}
        return [
            row("tail_patch", self.method, name, float(v.mean()), mean_interval(v, self.seed), at=at, count=queries)
            for name, v in measures.items()
        ]


def tail_patch(
    scores: Mapping[str, np.ndarray], patch: Patch, ids: np.ndarray, *, depth: int = 5, seed: int = 0
) -> list[TailPatch]:
    """Patch with the ``depth`` documents of highest score for each query, for every method and for random ones.

    ``scores`` float ``[Q, N]`` by method, NaN last; ``ids`` uint8 ``[N, 16]`` break ties and, with ``seed``, draw the
    random documents. ``patch`` is called once a document. Raises :class:`UserError` for unlike shapes.
    """
    keys = ids_as_keys(ids)
    chosen: dict[str, np.ndarray] = {}
    for name, values in scores.items():
        if values.ndim != 2 or values.shape[1] != len(ids):
            raise UserError(f"scores by {name}: shape {values.shape}, expected [queries, {len(ids)} documents]")
        filled = -np.where(np.isfinite(values), values, -np.inf)
        chosen[name] = np.stack([np.lexsort((keys["low"], keys["high"], one))[:depth] for one in filled])
    queries = len(next(iter(chosen.values())))
    drawn = [np.argsort(seeded_keys(ids, seed, f"tail-patch-{q}"), kind="stable")[:depth] for q in range(queries)]
    chosen[RANDOM] = np.stack(drawn)
    wanted: dict[int, set[int]] = {}
    for picks in chosen.values():
        for query, documents in enumerate(picks.tolist()):
            for document in documents:
                wanted.setdefault(document, set()).add(query)
    changes: dict[tuple[int, int], np.ndarray] = {}
    for document in sorted(wanted):
        asked = np.array(sorted(wanted[document]), dtype=np.int64)
        for query, change in zip(asked.tolist(), patch(document, asked), strict=True):
            changes[query, document] = change
    results = []
    for name, picks in chosen.items():
        found = np.array([[changes[query, one] for one in documents] for query, documents in enumerate(picks.tolist())])
        means = np.nanmean(found, axis=1)
        results.append(TailPatch(name, depth, means[:, 0], means[:, 1], seed))
    return results


@contextmanager
def patching(
    model: nn.Module,
    optimizer: AdamW,
    state: Mapping[str, Mapping[str, Any]] | None,
    documents: Sequence[np.ndarray],
    queries: Sequence[np.ndarray],
    answers: Sequence[tuple[int, int]],
) -> Iterator[Patch]:
    """Yield the :data:`Patch` of a model at a checkpoint, with its optimiser's settings and state.

    ``documents`` and ``queries`` are token arrays; ``answers[q] = (start, stop)``: the answer's tokens are
    ``queries[q][start:stop]``. Raises :class:`UserError` for an answer that the model does not predict (a first token,
    or beyond the context).
    """
    steps = Steps(model, optimizer, state)
    for number, (start, stop) in enumerate(answers):
        if not 1 <= start < stop <= min(len(queries[number]), steps.context):
            raise UserError(
                f"query {number}: its answer is at tokens {start} to {stop}, of which the model predicts 1 to "
                f"{min(len(queries[number]), steps.context)}; shorten the text before the answer"
            )
    with steps.running():
        patch = _AnswerPatch(steps, documents, queries, answers)
        patch.start()
        yield patch


class _AnswerPatch:
    def __init__(
        self,
        steps: Steps,
        documents: Sequence[np.ndarray],
        queries: Sequence[np.ndarray],
        answers: Sequence[tuple[int, int]],
    ) -> None:
        self.steps, self.documents, self.queries, self.answers = steps, documents, queries, answers
        self._drifted = np.empty(0)

    def start(self) -> None:
        """Measure every answer after a step without a gradient."""
        self.steps.set_gradients({})
        self.steps.step()
        self._drifted = self._log_probabilities(np.arange(len(self.queries)))
        self.steps.rewind()

    def __call__(self, document: int, queries: np.ndarray) -> np.ndarray:
        doc = self.documents[document]
        changes = np.full((len(queries), 2), np.nan)
        if len(doc) < 2 or not np.isfinite(self.steps.differentiate([doc])) or not self.steps.gradient_is_finite:
            return changes
        self.steps.step()
        after, before = self._log_probabilities(queries), self._drifted[queries]
        self.steps.rewind()
        lengths = np.array([self.answers[query][1] - self.answers[query][0] for query in queries.tolist()])
        return np.stack([np.exp(after) - np.exp(before), (after - before) / lengths], axis=1)

    def _log_probabilities(self, queries: np.ndarray) -> np.ndarray:
        texts = [self.queries[query] for query in queries.tolist()]
        batched = [self._on_answers(batch, queries) for batch in in_batches(texts, self.steps.context)]
        return -document_losses(self.steps.model, batched, len(queries))

    def _on_answers(self, batch: Batch, queries: np.ndarray) -> Batch:
        """Weigh the answers' tokens with one, all others with zero; position t predicts token t + 1."""
        weights = np.zeros_like(batch.weights)
        for place, index in enumerate(batch.rows.tolist()):
            start, stop = self.answers[int(queries[index])]
            weights[place, start - 1 : stop - 1] = 1.0
        return replace(batch, weights=weights)
