r"""Broken documents planted among sound ones: does self-influence (or any score) rank them first.

Three kinds, each a third of what is planted:

- ``garbled``: half of the tokens replaced by tokens drawn from the whole corpus;
- ``shuffled``: the document's own tokens in random order;
- ``mislabelled``: the second half exchanged for another document's, so what is predicted belongs to another beginning.

Which documents, and every draw, come from a hash of tokens and seed: the order of the documents changes nothing. A
self-influence g^T P g is large for what the model cannot fit from the rest, so a *high* score speaks for corruption;
compare it with the plain loss, which costs less. Source: Pruthi et al. 2020 (TracIn), section 4.1 (mislabelled
examples), Yeh et al. 2022 on which parameters to take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.attribution.batching import canonical_order, uniforms
from winnow.attribution.validation.intervals import auc, auc_interval
from winnow.attribution.validation.rows import Row, row
from winnow.errors import UserError

KINDS = ("garbled", "shuffled", "mislabelled")
SOUND = ""
LEAST_TOKENS = 8
"""Shorter documents are left alone: there is little to break."""


@dataclass(frozen=True)
class Planted:
    """The documents with some of them broken; ``kind`` str ``[N]``, :data:`SOUND` for those left alone."""

    documents: list[np.ndarray]
    kind: np.ndarray

    @property
    def corrupted(self) -> np.ndarray:
        """Bool ``[N]``."""
        return self.kind != SOUND


def plant(documents: Sequence[np.ndarray], share: float, seed: int = 0) -> Planted:
    """Break about ``share`` of the documents (token arrays int ``[n]``), a third in each way.

    Lengths change only for mislabelled documents. Raises :class:`UserError` when fewer than two documents a kind would
    be broken, or more than half of all.
    """
    order = np.array([p for p in canonical_order(documents, seed) if len(documents[p]) >= LEAST_TOKENS], dtype=np.int64)
    each = int(share * len(documents)) // len(KINDS)
    if each < 2 or each * len(KINDS) > min(len(order), len(documents) / 2):
        raise UserError(
            f"share {share} of {len(documents)} documents breaks {each} in each of {len(KINDS)} ways; "
            "break at least 2, and at most half of all documents"
        )
    pool = np.sort(np.concatenate([np.asarray(one) for one in documents]))  # sorted: no order of the documents left
    planted, kind = [np.asarray(one) for one in documents], np.full(len(documents), SOUND, dtype=object)
    for number, name in enumerate(KINDS):
        chosen = order[number * each : (number + 1) * each].tolist()
        for position, partner in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
            kind[position] = name
            planted[position] = _broken(name, documents[position], documents[partner], pool, seed)
    return Planted(planted, kind)


def _broken(kind: str, doc: np.ndarray, partner: np.ndarray, pool: np.ndarray, seed: int) -> np.ndarray:
    doc, half = np.asarray(doc), len(doc) // 2
    if kind == "mislabelled":
        return np.concatenate([doc[:half], np.asarray(partner)[len(partner) // 2 :]])
    draws = uniforms(doc, seed, 2 * len(doc)).reshape(2, -1)
    order = np.argsort(draws[0], kind="stable")
    if kind == "shuffled":
        return doc[order]
    garbled = doc.copy()
    garbled[order[:half]] = pool[(draws[1, :half] * len(pool)).astype(np.int64)]
    return garbled


@dataclass(frozen=True)
class Corruption:
    """How well a score ranks broken documents above sound ones.

    ``area[kind]``: area under the curve against all sound documents, ``any`` for all kinds together, and its 95%
    interval; ``precision``: share of broken documents among as many of the highest scores as were broken; ``excluded``
    have no score.
    """

    method: str
    area: dict[str, float]
    interval: dict[str, tuple[float, float]]
    planted: dict[str, int]
    precision: float
    excluded: int

    def to_rows(self) -> list[Row]:
        rows = [
            row(
                "corruption",
                self.method,
                "auc",
                self.area[kind],
                self.interval[kind],
                at=kind,
                count=self.planted[kind],
            )
            for kind in self.area
        ]
        return [*rows, row("corruption", self.method, "precision", self.precision, count=self.planted["any"])]


def corruption(method: str, scores: np.ndarray, kind: np.ndarray, seed: int = 0) -> Corruption:
    """Judge float ``[N]`` scores, high = broken, against the ``kind`` of each document (:class:`Planted`).

    Raises :class:`UserError` when there is no broken or no sound document with a score.
    """
    if scores.shape != kind.shape:
        raise UserError(f"scores by {method} {scores.shape} and kinds {kind.shape}: one of each a document")
    known = np.isfinite(scores)
    sound = scores[known & (kind == SOUND)]
    groups = {"any": scores[known & (kind != SOUND)]}
    groups |= {name: scores[known & (kind == name)] for name in sorted(set(kind[known].tolist()) - {SOUND})}
    broken = groups["any"]
    if not len(sound) or not len(broken):
        raise UserError(f"{len(broken)} broken and {len(sound)} sound documents have a score by {method}; plant some")
    # Ties at the border are shared out evenly, whatever the order of the documents.
    border = np.sort(np.concatenate([sound, broken]))[-len(broken)]
    above, at = int((broken > border).sum()), int((broken == border).sum())
    places = len(broken) - above - int((sound > border).sum())
    tied = at + int((sound == border).sum())
    return Corruption(
        method,
        {name: auc(values, sound) for name, values in groups.items()},
        {name: auc_interval(values, sound, seed) for name, values in groups.items()},
        {name: len(values) for name, values in groups.items()},
        (above + places * at / tied) / len(broken),
        int((~known).sum()),
    )
