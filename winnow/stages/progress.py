"""Live counters of a long stage: how many, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Count:
    """A moment of a stage: what is done, of how much, since when."""

    documents: int
    quarantined: int
    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate, None before anything is done."""
        return (self.total - self.done) / self.rate if self.done else None

    def __str__(self) -> str:
        left = f", about {duration(self.left)} left" if self.left is not None else ""
        bad = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        return (
            f"{self.documents:,} documents{bad}; {size(self.done)} of {size(self.total)} read "
            f"({size(round(self.rate))}/s{left})"
        )


class Progress:
    """Hands a :class:`Count` to ``report`` every few seconds, and once at the end."""

    def __init__(self, total: int, report: Callable[[Count], None]) -> None:
        self._total, self._report = total, report
        self._started = time.monotonic()
        self._last = self._started

    def update(self, documents: int, quarantined: int, done: int, final: bool = False) -> None:
        """Say how far the stage is."""
        now = time.monotonic()
        if final or now - self._last >= EVERY_SECONDS:
            self._last = now
            self._report(Count(documents, quarantined, min(done, self._total), self._total, now - self._started))


def size(count: int) -> str:
    """Return a number of bytes for people: ``812 B``, ``64.0 MB``, ``1.2 GB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """Return a length of time for people: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
