"""Leaving spans out of texts, and finding them in a handful of texts that fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from winnow.dedup.spans.finder import SpanFinder
from winnow.dedup.spans.plan import SpanPlan

DEFAULT_PLAN = SpanPlan()


def apply_spans(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text without the characters inside any span (start, end), which may overlap and come in any order.

    Raises ``ValueError`` for a span that does not lie in the text: it was recorded for another one.
    """
    kept, reached = [], 0
    for start, end in sorted(spans):
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span {start} to {end} does not lie in a text of {len(text)} characters")
        if end > reached:
            kept.append(text[reached : max(start, reached)])
            reached = end
    kept.append(text[reached:])
    return "".join(kept)


def repeated_spans(texts: Sequence[str], plan: SpanPlan = DEFAULT_PLAN, threads: int | None = None) -> pa.Table:
    """Return the repeated spans of texts in memory; the order of the texts says which copy is first.

    Columns: document (position in ``texts``), kind, span_start, span_end (characters), copies.
    """
    rows = pa.array(texts, pa.large_string())
    lengths = np.array([len(text) for text in texts], np.int64)
    with tempfile.TemporaryDirectory(prefix="spans-") as folder:
        finder = SpanFinder(lengths, rows.nbytes, plan, Path(folder), threads=threads)
        with finder:
            documents = np.arange(len(texts))
            finder.read(rows, documents)
            finder.compare(rows, documents)
            return pa.concat_tables([part.spans for part in finder.found()])
