r"""RDS+: documents that the model in training represents as it does reference items.

    s(q, x) = cos(h_q, h_x),    h = sum over positions t of t h_t / sum of t        (last hidden states)

``aggregate = "round_robin"``, as in the paper: the items take turns, each takes the document it likes best, until there
are enough. A document comes in the round r(x) = min_q rank_q(x) in which some item first likes it best of what is left
to that item, so the score is minus the place of (r(x), the item's place): top-k of it is the paper's selection. In the
released code too an item whose best document is already taken loses its turn. ``max`` and ``mean`` over the items need
no ranks, hence not the whole pool; one item that is like much of the pool then gets all.

Padding does not count here (in the released code ``weighted_mean`` runs over it), and a document without two tokens has
no score. Source: Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning" (arXiv 2503.01807), section 3
and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.errors import UserError
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option

if TYPE_CHECKING:
    from torch import nn

BATCH = 8_192
ITEMS = 64  # reference items compared at a time
BLOCK = 512  # rows of one product: fixed, so that a document's rounding does not depend on the others


@dataclass(frozen=True)
class Options:
    aggregate: str = option("round_robin", choices=("round_robin", "max", "mean"))
    position_weighted: bool = option(True)


@dataclass(eq=False)
class FittedRdsPlus(Fitted):
    """``reference`` float64 ``[Q, H]``: the items' unit vectors in the order of their ids."""

    model: nn.Module
    options: Options
    reference: np.ndarray
    flops: float = 0.0

    def _score(self, documents: Documents) -> Scored:
        vectors, flops = _represent(self.model, documents, self.options.position_weighted, self.reference.shape[1])
        blocks = (
            similarities(self.reference[start : start + ITEMS], vectors)
            for start in range(0, len(self.reference), ITEMS)
        )
        if self.options.aggregate == "round_robin":
            values = round_robin(blocks, len(self.reference), documents.by_id())
        else:
            largest, total = np.full(len(vectors), -np.inf), np.zeros(len(vectors))
            for similarity in blocks:
                for row in similarity:
                    np.maximum(largest, row, out=largest)
                    total += row
            values = largest if self.options.aggregate == "max" else total / len(self.reference)
        return with_reason(values, "it has no finite hidden state", flops)


class RdsPlus(Scorer, name="rds_plus", needs=("tokens", "reference", "model")):
    """Weighted mean of hidden states; items take turns."""

    Options = Options

    @property
    def whole(self) -> bool:
        return self.options.aggregate == "round_robin"

    def _fit(self, context: ScorerContext) -> FittedRdsPlus:
        assert context.reference is not None
        model = context.checkpoints[-1].load()
        vectors, flops = _represent(model, context.reference, self.options.position_weighted)
        vectors = vectors[context.reference.by_id()]
        known = vectors[np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)]
        if not len(known):
            raise UserError("scorer 'rds_plus': no reference item has two tokens and finite hidden states; check them")
        return FittedRdsPlus(model, self.options, known, flops)


def similarities(reference: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the cosines float32 ``[Q, N]`` of unit vectors; NaN for a document whose vector is not finite."""
    found = np.empty((len(reference), len(vectors)), dtype=np.float32)
    block = np.zeros((BLOCK, reference.shape[1]))
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        block[: len(rows)] = rows
        found[:, start : start + BLOCK] = (reference @ block.T)[:, : len(rows)]
    return found


def round_robin(blocks: Iterable[np.ndarray], items: int, tie_order: np.ndarray) -> np.ndarray:
    """Return minus the turn in which each of N documents is taken, float64 ``[N]``; NaN where a cosine is not a number.

    ``blocks``: similarities ``[q, N]`` of the ``items`` items, in the order of their turns; ``tie_order`` int64
    ``[N]``: the documents in the order in which equal ones are preferred. Turn r Q + q is item q's r-th.
    """
    first = np.full(len(tie_order), np.inf)
    item = 0
    for block in blocks:
        for row in block:
            order = tie_order[np.argsort(-row[tie_order], kind="stable")]
            order = order[np.isfinite(row[order])]
            first[order] = np.minimum(first[order], np.arange(len(order)) * float(items) + item)
            item += 1
    return np.where(np.isfinite(first), -first, np.nan)


def _represent(model: nn.Module, documents: Documents, weighted: bool, width: int = 0) -> tuple[np.ndarray, float]:
    """Return unit vectors float64 ``[N, H]``, NaN where there is none, and the operations spent; H >= ``width``."""
    from winnow.attribution.batching import tokens_used
    from winnow.attribution.capture import context_length
    from winnow.attribution.estimators.hidden_state import represent

    parts, positions = [], 0
    for _, tokens in documents.batches("tokens", BATCH):
        parts.append(represent(model, tokens, weighted))
        positions += int(tokens_used(tokens, context_length(model)).sum())
    width = max([width, *(part.shape[1] for part in parts)])  # no columns where no document has a vector
    parts = [part if part.shape[1] == width else np.full((len(part), width), np.nan) for part in parts]
    vectors = np.concatenate(parts) if parts else np.zeros((0, width))
    return vectors, 2.0 * positions * sum(parameter.numel() for parameter in model.parameters())
