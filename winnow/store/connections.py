"""Settings that every DuckDB connection of Winnow has, whatever it opens."""

from __future__ import annotations

from pathlib import Path

import duckdb

from winnow.config import Store as StoreSettings
from winnow.store.memory import duckdb_limit
from winnow.store.remote import prepare

SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Extensions come from installed wheels, trusted like duckdb's own; checking their signatures anew would cost each
    # connection to a lake half a second.
    "allow_unsigned_extensions": "true",
    "arrow_lossless_conversion": "true",  # UUID columns arrive as arrow.uuid, not as text
}

READING = SETTINGS | {"allow_persistent_secrets": "false"}
"""Where users ask. Not elsewhere: attaching Postgres needs DuckDB's own storage of secrets to be there."""


def configure(connection: duckdb.DuckDBPyConnection, settings: StoreSettings, scratch: Path) -> None:
    """Apply memory limit, threads and temporary folder to a connection, and let it read where the parts lie."""
    scratch.mkdir(parents=True, exist_ok=True)
    connection.execute("SET memory_limit = $limit", {"limit": duckdb_limit(settings.memory_limit)})
    connection.execute("SET temp_directory = $path", {"path": str(scratch)})
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # it would be drawn into what a command prints
    if settings.threads:
        connection.execute("SET threads = $threads", {"threads": settings.threads})
    prepare(connection, settings.data)


def quoted(text: str) -> str:
    """Return a text as it stands inside single quotes, for statements that take no parameters."""
    return text.replace("'", "''")
