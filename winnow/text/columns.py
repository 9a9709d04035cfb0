"""Record batches of any schema to blocks of documents: whole columns at a time, and only bad rows one by one.

What a record is: its column names and the values of :func:`winnow.text.arrow_values.plain`, of which
:func:`winnow.text.records.document_from` makes a document. Blocks hold exactly what that gives for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.arrow_json import json_objects, json_texts, json_tree, json_values, string_bytes, string_offsets
from winnow.text.arrow_values import as_texts, is_text, names_are_utf8, nesting, plain, python_values, unique_names
from winnow.text.column_paths import ColumnPaths, Path, column_at, json_type, without
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import Block, Item, Reading
from winnow.text.quarantine import (
    EXCERPT_LENGTH,
    BadRecordError,
    FileFailedError,
    Quarantined,
    missing_text_detail,
    too_large_detail,
)
from winnow.text.records import DEEPEST_NESTING, Document, FieldMap, document_from

_SPACES = sorted({chr(code).encode()[0] for code in range(0x3001) if chr(code).isspace()})
_SPACE_LEADS = np.isin(np.arange(256), _SPACES)
"""The first bytes of white space: no text that begins otherwise can be white space alone. The last one is U+3000."""
_HEAD = 64


class ColumnReader:
    """Turn the record batches of one file into its items.

    ``wanted`` are the places in the schema of the columns that are needed (all of a name if one is); field types are
    noted of these alone. ``one_by_one`` judges every row by itself. Raises ``FileFailedError`` (for ``rows`` records)
    where the text column is missing or of a wrong type, or columns are nested too deep or have names that are no UTF-8.
    """

    def __init__(self, schema: pa.Schema, how: Reading, seen: FieldTypes, rows: int = 1) -> None:
        if not names_are_utf8(schema):
            detail = "a column's name is not UTF-8, or that of a field within one; rename it"
            raise FileFailedError(Quarantined(None, None, "invalid_utf8", detail, "", rows))
        self._names = schema.names
        self._kinds = dict(zip(unique_names(schema.names), schema.types, strict=True))
        self._paths = ColumnPaths(self._kinds, how.fields)
        self._fields, self._limit, self._seen = how.fields, how.limits.max_record_bytes, seen
        wanted = {schema.names[index] for index, name in enumerate(self._kinds) if name in self._paths.wanted}
        self.wanted = [index for index, name in enumerate(schema.names) if name in wanted]
        self.one_by_one = self._paths.beyond_structs
        self._text = self._checked_text(rows)

    def _checked_text(self, rows: int) -> Path:
        text, kinds = self._paths.text, self._kinds
        if text is None:
            detail = missing_text_detail(self._fields.text, list(self._kinds))
            raise FileFailedError(Quarantined(None, None, "missing_text", detail, "", rows))
        kind = self._paths.kind(text)
        if not is_text(kind):
            detail = (
                f"column {self._fields.text!r} is {kind}; expected strings (set text_field=...); "
                f"columns present: {', '.join(self._kinds)}"
            )
            raise FileFailedError(Quarantined(None, None, "text_not_string", detail, "", rows))
        for name in self._paths.wanted:
            if nesting(kinds[name]) >= DEEPEST_NESTING:
                detail = (
                    f"column {name!r} is nested {DEEPEST_NESTING} levels deep or more; flatten it or leave it out "
                    "(set metadata=...)"
                )
                raise FileFailedError(Quarantined(None, None, "unreadable_file", detail, "", rows))
        return text

    def items(self, batch: pa.RecordBatch, first_row: int) -> Iterator[Item]:
        """Yield a batch's quarantine rows, then its documents in order; its columns are all of the file or a part.

        A batch should be small (:func:`winnow.text.column_groups.pieces` sees to that): its JSON and copies of its
        texts are held besides it.
        """
        raw = self._selected(batch)
        texts = as_texts(column_at(raw, self._text))
        others = {name: plain(column) for name, column in raw.items() if (name,) != self._text}
        columns = {name: others.get(name, texts) for name in raw}
        self._note(columns)
        bad = np.ones(len(texts), bool) if self.one_by_one else _faults(texts)
        for column in (texts, *others.values()):
            bad[_not_utf8(column)] = True
        block = self._block(texts, columns, bad, first_row)
        documents = []
        for item in self._one_by_one(texts, columns, np.flatnonzero(bad), first_row):
            if isinstance(item, Document):
                documents.append(item)
            else:
                yield item
        yield from _merged(block, documents)

    def _selected(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """Return the wanted columns; those of one name are all in a batch or none is."""
        given: dict[str, list[str]] = {}
        for name, unique in zip(self._names, self._kinds, strict=True):
            given.setdefault(name, []).append(unique)
        names = [given[name].pop(0) for name in batch.schema.names]
        return {name: column for name, column in zip(names, batch.columns, strict=True) if name in self._paths.wanted}

    def _note(self, columns: dict[str, pa.Array]) -> None:
        for name, column in columns.items():
            if column.null_count:
                self._seen.note(name, "null")
            if column.null_count < len(column):
                self._seen.note(name, json_type(self._kinds[name]))

    def _block(self, texts: pa.Array, columns: dict[str, pa.Array], bad: np.ndarray, first_row: int) -> Block:
        """Return the documents of the rows that are not ``bad``, and mark as bad those that are over the limit."""
        rows = np.flatnonzero(~bad)
        if len(rows) < len(texts):
            kept = pa.array(rows)
            texts, columns = texts.take(kept), {name: column.take(kept) for name, column in columns.items()}
        metadata = self._metadata(columns, len(texts))
        found = [texts, *(self._mapped(columns, path, len(texts)) for path in self._paths.mapped), metadata]
        sizes = np.diff(string_offsets(texts)) + pc.utf8_length(metadata).to_numpy()
        fit = sizes <= self._limit
        if not fit.all():
            bad[rows[~fit]] = True
            rows, found = rows[fit], [column.filter(pa.array(fit)) for column in found]
        return Block(rows + first_row, found[0], *(column.cast(pa.string()) for column in found[1:]))

    def _mapped(self, columns: dict[str, pa.Array], path: Path | None, length: int) -> pa.Array:
        return json_texts(column_at(columns, path)) if path else pa.nulls(length, pa.large_string())

    def _metadata(self, columns: dict[str, pa.Array], length: int) -> pa.Array:
        inner = {name: {path[1:] for path in self._paths.dropped if path[0] == name and path[1:]} for name in columns}
        rest = {name: without(column, inner[name]) for name, column in columns.items()}
        kept = self._paths.kept
        if all(len(path) == 1 for path in kept):
            return json_objects({name: rest[name] for (name,) in kept}, length)
        texts = {}
        for path in kept:
            texts[path] = pc.fill_null(json_values(column_at(rest, path)), "null")
            if len(path) > 1:
                there = column_at(rest, path[:-1]).is_valid()
                texts[path] = pc.if_else(there, texts[path], pa.scalar(None, pa.large_string()))
        return json_tree(texts)

    def _one_by_one(
        self, texts: pa.Array, columns: dict[str, pa.Array], rows: np.ndarray, first_row: int
    ) -> Iterator[Document | Quarantined]:
        """Judge single rows as if each were a record of its own: what blocks are measured by."""
        if not len(rows):
            return
        chosen = pa.array(rows)
        values = [python_values(column.take(chosen)) for column in columns.values()]
        top, *inner = self._text
        for row, text, *fields in zip(rows.tolist(), python_values(texts.take(chosen)), *values, strict=True):
            record = dict(zip(columns, fields, strict=True))
            if inner:
                _put(record, top, inner, text)
            yield judge(record, first_row + row, self._fields, self._limit)


def judge(record: dict[str, Any], row: int, fields: FieldMap, max_record_bytes: int) -> Document | Quarantined:
    """Return one record of plain values as a document or a quarantine row; takes fields out of ``record``."""
    try:
        for name, value in record.items():
            if isinstance(value, UnicodeDecodeError):
                raise BadRecordError("invalid_utf8", f"column {name!r} is not UTF-8; convert it, or declare it binary")
        document = document_from(record, row, fields)
        size = len(document.utf8) + len(document.metadata)
        if size > max_record_bytes:
            raise BadRecordError("record_too_large", too_large_detail(max_record_bytes, size))
    except BadRecordError as bad:
        sample = ", ".join(f"{name}: {str(value)[:EXCERPT_LENGTH]}" for name, value in record.items())
        return Quarantined(row, None, bad.reason, f"row {row}: {bad.detail}", sample)
    return document


def _put(record: dict[str, Any], top: str, inner: list[str], text: Any) -> None:
    """Put a nested text as it was read in the place of the plain value, which is not the same for binary."""
    if isinstance(text, UnicodeDecodeError):
        record[top] = text
    holder = record[top]
    for name in inner[:-1]:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder[inner[-1]] = text


def _faults(texts: pa.Array) -> np.ndarray:
    """Say which texts (large_string) are null, empty, white space alone, or have a NUL."""
    offsets, data = string_offsets(texts), string_bytes(texts)
    bad = texts.is_null().to_numpy(zero_copy_only=False) | (np.diff(offsets) == 0)
    if len(data):
        leads = np.flatnonzero(_SPACE_LEADS[data[np.minimum(offsets[:-1], len(data) - 1)]] & ~bad)
        for row in leads.tolist():
            bad[row] = _is_space(data, int(offsets[row]), int(offsets[row + 1]))
        if not data.min():
            bad[np.searchsorted(offsets, np.flatnonzero(data == 0), side="right") - 1] = True
    return bad


def _is_space(data: np.ndarray, start: int, end: int) -> bool:
    head = data[start : min(end, start + _HEAD)].tobytes().decode(errors="ignore")
    return (not head or head.isspace()) and data[start:end].tobytes().decode(errors="replace").isspace()


def _not_utf8(column: pa.Array) -> list[int]:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return [row for row, value in enumerate(python_values(column)) if isinstance(value, UnicodeDecodeError)]
    return []


def _merged(block: Block, documents: list[Document]) -> Iterator[Document | Block]:
    """Yield a block and single documents in the order of their rows."""
    start = 0
    for document in documents:
        end = int(np.searchsorted(block.rows, document.row))
        if end > start:
            yield _part(block, start, end)
        yield document
        start = end
    if len(block.rows) > start:
        yield _part(block, start, len(block.rows))


def _part(block: Block, start: int, end: int) -> Block:
    columns = (block.texts, block.original_ids, block.urls, block.dates, block.metadata)
    return Block(block.rows[start:end], *(column.slice(start, end - start) for column in columns))
