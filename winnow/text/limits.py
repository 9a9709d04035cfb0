"""Bounds on the reading of one file."""

from __future__ import annotations

from dataclasses import dataclass

from winnow.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds on one file's reading.

    ``max_record_bytes``: a longer record (JSON line, text file, or a Parquet row's text and metadata) is quarantined
    unread. ``batch_bytes``: the size in memory at which a batch is handed on; it changes no result. A file fails when
    more than ``max(max_bad_records, max_bad_fraction * records)`` of its records are bad, or when it decompresses to
    more than ``max_expansion`` times its size or ``max_decompressed_bytes``. Raises ``UserError`` for values out of
    range.
    """

    max_record_bytes: int = 32 * 2**20
    batch_bytes: int = 16 * 2**20
    max_bad_fraction: float = 0.01
    max_bad_records: int = 10
    max_expansion: float = 1000.0
    max_decompressed_bytes: int = 2**40

    def __post_init__(self) -> None:
        for name in ("max_record_bytes", "batch_bytes", "max_decompressed_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"limits: {name} is {getattr(self, name)}; give at least 1 byte")
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"limits: max_bad_fraction is {self.max_bad_fraction}; give a share between 0 and 1")
        if self.max_bad_records < 0:
            raise UserError(f"limits: max_bad_records is {self.max_bad_records}; give 0 or more")
        if self.max_expansion < 1:
            raise UserError(f"limits: max_expansion is {self.max_expansion}; give 1 or more")
