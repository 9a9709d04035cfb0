"""Columns of plain values (:func:`winnow.text.arrow_values.plain`) to canonical JSON, a column at a time.

What comes out is byte for byte what :func:`winnow.identity.canonical_json` gives for each value: sorted keys, no white
space, floating point numbers in the shortest form that reads back exactly, as Python writes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from winnow.identity import canonical_json
from winnow.text.arrow_values import is_list, is_string

_TEXT = pa.large_string()


def json_objects(columns: Mapping[str, pa.Array], length: int) -> pa.Array:
    """Return JSON objects of the columns' values (large_string ``[length]``, never null), nulls as ``null``."""
    if not columns:
        return pa.repeat(pa.scalar("{}", _TEXT), length)
    parts: list[pa.Array | pa.Scalar] = []
    for name in sorted(columns):
        parts.append(pa.scalar(f"{',' if parts else '{'}{canonical_json(name)}:", _TEXT))
        parts.append(json_values(columns[name]))
    return _join(*parts, pa.scalar("}", _TEXT), null_handling="replace", null_replacement="null")


def json_tree(texts: Mapping[tuple[str, ...], pa.Array]) -> pa.Array:
    """Return JSON objects that hold JSON values at paths (names within each other), no path the start of another.

    A null is absent, and so is an inner object of which nothing is there.
    """
    inner: dict[str, dict[tuple[str, ...], pa.Array]] = {}
    for path, text in texts.items():
        inner.setdefault(path[0], {})[path[1:]] = text
    members = []
    for name in sorted(inner):
        within = inner[name]
        text = within[()] if () in within else json_tree(within)
        text = text if () in within else pc.if_else(pc.equal(text, "{}"), pa.scalar(None, _TEXT), text)
        members.append(_join(pa.scalar(f"{canonical_json(name)}:", _TEXT), text))
    joined = pc.binary_join_element_wise(*members, pa.scalar(",", _TEXT), null_handling="skip")
    return _join(pa.scalar("{", _TEXT), joined, pa.scalar("}", _TEXT))


def json_values(column: pa.Array) -> pa.Array:
    """Return each value as JSON (large_string), null as null."""
    kind = column.type
    if is_string(kind):
        return _quoted(column.cast(_TEXT))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(_TEXT)
    if pa.types.is_floating(kind):
        return pa.array([None if value is None else repr(value) for value in column.to_pylist()], _TEXT)
    if pa.types.is_struct(kind):
        fields = dict(zip([field.name for field in kind], column.flatten(), strict=True))
        return pc.if_else(column.is_valid(), json_objects(fields, len(column)), pa.scalar(None, _TEXT))
    write = canonical_json if _has_floats(kind) else _write  # orjson writes 1e16 where Python writes 1e+16
    values = column.to_pylist(maps_as_pydicts="lossy")
    return pa.array([None if value is None else write(value) for value in values], _TEXT)


def json_texts(column: pa.Array) -> pa.Array:
    """Return each value as text (large_string): strings with U+FFFD for NUL, others as JSON; null as null."""
    if not is_string(column.type):
        return json_values(column)
    texts = column.cast(_TEXT)
    return pc.replace_substring(texts, "\0", "\ufffd") if (string_bytes(texts) == 0).any() else texts


def string_offsets(texts: pa.Array) -> np.ndarray:
    """Return the offsets (int64 ``[N + 1]``, from 0) of a large_string column in its :func:`string_bytes`."""
    if not len(texts):
        return np.zeros(1, np.int64)
    offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)
    return offsets - offsets[0]


def string_bytes(texts: pa.Array) -> np.ndarray:
    """Return the UTF-8 bytes (uint8) of all values of a large_string column, without a copy."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64, len(texts) + 1, 8 * texts.offset)
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]


def _quoted(texts: pa.Array) -> pa.Array:
    quote = pa.scalar('"', _TEXT)
    quoted = _join(quote, texts, quote)
    data = string_bytes(texts)
    special = np.flatnonzero((data < 0x20) | (data == 0x22) | (data == 0x5C))
    if not len(special):
        return quoted
    rows = np.unique(np.searchsorted(string_offsets(texts), special, side="right") - 1)
    chosen = np.zeros(len(texts), bool)
    chosen[rows] = True
    values = texts.take(pa.array(rows)).to_pylist()
    # A null may lie over bytes, and stays null.
    escaped = [None if value is None else _write(value) for value in values]
    return pc.replace_with_mask(quoted, pa.array(chosen), pa.array(escaped, _TEXT))


def _join(*parts: pa.Array | pa.Scalar, **options: str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, pa.scalar("", _TEXT), **options)


def _write(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _has_floats(kind: pa.DataType) -> bool:
    if pa.types.is_floating(kind):
        return True
    if pa.types.is_map(kind) or is_list(kind) or pa.types.is_struct(kind):
        return any(_has_floats(kind.field(index).type) for index in range(kind.num_fields))
    return False
