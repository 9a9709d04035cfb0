r"""D4: SemDeDup, then the documents that are least typical of what is left.

    score(x) = 1 - cos(x, nearest new centroid)      for a document that SemDeDup keeps
    score(x) = t - max cos(x, earlier)               below 0, for one that it removes

What SemDeDup keeps (``kept``, 0.75 in the paper) is clustered anew; the paper drops the most prototypical documents,
those nearest to a centroid, until the budget is met: top-k of this score. Documents in clusters that were near
duplicates no longer pull a centroid, which is why it comes second (:func:`winnow.dedup.semantic.find_prototypes`).

Source: Tirumala et al. 2023, "D4: Improving LLM Pretraining via Document De-Duplication and Diversification"
(arXiv 2308.12284), section 3; Sorscher et al. 2022 (arXiv 2206.14486) for the prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from winnow.quality.scorers import Fitted, Scorer, semdedup
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext
from winnow.selection.options import option


@dataclass(frozen=True)
class Options(semdedup.Options):
    kept: float = option(0.75, 0.0, 1.0)


@dataclass(eq=False)
class FittedD4(Fitted):
    """The seed; all else needs the candidates themselves."""

    options: Options
    seed: int

    def _score(self, documents: Documents) -> Scored:
        from winnow.dedup.semantic import find_prototypes

        found, threshold = semdedup.compared(documents, self.options, self.seed)
        below = threshold - found.nearest_similarity
        own = np.arange(len(documents))
        found = replace(found, keeper=np.where(below < 0.0, found.nearest, own))
        _, distance = find_prototypes(found, 1.0, seed=self.seed)
        return Scored(np.where(below < 0.0, below, distance), (None,) * len(documents))


class D4(Scorer, name="d4", needs=("vectors",), whole=True):
    """Deduplication and diversification."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedD4:
        return FittedD4(self.options, context.seed)
