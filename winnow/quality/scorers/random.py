"""Chance: a seeded hash of the document's id, uniform in [0, 1); what every scorer must beat at the same budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.identity import seeded_keys
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext
from winnow.selection.options import NoOptions


@dataclass(eq=False)
class FittedRandom(Fitted):
    """The seed, and what tells this use of it from others."""

    seed: int
    salt: str

    def _score(self, documents: Documents) -> Scored:
        return Scored(uniforms(documents.doc_ids, self.seed, self.salt), (None,) * len(documents))


class Random(Scorer, name="random"):
    """The same document has the same score wherever it stands."""

    Options = NoOptions

    def _fit(self, context: ScorerContext) -> FittedRandom:
        return FittedRandom(context.seed, "random")


def uniforms(ids: np.ndarray, seed: int, salt: str) -> np.ndarray:
    """Return float64 ``[N]`` in [0, 1) by the id (uint8 ``[N, 16]``), the seed and a salt alone."""
    return (seeded_keys(ids, seed, f"scorer:{salt}") >> np.uint64(11)) * 2.0**-53
