"""JSON lines to the columns of a block, fast: one orjson call a line, and no line about which there is any doubt.

What this module returns is byte for byte what :func:`winnow.text.records.document_from` makes of the line; a line for
which that is not certain (no valid JSON for orjson, a number that it may have rounded, deep nesting, a text that is
none) gives None and is to be read there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from orjson import OPT_SORT_KEYS, JSONDecodeError, dumps, loads

from winnow.identity import canonical_json
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import Block
from winnow.text.records import DEEPEST_NESTING, MISSING, Document, FieldMap, as_text, remaining, value_at

_PLANS = 10_000
_ODD_NUMBER = re.compile(rb"[0-9]e|0\.0000|[0-9]{16}\.|-0\.0(?![0-9])")
"""Matches orjson's form of every float that is not written as Python writes it, or that may have been an integer."""


Columns = tuple[bytes, str | None, str | None, str | None, bytes]
"""A document's text in UTF-8, its original id, url and date, and its metadata in UTF-8."""


class _Plan:
    """What the records of one shape (names and types in their order) have in common."""

    def __init__(self, record: dict[str, Any], fields: FieldMap) -> None:
        kinds = {type(value) for value in record.values()}
        self.floats = float in kinds
        self.containers = dict in kinds or list in kinds
        mapped = [name for name in (fields.text, fields.id, fields.url, fields.date) if name]
        # Then the fields are taken out one by one, without a look at nested objects.
        self.flat = fields.metadata is None and all(name in record or "." not in name for name in mapped)
        self.types: dict[str, Any] | None = {name: type(value)() for name, value in record.items()}


class RecordReader:
    """Turn lines into columns, or None; notes the types of the fields of what it returns in ``seen``."""

    def __init__(self, fields: FieldMap, seen: FieldTypes) -> None:
        self._fields = fields
        self._names = fields.text, fields.id or None, fields.url or None, fields.date or None
        self._distinct = len({*self._names, None}) == 1 + len([name for name in self._names if name])
        self._seen = seen
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def __call__(self, line: bytes) -> Columns | None:
        try:
            record = loads(line)
        except JSONDecodeError:
            return None
        if type(record) is not dict:
            return None
        shape = (*record, *map(type, record.values()))
        plan = self._plans.get(shape)
        if plan is None:
            plan = _Plan(record, self._fields)
            if len(self._plans) < _PLANS:
                self._plans[shape] = plan
        if plan.containers and line.count(b"[") + line.count(b"{") > DEEPEST_NESTING:
            return None
        small = False
        if plan.floats:
            floats = [value for value in record.values() if type(value) is float]
            if not all(map(_is_certain, floats)):
                return None
            small = any(map(_is_small, floats))
        if plan.flat and self._distinct:
            text_name, id_name, url_name, date_name = self._names
            text = record.pop(text_name, None)
            original_id = record.pop(id_name, None)
            url = record.pop(url_name, None)
            date = record.pop(date_name, None)
        else:
            text, original_id, url, date = (value_at(record, name) if name else None for name in self._names)
            record = remaining(record, self._fields)
        if type(text) is not str or not text or text.isspace() or "\0" in text:
            return None
        try:
            original_id, url, date = _short(original_id), _short(url), _short(date)
        except KeyError:  # of another type
            return None
        if not record:
            metadata = b"{}"
        elif small or plan.containers:
            odd = self._odd_metadata(record, small)
            if odd is None:
                return None
            metadata = odd
        else:
            metadata = dumps(record, option=OPT_SORT_KEYS)
        if plan.types is not None:
            self._seen.add(plan.types)
            plan.types = None
        return text.encode(), original_id, url, date, metadata

    @staticmethod
    def _odd_metadata(record: dict[str, Any], small: bool) -> bytes | None:
        """Return canonical JSON where orjson's may not be; None where it may have read a number wrongly."""
        if not small:
            metadata = dumps(record, option=OPT_SORT_KEYS)
            if not _ODD_NUMBER.search(metadata):
                return metadata
        floats = _floats(record)
        if not all(map(_is_certain, floats)):
            return None
        return canonical_json(record).encode() if small or any(map(_is_small, floats)) else metadata


def _is_certain(value: float) -> bool:
    """Say whether a float was written as one: orjson makes floats of integers beyond 64 bits (and of -0)."""
    return abs(value) < 1e16 and (value != 0 or math.copysign(1, value) > 0)


def _is_small(value: float) -> bool:
    """Say whether Python writes a float (below 1e16) with an exponent; orjson has its own form for these."""
    return value != 0 and abs(value) < 1e-4


def _floats(value: Any) -> list[float]:
    if type(value) is float:
        return [value]
    if type(value) is dict:
        return [one for inner in value.values() for one in _floats(inner)]
    if type(value) is list:
        return [one for inner in value for one in _floats(inner)]
    return []


_TO_TEXT: dict[type, Callable[[Any], str | None]] = {str: as_text, int: str, type(MISSING): as_text}


def _short(value: Any) -> str | None:
    """Return an id, a URL or a date as it is stored. Raises ``KeyError`` for what is neither string nor integer."""
    if value is None or (type(value) is str and "\0" not in value):
        return value
    return _TO_TEXT[type(value)](value)


class BlockBuilder:
    """Gather documents in a file's order, and make one :class:`Block` of them."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._rows: list[int] = []
        self._columns: list[Columns] = []
        self.size = 0
        """Bytes of text and metadata gathered."""

    def add(self, row: int, columns: Columns) -> None:
        self._rows.append(row)
        self._columns.append(columns)
        self.size += len(columns[0]) + len(columns[4])

    def add_document(self, document: Document) -> None:
        row, utf8, _, original_id, url, date, metadata = document
        self.add(row, (utf8, original_id, url, date, metadata.encode()))

    def take(self) -> Block:
        """Return what was gathered (at least one document), and start anew."""
        texts, original_ids, urls, dates, metadata = zip(*self._columns, strict=True)
        block = Block(
            np.array(self._rows, np.int64),
            _wrap(pa.LargeStringArray, np.int64, texts),
            pa.array(original_ids, pa.string()),
            pa.array(urls, pa.string()),
            pa.array(dates, pa.string()),
            _wrap(pa.StringArray, np.int32, metadata),
        )
        self._clear()
        return block


def _wrap(kind: Any, offset: type, values: tuple[bytes, ...]) -> pa.Array:
    """Return UTF-8 as an array of strings, without encoding it once more."""
    offsets: np.ndarray = np.zeros(len(values) + 1, offset)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
    return kind.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))
