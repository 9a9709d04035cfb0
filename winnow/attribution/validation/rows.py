"""The rows that every validation gives to a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("validation", pa.string()),
        ("method", pa.string()),
        ("measure", pa.string()),
        ("at", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("count", pa.int64()),
    ]
)
"""``at`` says where along a curve the measure was taken (``k=10``, ``round 2``), empty without a curve; ``low`` and
``high`` are a 95% interval, null where none is given; ``count`` is the number of units that were averaged."""

Row = dict[str, Any]


class Result(Protocol):
    """What a validation returns."""

    def to_rows(self) -> list[Row]: ...


def row(
    validation: str,
    method: str,
    measure: str,
    value: float,
    interval: tuple[float, float] = (math.nan, math.nan),
    *,
    at: str = "",
    count: int = 0,
) -> Row:
    """Return one row of :data:`SCHEMA`; numbers that are not finite become null."""
    numbers = {"value": value, "low": interval[0], "high": interval[1]}
    finite = {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}
    return {"validation": validation, "method": method, "measure": measure, "at": at, **finite, "count": count}


def leaderboard(results: Iterable[Result]) -> pa.Table:
    """Return the rows of many results as one table."""
    return pa.Table.from_pylist([one for result in results for one in result.to_rows()], SCHEMA)
