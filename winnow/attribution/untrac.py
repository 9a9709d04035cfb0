r"""UnTrac: unlearn a document or a whole source by gradient ascent, and see what the model no longer knows.

    I(Z, q) = L(q | theta - Z) - L(q | theta)        **positive = helpful**

where theta - Z is the model after ``steps`` ascending steps on the documents of Z. What unlearning Z does to q is
measured and not approximated to first order. The inverse form unlearns the *query* and measures the documents: one
unlearning and one pass over the documents a query, whatever their number.

The steps divide by the root of AdamW's second moment as training did (the checkpoint's, where it was kept); momentum
and weight decay are left out, for they belong to no document. Source: Isonuma and Titov 2024 (UnTrac), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import AdamW
from winnow.attribution.batching import Batch, canonical_order, check_documents
from winnow.attribution.capture import vocabulary_size
from winnow.attribution.scores import Progress
from winnow.attribution.stepping import Steps, document_losses, in_batches
from winnow.errors import UserError

if TYPE_CHECKING:
    from torch import nn


class Unlearner:
    """Unlearns documents from one checkpoint, and measures others.

    ``optimizer``: the run's; ``state`` maps a parameter name to its exp_avg_sq and step (absent: zeros); ``steps``
    ascending steps on ``batch`` documents each.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: AdamW,
        state: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        steps: int = 1,
        batch: int = 1,
    ) -> None:
        self.model, self.count, self.batch = model, steps, batch
        still = {
            name: {key: value for key, value in entry.items() if key != "exp_avg"}
            for name, entry in (state or {}).items()
        }
        self._steps = Steps(model, replace(optimizer, betas=(0.0, optimizer.betas[1]), weight_decay=0.0), still)

    def influence(
        self,
        sets: Sequence[Sequence[np.ndarray]],
        measured: Sequence[np.ndarray],
        seed: int = 0,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return float64 ``[len(sets), len(measured)]``: by how much unlearning each set raises each document's loss.

        Documents are int ``[n]``. A set is unlearnt in an order that hashes its documents' tokens with the seed, again
        from its beginning where it has fewer than ``steps * batch``: sets of any size take as many steps. NaN for a set
        without documents of two tokens, or where a loss or gradient is not finite.
        """
        everything = [*measured, *(doc for docs in sets for doc in docs)]
        check_documents(everything, vocabulary_size(self.model))
        batched = in_batches(measured, self._steps.context)
        result = np.full((len(sets), len(measured)), np.nan)
        with self._steps.running():
            before = document_losses(self.model, batched, len(measured))
            for row, docs in enumerate(sets):
                result[row] = self._unlearnt(docs, batched, len(measured), seed) - before
                if progress is not None:
                    progress(row + 1, len(sets))
        return np.where(np.isfinite(result), result, np.nan)

    def _unlearnt(self, docs: Sequence[np.ndarray], batched: Sequence[Batch], count: int, seed: int) -> np.ndarray:
        """Return the losses of the measured documents after unlearning, float64 ``[count]``."""
        usable = [docs[place] for place in canonical_order(docs, seed) if len(docs[place]) >= 2]
        if not usable:
            return np.full(count, np.nan)
        self._steps.rewind()
        for step in range(self.count):
            places = [(step * self.batch + place) % len(usable) for place in range(min(self.batch, len(usable)))]
            loss = self._steps.differentiate([usable[place] for place in places])
            if not (np.isfinite(loss) and self._steps.gradient_is_finite):
                return np.full(count, np.nan)
            self._steps.step(ascend=True)
        return document_losses(self.model, batched, count)


@dataclass(frozen=True)
class SourceInfluence:
    """``influence`` float64 ``[S, Q]`` of the sources ``names`` on the queries, positive = helpful."""

    names: tuple[str, ...]
    influence: np.ndarray

    @property
    def ranking(self) -> tuple[str, ...]:
        """The sources, the most helpful on average first."""
        mean = self.influence.mean(axis=1)
        return tuple(self.names[row] for row in sorted(range(len(self.names)), key=lambda row: -mean[row]))


def source_influence(
    unlearner: Unlearner, sources: Mapping[str, Sequence[np.ndarray]], queries: Sequence[np.ndarray], seed: int = 0
) -> SourceInfluence:
    """Return what every source (its documents, or a sample of them) does for every query.

    Raises :class:`UserError` when there are no sources, or one has no document of two or more tokens.
    """
    if not sources:
        raise UserError("no sources to unlearn; give documents by source")
    for name, docs in sources.items():
        if not any(len(doc) >= 2 for doc in docs):
            raise UserError(f"source '{name}' has no document of two or more tokens; leave it out")
    names = tuple(sorted(sources))
    return SourceInfluence(names, unlearner.influence([sources[name] for name in names], queries, seed))
