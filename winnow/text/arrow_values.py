"""Arrow columns of any type to columns of the few types that JSON has words for.

What comes out consists of null, boolean, integers, finite floating point numbers, string and large_string, and of
structs, lists and maps from strings of these. The rules:

- Times, durations and decimals become their text; of a time zone that is unknown here, the time in UTC.
- Binary becomes its UTF-8 text, or base64 where it is none. UUIDs become their text.
- NaN and infinity become null.
- Dictionary and run-end encodings and extension types are looked through. The keys of a map become text.
- Unions and intervals, for which JSON has nothing, become text.
- Where a name repeats among columns or a struct's fields, the later ones are numbered: ``a``, ``a_1``, ``a_2``. The
  first one is the one that a field map means. An empty name is a name as any other.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_STRINGS = (pa.types.is_string, pa.types.is_large_string)
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def is_string(kind: pa.DataType) -> bool:
    return any(test(kind) for test in _STRINGS)


def is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in _LISTS)


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type can hold texts: strings, or binary that is UTF-8."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return is_string(kind) or pa.types.is_string_view(kind) or any(test(kind) for test in _BINARY[:3])


def as_texts(column: pa.Array) -> pa.Array:
    """Return a column for which :func:`is_text` holds as large_string, its bytes unchecked."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary.take(column.indices)
    if pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    return column.cast(options=pc.CastOptions(pa.large_string(), allow_invalid_utf8=True))


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with later ones of a kind numbered, so that none is there twice: ``a, a`` gives ``a, a_1``."""
    if len(set(names)) == len(names):
        return list(names)
    taken, unique, seen = set(names), [], set()
    for name in names:
        given, number = name, 0
        while given in seen or (number and given in taken):
            number += 1
            given = f"{name}_{number}"
        seen.add(given)
        unique.append(given)
    return unique


def nesting(kind: pa.DataType) -> int:
    """Return how many lists, structs and maps lie within each other."""
    return sum(1 for _ in _levels(kind))


def names_are_utf8(schema: pa.Schema) -> bool:
    """Say whether every column and every field within one has a name that Python can hold."""
    try:
        fields = [field for kind in schema.types for level in _levels(kind) for field in level]
        return all(isinstance(field.name, str) for field in (*schema, *fields))
    except UnicodeDecodeError:
        return False


def _levels(kind: pa.DataType) -> Iterator[list[pa.Field]]:
    """Yield the fields within a type, those within these, and so on."""
    level = _fields(kind)
    while level:
        yield level
        level = [inner for field in level for inner in _fields(field.type)]


def _fields(kind: pa.DataType) -> list[pa.Field]:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return [pa.field("", kind.value_type)]
    return [kind.field(index) for index in range(kind.num_fields)]


def plain(column: pa.Array) -> pa.Array:
    """Return the column's values under the rules above, its length and its nulls unchanged but for NaN."""
    kind = column.type
    if pa.types.is_floating(kind):
        return _finite(column)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or is_string(kind):
        return column
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column)
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary.take(column.indices))
    if pa.types.is_run_end_encoded(kind):
        places = np.arange(column.offset, column.offset + len(column))
        return plain(column.values.take(pa.array(np.searchsorted(column.run_ends, places, side="right"))))
    if pa.types.is_string_view(kind):
        return as_texts(column)
    if pa.types.is_decimal(kind):
        return column.cast(pa.string())
    if any(test(kind) for test in _BINARY):
        return _decoded(column)
    if pa.types.is_struct(kind):
        names = unique_names([field.name for field in kind])
        return struct_of({name: plain(column.field(index)) for index, name in enumerate(names)}, column)
    if pa.types.is_map(kind):
        return _map(column)
    if is_list(kind):
        offsets = _offsets(pc.fill_null(pc.list_value_length(column), 0))
        values = plain(column.flatten())
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=_mask(column))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _times(column)
    return pa.array([_text(value) for value in python_values(column)], pa.large_string())


def struct_of(fields: dict[str, pa.Array], column: pa.Array) -> pa.Array:
    """Return a struct column of these fields that is null where ``column`` is."""
    if not fields:
        valid = pc.is_valid(column)
        kept = pa.py_buffer(np.packbits(valid.to_numpy(zero_copy_only=False), bitorder="little").tobytes())
        return pa.Array.from_buffers(pa.struct([]), len(column), [kept])
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields), mask=_mask(column))


def python_values(column: pa.Array) -> list[Any]:
    """Return a column as Python values: an error in the place of a string that is no UTF-8, None if there is no way."""
    try:
        return column.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError, NotImplementedError):
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="lossy")
    except UnicodeDecodeError as error:
        return error
    except (ValueError, OverflowError, NotImplementedError):
        return None


def _mask(column: pa.Array) -> pa.Array | None:
    return column.is_null() if column.null_count else None


def _offsets(lengths: pa.Array) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _finite(column: pa.Array) -> pa.Array:
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    finite = pc.is_finite(column)
    if pc.all(finite).as_py() in (True, None):
        return column
    return pc.if_else(finite, column, pa.scalar(None, column.type))


def _extension(column: pa.Array) -> pa.Array:
    name = column.type.extension_name
    if name == "arrow.uuid":
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    if name == "arrow.bool8":
        return pc.not_equal(column.storage, 0)
    return plain(column.storage)


def _decoded(column: pa.Array) -> pa.Array:
    binary = column.cast(pa.large_binary())
    try:
        return binary.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([_decoded_value(value) for value in binary.to_pylist()], pa.large_string())


def _decoded_value(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return b64encode(value or b"").decode()


def _times(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        if not pa.types.is_timestamp(column.type):
            raise
        return column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.string())


def _map(column: pa.Array) -> pa.Array:
    offsets = np.array(column.offsets)
    start, end = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    keys, items = column.keys.slice(start, end - start), column.items.slice(start, end - start)
    keys = plain(keys)
    if not is_string(keys.type):
        keys = pa.array([_text(key) for key in python_values(keys)], pa.string())
    keys = pc.fill_null(keys.cast(options=pc.CastOptions(pa.large_string(), allow_invalid_utf8=True)), "null")
    kept = pa.array(offsets - start, pa.int32())
    return pa.MapArray.from_arrays(kept, keys, plain(items), mask=_mask(column))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
