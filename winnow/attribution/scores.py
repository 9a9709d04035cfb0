"""What a measurement of documents returns, with the documents that could not be measured named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

TOO_SHORT = "fewer than two tokens: nothing to predict"
LOSS_NOT_FINITE = "the document's loss is not finite"
GRADIENT_NOT_FINITE = "the document's gradient is not finite"
INFLUENCE_NOT_FINITE = "the influence is not finite"

Progress = Callable[[int, int], None]
"""Called with (documents done, documents in all) after every batch."""


@dataclass(frozen=True)
class Scores:
    """Influence of N documents at one checkpoint on one reference; **positive = helpful**.

    ``influence`` float64 ``[N]``, NaN where there is none, and then ``reason[i]`` says why (else None); ``loss``
    float64 ``[N]``: the document's mean token loss in nats before any step (may be NaN); ``tokens`` int64 ``[N]``:
    tokens used; ``truncated`` bool ``[N]``: the document was longer than the model's context, only its first window
    counts; ``flops``: floating-point operations spent, estimated from parameters and padded tokens.
    """

    influence: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray
    reason: tuple[str | None, ...]
    flops: float = 0.0

    def __len__(self) -> int:
        return len(self.influence)

    @property
    def valid(self) -> np.ndarray:
        """Bool ``[N]``: the document has an influence."""
        return np.isfinite(self.influence)

    def excluded(self) -> dict[str, int]:
        """Return how many documents have no influence, by reason."""
        found = [reason for reason in self.reason if reason is not None]
        return {reason: found.count(reason) for reason in sorted(set(found))}

    def to_arrow(self) -> pa.Table:
        """Return the columns influence, loss (null where not finite), tokens, truncated, reason in the order given."""
        return pa.table(
            {
                "influence": pa.array(self.influence, pa.float64(), mask=~self.valid),
                "loss": pa.array(self.loss, pa.float64(), mask=~np.isfinite(self.loss)),
                "tokens": pa.array(self.tokens, pa.int64()),
                "truncated": pa.array(self.truncated, pa.bool_()),
                "reason": pa.array(list(self.reason), pa.string()),
            }
        )
