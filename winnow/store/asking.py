"""A user's own SQL: it reads the published store or a manifest's, and can change nothing, neither there nor elsewhere.

Three walls: one statement, which has to be a query; files and addresses closed to it but for the parts of the store
and the spill folder, with the configuration locked; and the published file open read-only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from winnow.errors import UserError
from winnow.home import Home
from winnow.store.published import open_published
from winnow.store.snapshots import open_at
from winnow.store.store import Connection

EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)
Fetch = Callable[[int], list[tuple[Any, ...]]]


def open_for_questions(home: Home, version: str | None = None) -> Connection:
    """Open the published store, or that of a manifest, so that SQL can read its parts and touch nothing else."""
    connection = open_at(home, version) if version else open_published(home)
    try:
        views = connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
        files = sorted({name.replace("''", "'") for (sql,) in views for name in PART.findall(sql)})
        connection.execute("SET allowed_paths = $files", {"files": files})
        connection.execute("SET allow_unsigned_extensions = false")  # those of the store are loaded
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


PART = re.compile(r"'((?:[^']|'')*\.parquet)'")


def ask(connection: Connection, sql: str) -> tuple[list[str], Fetch]:
    """Run one query; return its columns and a function that fetches the next rows, none at the end.

    Rows are computed as they are fetched. Raises :class:`UserError` when it is no query and when it fails, also while
    fetching.
    """
    with_told_errors(lambda: _require_query(connection, sql))
    cursor = with_told_errors(lambda: connection.execute(sql))
    columns = [column[0] for column in cursor.description or ()]
    return columns, lambda rows: with_told_errors(lambda: cursor.fetchmany(rows))


def ask_table(connection: Connection, sql: str) -> pa.Table:
    """Run one query and return all its rows as Arrow. Raises :class:`UserError` as :func:`ask` does."""
    with_told_errors(lambda: _require_query(connection, sql))
    table: pa.Table = with_told_errors(lambda: connection.execute(sql).to_arrow_table())
    return table


def with_told_errors(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except duckdb.Error as error:
        told = str(error).partition("\n\nLINE ")[0]  # without the echo of the query
        raise UserError(f"the query failed: {' '.join(told.split())}") from error


def _require_query(connection: Connection, sql: str) -> None:
    kinds = [statement.type.name for statement in connection.extract_statements(sql)]
    if kinds == ["EXPLAIN"]:  # it runs what it explains, if it is told to
        explained = EXPLAIN.sub("", sql, count=1)
        kinds = [statement.type.name for statement in connection.extract_statements(explained)]
    if kinds[-1:] == ["SELECT"] and set(kinds[:-1]) == {"CREATE"} and ";" not in sql.rstrip().removesuffix(";"):
        return  # one statement, then: a pivot, which DuckDB takes apart into temporary types and a query
    if kinds != ["SELECT"]:
        found = ", ".join(kind for kind in kinds if kind != "SELECT") or f"{len(kinds)} statements"
        raise UserError(
            f"winnow sql is read-only and takes one query, not {found}; open winnow.duckdb with DuckDB to do more"
        )
