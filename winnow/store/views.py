"""Views over parts: an explicit list of files."""

from __future__ import annotations

import json
from collections.abc import Sequence

import duckdb

from winnow.store.connections import quoted
from winnow.store.schema import Table

MIXED = "mixed"
"""What ``part_columns`` in ``meta`` says of a table some of whose parts may lack a column."""


def files_view(table: Table, uris: Sequence[str], uniform: bool = False) -> str:
    """Return the SELECT of a table's columns from Parquet files; rows of documents that are gone are hidden.

    Where the files are not ``uniform``, some may lack a column, which is null there: every file's footer is then read
    whenever the view is bound.
    """
    columns = ", ".join(f'"{column}"' for column, _, _ in table.columns)
    nothing = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind, _ in table.columns)
    if not uris:
        return f"SELECT {nothing} WHERE false"
    files = ", ".join(f"'{quoted(uri)}'" for uri in uris)
    by_name = "" if uniform else ", union_by_name = true"
    rows = f"(FROM read_parquet([{files}]{by_name}) UNION ALL BY NAME SELECT {nothing} WHERE false)"
    if not table.parts or not table.document:
        return f"SELECT {columns} FROM {rows}"  # noqa: S608
    same = "doc_id, shard, row" if table.name == "texts" else table.document
    return f"SELECT {columns} FROM {rows} SEMI JOIN documents USING ({same})"  # noqa: S608


def uniform_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the parts-backed tables whose live parts all have the dictionary's columns, as far as the store knows."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'part_columns'").fetchone()
    known: dict[str, str] = json.loads(row[0]) if row else {}
    return {name for name, columns in known.items() if columns != MIXED}
