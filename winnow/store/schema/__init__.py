"""Every table of the store: its columns, their meaning, and whether its rows live in DuckDB or in Parquet parts.

This dictionary is the single source of the DDL (both backends), of ``docs/tables.md`` and of the published views.
The types are those that DuckLake has too: no keys, enums, fixed-size arrays or HUGEINT; the writer keeps keys unique.
"""

from __future__ import annotations

from functools import cache

from winnow.store.schema.attribution import attribution
from winnow.store.schema.bookkeeping import bookkeeping
from winnow.store.schema.corpus import corpus
from winnow.store.schema.judgements import judgements
from winnow.store.schema.lab import lab
from winnow.store.schema.model import model
from winnow.store.schema.selection import selection
from winnow.store.schema.table import DOC_ID, Column, Table

__all__ = ["DOC_ID", "SCHEMA_VERSION", "Column", "Table", "tables"]

SCHEMA_VERSION = 4


@cache
def tables() -> dict[str, Table]:
    """Return every table by name, in the order in which a document travels."""
    return {
        table.name: table
        for table in (*corpus(), *judgements(), *model(), *selection(), *attribution(), *lab(), *bookkeeping())
    }
