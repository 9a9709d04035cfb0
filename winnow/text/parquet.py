"""Parquet files as records: bounded batches of rows, each row a plain dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.quarantine import (
    EXCERPT_LENGTH,
    BadRecordError,
    FileFailedError,
    Quarantined,
    missing_text_detail,
    too_large_detail,
)
from winnow.text.records import Document, FieldMap, document_from

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# Neither depends on the caller's batch size, so that what is read of a corrupt row group does not either.
DECODED_BYTES = 2**20
DECODED_ROWS = 256
COLUMN_BUFFER = 2**18

_READ_ERRORS = (pa.ArrowException, OSError, MemoryError)
_STRINGS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def read_parquet(path: Path, fields: FieldMap, max_record_bytes: int) -> Iterator[Document | Quarantined]:
    """Yield each row as a document or a quarantine row, and the rows after a corrupt page as one quarantine row.

    ``row`` counts rows over all row groups. Besides the decoded rows (at most ``DECODED_ROWS``), memory holds the
    pages being decoded, whose size the file's writer chose. Raises ``FileFailedError`` where the footer is unreadable
    or the text column is missing or of a wrong type.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, buffer_size=COLUMN_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except _READ_ERRORS as error:
        detail = (
            f"the Parquet footer cannot be read ({error}): the file was cut short or is no Parquet; deliver it anew"
        )
        raise FileFailedError(Quarantined(None, None, "unreadable_file", detail, "")) from error
    with file:
        _check_text_column(file, fields.text)
        row = 0
        try:
            for record in _records(file, fields.text):
                yield _judge(record, row, fields, max_record_bytes)
                row += 1
        except _READ_ERRORS as error:
            fault = str(error)
        else:
            fault = "fewer rows than the footer says"
        left = file.metadata.num_rows - row
        if left > 0:
            detail = f"rows from {row} on cannot be read ({fault}); deliver the file anew"
            yield Quarantined(row, None, "truncated_stream", detail, "", left)


def _check_text_column(file: pq.ParquetFile, name: str) -> None:
    schema = file.schema_arrow
    rows = file.metadata.num_rows
    column = _column_type(schema, name)
    if column is None:
        raise FileFailedError(
            Quarantined(None, None, "missing_text", missing_text_detail(name, schema.names), "", rows)
        )
    if pa.types.is_dictionary(column):
        column = column.value_type
    if not any(is_type(column) for is_type in _STRINGS):
        present = ", ".join(schema.names)
        detail = f"column {name!r} is {column}; expected strings (set text_field=...); columns present: {present}"
        raise FileFailedError(Quarantined(None, None, "text_not_string", detail, "", rows))


def _column_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    if name in schema.names:
        return schema.types[schema.names.index(name)]
    first, *rest = name.split(".")
    inner = schema.types[schema.names.index(first)] if rest and first in schema.names else None
    for part in rest:
        if inner is None or not pa.types.is_struct(inner) or inner.get_field_index(part) < 0:
            return None
        inner = inner.field(part).type
    return inner


def _records(file: pq.ParquetFile, text: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of all row groups; a string that is no UTF-8 is the ``UnicodeDecodeError`` in its place."""
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        rows = max(1, min(DECODED_ROWS, DECODED_BYTES * metadata.num_rows // max(1, metadata.total_byte_size)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
            names = batch.schema.names
            columns = [_python_values(column, name == text) for name, column in zip(names, batch.columns, strict=True)]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))


def _python_values(column: pa.Array, is_text: bool) -> list[Any]:
    readable = pa.large_string() if is_text else _readable_type(column.type)
    if readable != column.type:
        # A type that cannot be cast is left as it is; strings that are no UTF-8 come to light below, one by one.
        with suppress(pa.ArrowException):
            column = column.cast(options=pc.CastOptions(readable, allow_invalid_utf8=True))
    try:
        return column.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="lossy")
    except UnicodeDecodeError as error:
        return error
    except (ValueError, OverflowError):
        return None


def _readable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type with times as strings: Python's know neither nanoseconds nor years past 9999."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return _readable_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_readable_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_readable_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_readable_type(kind.value_type))
    return kind


def _judge(record: dict[str, Any], row: int, fields: FieldMap, max_record_bytes: int) -> Document | Quarantined:
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
