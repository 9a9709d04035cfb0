"""Signals and verdict together, under one version."""

from __future__ import annotations

from dataclasses import asdict, fields

import pyarrow as pa

from winnow.config import Quality
from winnow.errors import UserError
from winnow.identity import digest
from winnow.quality.gopher import GopherThresholds, gopher_verdict
from winnow.quality.signals import COLUMNS, compute_signals

SIGNALS_VERSION = "1"
"""Raise it when a signal's definition changes: every document is then judged anew."""


def thresholds(settings: Quality) -> GopherThresholds:
    """Return Gopher's thresholds as configured. Raises :class:`UserError` for a name that is no threshold."""
    known = {field.name for field in fields(GopherThresholds)}
    unknown = sorted(set(settings.gopher) - known)
    if unknown:
        raise UserError(
            f"winnow.toml: unknown key 'quality.gopher.{unknown[0]}'; allowed here: {', '.join(sorted(known))}"
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.gopher.items()}
    return GopherThresholds(**values)  # type: ignore[arg-type]


def signals_digest() -> str:
    """Return the version of the signals' definitions alone."""
    return digest([SIGNALS_VERSION, sorted(COLUMNS)])[:16]


def quality_version(settings: Quality) -> str:
    """Return the version of signals and verdict: definitions and thresholds."""
    return digest([signals_digest(), asdict(thresholds(settings))])[:16]


def judge(texts: pa.Table, settings: Quality) -> pa.Table:
    """Return the ``signals`` rows of documents: ``texts`` has ``doc_id`` and ``text``."""
    computed = compute_signals(texts["text"])
    verdict = gopher_verdict(computed, thresholds(settings))
    rows = pa.table({"doc_id": texts["doc_id"], "version": pa.array([quality_version(settings)] * len(texts))})
    for name in computed.column_names:
        rows = rows.append_column(name, computed[name].cast(pa.float64()))
    return rows.append_column("gopher_passed", verdict["passed"]).append_column("gopher_reason", verdict["reason"])
