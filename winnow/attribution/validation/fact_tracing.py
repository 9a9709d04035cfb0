r"""Fact tracing: does a method rank highest the documents that state the fact it was asked about.

A query is a fact as a sentence; its truth are the documents that state it, by a string proxy: the object stands in the
text as whole words, and so does the subject (or the document's title is the subject). Precision@k, recall@k and the
mean reciprocal rank of the first stating document follow. Ties are ranked against the method (documents that do not
state the fact first), so a score that says nothing gains nothing.

What a model learnt a fact from is not the same as where the fact stands, so BM25 is the mandatory companion: it has
beaten gradient methods here, at every scale published. Sources: Akyürek et al. 2022, "Towards tracing factual knowledge
in language models back to the training data", section 3; Chang et al. 2024 (TrackStar), section 5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.validation.intervals import mean_interval
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError

DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Fact:
    """A fact: ``text`` states it in a sentence; ``subject`` and ``object`` are the strings a stating document has."""

    subject: str
    object: str
    text: str


@dataclass(frozen=True)
class FactTracing:
    """``reciprocal_rank``, ``precision[k]``, ``recall[k]``: float64 ``[F]`` per fact, with means and intervals in rows.

    ``facts`` have at least one stating document; ``skipped`` have none and count nowhere.
    """

    method: str
    reciprocal_rank: np.ndarray
    precision: dict[int, np.ndarray]
    recall: dict[int, np.ndarray]
    skipped: int
    seed: int = 0

    @property
    def facts(self) -> int:
        return len(self.reciprocal_rank)

    @property
    def mrr(self) -> float:
        """The mean reciprocal rank."""
        return float(self.reciprocal_rank.mean())

    def to_rows(self) -> list[Row]:
        return [
            self._row("mrr", self.reciprocal_rank),
            *(self._row("precision", values, f"k={k}") for k, values in self.precision.items()),
            *(self._row("recall", values, f"k={k}") for k, values in self.recall.items()),
        ]

    def _row(self, measure: str, values: np.ndarray, at: str = "") -> Row:
        interval = mean_interval(values, self.seed)
        return row("fact_tracing", self.method, measure, float(values.mean()), interval, at=at, count=self.facts)


def fact_tracing(
    method: str, scores: np.ndarray, states: np.ndarray, *, depths: Sequence[int] = DEPTHS, seed: int = 0
) -> FactTracing:
    """Measure float ``[F, N]`` scores of N documents on F facts against bool ``[F, N]``: the document states the fact.

    Documents without a score are ranked last. Raises :class:`UserError` for unlike shapes, or when no fact is stated.
    """
    if scores.shape != states.shape:
        raise UserError(
            f"scores by {method} {scores.shape} and stated facts {states.shape}: must be [facts, documents]"
        )
    stated = states.any(axis=1)
    if not stated.any():
        raise UserError(
            "no document states any of the facts; give the facts' own documents among the training documents"
        )
    values, truth = np.where(np.isfinite(scores), scores, -np.inf)[stated], states[stated]
    order = np.stack([np.lexsort((hit, -value)) for hit, value in zip(truth, values, strict=True)])
    hits = np.take_along_axis(truth, order, axis=1)
    found = hits.cumsum(axis=1)
    depths = [depth for depth in depths if depth <= scores.shape[1]]
    return FactTracing(
        method,
        1.0 / (1.0 + hits.argmax(axis=1)),
        {depth: found[:, depth - 1] / depth for depth in depths},
        {depth: found[:, depth - 1] / truth.sum(axis=1) for depth in depths},
        int((~stated).sum()),
        seed,
    )


def states_fact(facts: Sequence[Fact], texts: Sequence[str], titles: Sequence[str | None] | None = None) -> np.ndarray:
    """Return bool ``[F, N]``: the text holds the object, and the subject or else a title that is the subject.

    Strings are sought as whole words, with their case. A document cut into passages passes its title for each.
    """
    found = np.zeros((len(facts), len(texts)), dtype=bool)
    holding: dict[str, np.ndarray] = {}
    for string in sorted({one.subject for one in facts} | {one.object for one in facts}):
        holding[string] = _holding(string, texts)
    named = np.array(list(titles), dtype=object) if titles is not None else np.full(len(texts), None, dtype=object)
    for index, fact in enumerate(facts):
        found[index] = holding[fact.object] & (holding[fact.subject] | (named == fact.subject))
    return found


def _holding(string: str, texts: Sequence[str]) -> np.ndarray:
    if not string.strip():
        raise UserError("a fact has an empty subject or object; give both")
    whole = re.compile(rf"(?<!\w){re.escape(string)}(?!\w)")
    return np.fromiter(
        (string in text and whole.search(text) is not None for text in texts), dtype=bool, count=len(texts)
    )
