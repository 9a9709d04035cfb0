"""Rows as people or programs read them."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

MOST_ROWS = 1_000
"""A table for people stops here; csv and json print everything."""


def rounded(row: Mapping[str, Any], digits: int = 4) -> dict[str, Any]:
    """Return a record whose floats have so many digits."""
    return {key: float(f"{value:.{digits}g}") if isinstance(value, float) else value for key, value in row.items()}


def tell(text: str) -> None:
    """Tell a person who waits, beside what is printed for programs."""
    print(text, file=sys.stderr, flush=True)


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str) -> None:
    """Print rows as an aligned table, as CSV or as a JSON list of objects."""
    if form == "json":
        print(
            json.dumps([dict(zip(columns, map(plain, row), strict=True)) for row in rows], indent=2, ensure_ascii=False)
        )
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else plain(value) for value in row] for row in rows])
    else:
        print(aligned(columns, rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            print(f"... {len(rows) - MOST_ROWS:,} more rows: add LIMIT, or --format csv")


def show_stream(columns: Sequence[str], fetch: Callable[[int], Sequence[Sequence[Any]]], form: str) -> None:
    """Print rows as :func:`show` does while they are fetched; of a table for people no more than it shows."""
    if form == "table":
        rows = fetch(MOST_ROWS + 1)
        print(aligned(columns, rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            print(f"... more rows than {MOST_ROWS:,}: add LIMIT, or --format csv")
        return
    rows = fetch(MOST_ROWS)
    if form == "csv":
        show(columns, rows, form)
        while rows := fetch(MOST_ROWS):
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerows([["" if value is None else plain(value) for value in row] for row in rows])
        return
    if not rows:
        print("[]")
        return
    before = "[\n"
    while rows:
        for row in rows:
            record = json.dumps(dict(zip(columns, map(plain, row), strict=True)), indent=2, ensure_ascii=False)
            sys.stdout.write(before + "  " + record.replace("\n", "\n  "))
            before = ",\n"
        rows = fetch(MOST_ROWS)
    print("\n]")


def show_records(records: Sequence[dict[str, Any]], form: str) -> None:
    """Print records that share their keys."""
    columns = list(records[0]) if records else []
    show(columns, [[record.get(column) for column in columns] for record in records], form)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table with aligned columns, numbers to the right; long cells are cut to what the terminal holds."""
    most = max(24, shutil.get_terminal_size((160, 24)).columns // max(1, min(len(columns), 3)))
    cells = [[_cell(value, most) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)]
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float | Decimal) or row[index] is None for row in rows)
        for index in range(len(columns))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    ruler = "  ".join("-" * width for width in widths)
    return "\n".join([line(list(columns)), ruler, *(line(row) for row in cells)])


def _cell(value: Any, most: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(plain(value)).replace("\n", "\\n").replace("\t", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, UUID | datetime | date):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
