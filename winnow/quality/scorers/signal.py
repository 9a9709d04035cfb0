"""A signal as a score: one column of the documents' signals (:mod:`winnow.quality.signals`), either way round.

Its use is beside other scorers, in ranks or z-scores; no single signal is a measure of quality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option


@dataclass(frozen=True)
class Options:
    column: str = option("unigram_entropy")
    sign: str = option("high", choices=("high", "low"))


@dataclass(eq=False)
class FittedSignal(Fitted):
    """The column and which end of it is preferred."""

    options: Options

    def _score(self, documents: Documents) -> Scored:
        values = np.empty(len(documents))
        column = self.options.column
        for place, signals in documents.batches("signals"):
            if column not in signals.column_names:
                raise UserError(f"scorer 'signal': no signal '{column}'; there are {', '.join(signals.column_names)}")
            found = signals[column].cast(pa.float64()).to_numpy()
            values[place] = found if self.options.sign == "high" else -found
        return with_reason(values, f"it has no {column}")


class Signal(Scorer, name="signal", needs=("signals",)):
    """The higher, the better, or the reverse."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedSignal:
        return FittedSignal(self.options)
