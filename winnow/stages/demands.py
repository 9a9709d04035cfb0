"""Demands to withdraw a document, as a person or a list gives them: checked before anything is touched."""

from __future__ import annotations

import csv
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from winnow.errors import UserError
from winnow.text.quarantine import printable

KINDS = ("doc_id", "original_id", "url", "sha256")
COLUMNS = ("kind", "value", "reason")
REASON_LENGTH = 300
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Demand:
    """One demand: ``kind`` is one of ``KINDS``, ``value`` what it names, ``reason`` why, for people."""

    kind: str
    value: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


def make_demand(kind: str, value: str, reason: str = "", place: str = "") -> Demand:
    """Check a demand and bring its value into the one form that it is compared in.

    ``place`` (file and line) begins the message of the :class:`UserError` that a bad one raises.
    """
    at = f"{place}: " if place else ""
    if kind not in KINDS:
        raise UserError(f"{at}kind '{kind}' is none of {', '.join(KINDS)}")
    if not value.strip():
        raise UserError(f"{at}the {kind} is empty; an empty value would withdraw nothing, or everything without one")
    if kind == "doc_id":
        try:
            value = str(uuid.UUID(value.strip()))
        except ValueError as error:
            raise UserError(f"{at}doc_id '{value}' is no UUID; documents and `winnow explain` show them") from error
    if kind == "sha256":
        value = value.strip().lower()
        if not SHA256.fullmatch(value):
            raise UserError(f"{at}sha256 '{value}' is not 64 hexadecimal digits; hash the text's UTF-8 bytes")
    if kind == "url":
        value = value.strip()
    return Demand(kind, value, printable(reason.strip(), REASON_LENGTH))


def read_demands(path: Path) -> list[Demand]:
    """Read a CSV file with the columns kind, value and (if you like) reason.

    Raises :class:`UserError` naming the file and the line: unreadable, no such columns, a bad value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(path, csv.DictReader(file, strict=True)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a CSV file in UTF-8") from error


def _rows(path: Path, reader: csv.DictReader[str]) -> Iterator[Demand]:
    try:
        absent = [name for name in COLUMNS[:2] if name not in (reader.fieldnames or ())]
        if absent:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise UserError(f"{path}, line 1: no column '{absent[0]}' (found: {found}); expected {','.join(COLUMNS)}")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row:
                raise UserError(f"{place}: more values than columns; put a value with a comma in double quotes")
            yield make_demand(row["kind"] or "", row["value"] or "", row.get("reason") or "", place)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; mend the line") from error


def demand_rows(demands: Iterable[Demand]) -> pa.Table:
    """Return demands as rows of ``takedowns`` without their time: of equal kind and value the first one."""
    unique: dict[tuple[str, str], str] = {}
    for demand in demands:
        unique.setdefault((demand.kind, demand.value), demand.reason)
    return pa.table(
        {
            "kind": pa.array([kind for kind, _ in unique], pa.string()),
            "value": pa.array([value for _, value in unique], pa.string()),
            "reason": pa.array(list(unique.values()), pa.string()),
        }
    )
