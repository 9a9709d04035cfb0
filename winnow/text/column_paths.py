"""Where the fields of a field map lie in a table's schema, and which columns its documents need."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.arrow_values import is_list, struct_of, unique_names
from winnow.text.records import FieldMap

Path = tuple[str, ...]
"""A column's name, and the names of the fields within it."""


class ColumnPaths:
    """The paths of a field map in columns of these (unique) names and types; what is not there has none.

    ``text`` and ``mapped`` (id, url, date) are what :func:`winnow.text.records.document_from` would take, ``dropped``
    what it removes from the metadata, ``kept`` what stays in it. ``wanted`` names the columns in which all of that
    lies, in their order. ``beyond_structs``: a name leads into a map or the like, where it differs from row to row.
    """

    def __init__(self, kinds: Mapping[str, pa.DataType], fields: FieldMap) -> None:
        self._kinds = kinds
        self.beyond_structs = False
        self.dropped: set[Path] = set()
        self.text = self._resolve(fields.text)
        self.mapped = [self._resolve(name) if name else None for name in (fields.id, fields.url, fields.date)]
        names = [name for name in (fields.text, fields.id, fields.url, fields.date) if name]
        for name in names:
            if path := self._resolve(name):
                self.dropped.add(path)
        if fields.metadata is None:
            tops: set[Path] = {(name,) for name in kinds}
            self.kept = tops - self.dropped
            self.wanted = list(kinds)
        else:
            paths = {path for name in fields.metadata if (path := self._resolve(name))}
            self.kept = {path for path in paths if not any(path[:end] in paths for end in range(1, len(path)))}
            names += fields.metadata
            needed = {*names, *(name.partition(".")[0] for name in names if "." in name)}
            self.wanted = [name for name in kinds if name in needed]

    def kind(self, path: Path) -> pa.DataType:
        """Return the type of the column or field at a path."""
        kind = self._kinds[path[0]]
        for part in path[1:]:
            kind = kind.field(_field_index(kind, part)).type
        return kind

    def _resolve(self, name: str) -> Path | None:
        """Return the path of a name among what is not dropped yet."""
        if name in self._kinds and (name,) not in self.dropped:
            return (name,)
        path = tuple(name.split("."))
        parents = {path[:end] for end in range(1, len(path) + 1)}
        if len(path) == 1 or path[0] not in self._kinds or parents & self.dropped:
            return None
        kind = self._kinds[path[0]]
        for part in path[1:]:
            if not pa.types.is_struct(kind):
                self.beyond_structs |= json_type(kind) == "object"
                return None
            index = _field_index(kind, part)
            if index < 0:
                return None
            kind = kind.field(index).type
        return path


def column_at(columns: Mapping[str, pa.Array], path: Path) -> pa.Array:
    """Return the column or field at a path, null where a struct around it is."""
    column = columns[path[0]]
    for part in path[1:]:
        column = pc.struct_field(column, [_field_index(column.type, part)])
    return column


def without(column: pa.Array, paths: Collection[Path]) -> pa.Array:
    """Return a column without the fields at these paths within it."""
    if not paths:
        return column
    fields = {}
    for index, name in enumerate(_field_names(column.type)):
        within = {path[1:] for path in paths if path[0] == name}
        if () not in within:
            fields[name] = without(column.field(index), within)
    return struct_of(fields, column)


def json_type(kind: pa.DataType) -> str:
    """Return the JSON type that the values of a type have in a record: one of those of :mod:`winnow.text.drift`."""
    if isinstance(kind, pa.BaseExtensionType):
        named = {"arrow.uuid": "string", "arrow.bool8": "boolean"}
        return named.get(kind.extension_name) or json_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return json_type(kind.value_type)
    if pa.types.is_null(kind):
        return "null"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return "object"
    return "array" if is_list(kind) else "string"


def _field_names(kind: pa.StructType) -> list[str]:
    return unique_names([field.name for field in kind])


def _field_index(kind: pa.StructType, name: str) -> int:
    names = _field_names(kind)
    return names.index(name) if name in names else -1
