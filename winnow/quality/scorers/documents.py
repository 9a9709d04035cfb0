"""What scorers are given and give back: documents with columns that may be read a stretch at a time, and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import doc_ids, ids_as_keys, ids_to_numpy

if TYPE_CHECKING:
    from winnow.attribution.bank import SubsetBank
    from winnow.attribution.run import RunCheckpoint

COLUMNS = frozenset({"texts", "tokens", "vectors", "clusters", "signals"})
BATCH = 256
"""Documents read at a time."""

Texts = Sequence[str] | Callable[[int, int], Sequence[str]]
Tokens = Sequence[np.ndarray] | Callable[[int, int], Sequence[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Documents:
    """N documents: uint8 ids ``[N, 16]`` and the columns that are known, each of N rows or None.

    ``texts`` and ``tokens`` (int arrays ``[n]`` of the model's tokenizer, without special tokens) are sequences, or
    functions that return the rows from ``start`` to ``stop``; ``vectors`` float32 ``[N, D]`` of unit length;
    ``clusters`` integer ``[N]``; ``signals`` a table. Raises :class:`UserError` for a column of another length.
    """

    doc_ids: np.ndarray
    texts: Texts | None = None
    tokens: Tokens | None = None
    vectors: np.ndarray | None = None
    clusters: np.ndarray | None = None
    signals: pa.Table | None = None

    def __post_init__(self) -> None:
        for name in sorted(COLUMNS):
            column = getattr(self, name)
            if column is not None and not callable(column) and len(column) != len(self.doc_ids):
                raise UserError(f"{len(self.doc_ids)} documents but {len(column)} {name}; give one for each document")

    @classmethod
    def from_texts(cls, texts: Sequence[str], **columns: Any) -> Documents:
        """Return documents whose ids are those of their texts."""
        return cls(ids_to_numpy(doc_ids(texts)), texts=texts, **columns)

    def __len__(self) -> int:
        return len(self.doc_ids)

    def require(self, columns: frozenset[str], scorer: str, what: str) -> None:
        """Raise :class:`UserError` unless every one of these columns is there."""
        if lacking := sorted(name for name in columns if getattr(self, name) is None):
            raise UserError(f"scorer '{scorer}' needs the {lacking[0]} of the {what}; give them with the doc ids")

    def rows(self, name: str, start: int, stop: int) -> Any:
        """Return the rows of a column from ``start`` to ``stop``."""
        column = getattr(self, name)
        found = column(start, stop) if callable(column) else column[start:stop]
        if len(found) != stop - start:
            raise UserError(f"{name} of rows {start} to {stop}: got {len(found)}; return one for each document")
        return found

    def batches(self, name: str, size: int = BATCH) -> Iterator[tuple[slice, Any]]:
        """Yield a column a stretch at a time, with its place."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield slice(start, stop), self.rows(name, start, stop)

    def by_id(self) -> np.ndarray:
        """Return the positions of the documents in the order of their ids, int64."""
        keys = ids_as_keys(self.doc_ids)
        return np.lexsort((keys["low"], keys["high"]))

    def sorted_rows(self, name: str) -> list[Any]:
        """Return a whole column in the order of the ids: for sets that are small, as references are."""
        found = self.rows(name, 0, len(self))
        return [found[position] for position in self.by_id().tolist()]


@dataclass(frozen=True, eq=False)
class ScorerContext:
    """What scorers learn from; what is not known is None or empty.

    ``reference``: the selecting part of a reference set, never the judging part; ``sample``: documents drawn at random
    from the candidate pool, or all of it; ``checkpoints``: of the model in training, oldest first, the last is the
    present one; ``bank``: losses of models trained on subsets of the documents; ``seed`` of every draw.
    """

    reference: Documents | None = None
    sample: Documents | None = None
    checkpoints: tuple[RunCheckpoint, ...] = ()
    bank: SubsetBank | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of N documents: ``values`` float64 ``[N]``, larger = rather take it; NaN where ``reasons[i]`` says why.

    ``reasons``: None for a document that has a score; ``flops``: floating-point operations spent in a model's passes,
    estimated; 0 for scorers that run no model.
    """

    values: np.ndarray
    reasons: tuple[str | None, ...]
    flops: float = 0.0

    @property
    def valid(self) -> np.ndarray:
        """Bool ``[N]``: the document has a score."""
        return np.isfinite(self.values)

    def excluded(self) -> dict[str, int]:
        """Return how many documents have no score, by reason."""
        found = [reason for reason in self.reasons if reason is not None]
        return {reason: found.count(reason) for reason in sorted(set(found))}


def with_reason(values: np.ndarray, reason: str, flops: float = 0.0) -> Scored:
    """Return scores of which those that are not finite have one reason; they become NaN."""
    finite = np.isfinite(values)
    reasons = tuple(None if known else reason for known in finite.tolist())
    return Scored(np.where(finite, values, np.nan), reasons, flops)
