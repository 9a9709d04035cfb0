"""What a table of the store is."""

from __future__ import annotations

from dataclasses import dataclass

Column = tuple[str, str, str]
"""name, DuckDB type, meaning"""


@dataclass(frozen=True)
class Table:
    """One table: ``parts`` says that its rows are immutable Parquet files that a published view reads.

    ``key`` are the columns that identify a row. ``document`` names the column of documents that the row judges, so that
    the row goes (tables) or is hidden (parts) when the last occurrence of the document goes.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    stage: str
    parts: bool = False
    document: str | None = None
    internal: bool = False

    def create(self) -> str:
        columns = ", ".join(f'"{name}" {kind}' for name, kind, _ in self.columns)
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})"


DOC_ID: Column = ("doc_id", "UUID", "xxh3-128 of the document's UTF-8 text")
