"""Length: a document's tokens; ``sign = "short"`` prefers short ones. What a score must beat that only counts words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext
from winnow.selection.options import option


@dataclass(frozen=True)
class Options:
    sign: str = option("long", choices=("long", "short"))


@dataclass(eq=False)
class FittedLength(Fitted):
    """``sign`` 1 or -1."""

    sign: float

    def _score(self, documents: Documents) -> Scored:
        values = np.empty(len(documents))
        for place, tokens in documents.batches("tokens"):
            values[place] = [self.sign * len(document) for document in tokens]
        return Scored(values, (None,) * len(values))


class Length(Scorer, name="length", needs=("tokens",)):
    """The longer, the better, or the reverse."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedLength:
        return FittedLength(1.0 if self.options.sign == "long" else -1.0)
