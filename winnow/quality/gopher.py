"""Gopher's quality and repetition rules, as a verdict with the first rule that fails.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1 and
table A1. The signals, and where their definition differs from a peer's, are in :data:`winnow.quality.signals.COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError


@dataclass(frozen=True)
class GopherThresholds:
    """Limits of Gopher's rules; the defaults are the paper's. A value equal to its limit passes."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_hash_symbol_ratio: float = 0.1
    max_ellipsis_word_ratio: float = 0.1
    max_frac_lines_bullet: float = 0.9
    max_frac_lines_end_ellipsis: float = 0.3
    min_frac_words_alpha: float = 0.8
    min_stop_words_distinct: int = 2
    max_frac_dup_lines: float = 0.3
    max_frac_dup_paragraphs: float = 0.3
    max_frac_dup_line_chars: float = 0.2
    max_frac_dup_paragraph_chars: float = 0.2
    max_frac_chars_top_ngram: tuple[float, float, float] = (0.20, 0.18, 0.16)
    max_frac_chars_dup_ngram: tuple[float, float, float, float, float, float] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)

    def rules(self) -> list[tuple[str, str, float]]:
        """Return (column, the comparison that fails, limit) in the order in which the rules are tried.

        Duplicate n-grams use the ``rpv2`` columns, the paper's words: characters inside *all* duplicate n-grams, those
        in overlapping ones counted once.
        """
        return [
            ("words", "<", self.min_words),
            ("words", ">", self.max_words),
            ("mean_word_length", "<", self.min_mean_word_length),
            ("mean_word_length", ">", self.max_mean_word_length),
            ("hash_symbol_ratio", ">", self.max_hash_symbol_ratio),
            ("ellipsis_word_ratio", ">", self.max_ellipsis_word_ratio),
            ("frac_lines_bullet", ">", self.max_frac_lines_bullet),
            ("frac_lines_end_ellipsis", ">", self.max_frac_lines_end_ellipsis),
            ("frac_words_alpha", "<", self.min_frac_words_alpha),
            ("stop_words_distinct", "<", self.min_stop_words_distinct),
            ("frac_dup_lines", ">", self.max_frac_dup_lines),
            ("frac_dup_paragraphs", ">", self.max_frac_dup_paragraphs),
            ("frac_dup_line_chars", ">", self.max_frac_dup_line_chars),
            ("frac_dup_paragraph_chars", ">", self.max_frac_dup_paragraph_chars),
            *((f"frac_chars_top_{n}gram_gopher", ">", self.max_frac_chars_top_ngram[n - 2]) for n in (2, 3, 4)),
            *((f"frac_chars_dup_{n}gram_rpv2", ">", self.max_frac_chars_dup_ngram[n - 5]) for n in range(5, 11)),
        ]


def gopher_verdict(signals: pa.Table, thresholds: GopherThresholds | None = None) -> pa.Table:
    """Return ``passed`` (bool) and ``reason`` (string, null where passed) for each of N rows of signals.

    ``signals`` holds at least the columns that the rules name (:func:`winnow.quality.compute_signals`). The reason is
    the first rule that fails, with the value and the limit: ``words 12 < 50``. Raises ``UserError`` for a missing
    column.
    """
    rules = (thresholds or GopherThresholds()).rules()
    missing = sorted({column for column, _, _ in rules} - set(signals.column_names))
    if missing:
        raise UserError(f"the signals lack {', '.join(missing)}; compute them with winnow.quality.compute_signals")
    reason = pa.nulls(signals.num_rows, pa.string())
    undecided = np.ones(signals.num_rows, dtype=bool)
    for column, comparison, limit in rules:
        values = signals[column].to_numpy()
        failing = undecided & (values < limit if comparison == "<" else values > limit)
        if failing.any():
            bound = f"{limit:g}" if isinstance(limit, float) else str(limit)
            reasons = [f"{column} {_short(value, bound)} {comparison} {bound}" for value in values[failing].tolist()]
            reason = pc.replace_with_mask(reason, pa.array(failing), pa.array(reasons, pa.string()))
            undecided &= ~failing
    return pa.table({"passed": pa.array(undecided), "reason": reason})


def _short(value: float, bound: str) -> str:
    """The value in as few digits as still differ from the limit as printed."""
    if not isinstance(value, float):
        return str(value)
    return next((short for digits in (4, 8, 12) if (short := f"{value:.{digits}g}") != bound), repr(value))
