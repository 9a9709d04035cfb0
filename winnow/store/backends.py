"""The two kinds of working store: one embedded DuckDB file, or DuckLake.

Both give the same connection: the store's tables are the default schema, settings and limits are applied, extensions
are never fetched from the network.
"""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager
from typing import Protocol

import duckdb

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.connections import SETTINGS, configure
from winnow.store.lake import PostgresLake, SqliteLake
from winnow.store.postgres import PREFIX
from winnow.store.turns import file_turn, waiting


class Backend(Protocol):
    """Opens the working store; raises ``duckdb.IOException`` while another process holds it."""

    name: str

    def exists(self) -> bool:
        """Return whether a store was made; makes nothing."""

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the store, making an empty one where there is none and ``read_only`` is false."""

    def turn(self, deadline_seconds: float) -> AbstractContextManager[None]:
        """Hold the turn to write while the block runs; raises :class:`UserError` naming the holder at the deadline."""


class FileBackend:
    """One DuckDB file: a single writer at a time, and nobody else while it writes."""

    name = "file"

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        self.home, self.settings = home, settings
        self.path = home.store / "store.duckdb"

    def exists(self) -> bool:
        return self.path.exists()

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        if not read_only and not self.path.exists():
            self._create()
        connection = duckdb.connect(self.path, read_only=read_only, config=dict(SETTINGS))
        try:
            configure(connection, self.settings, self.home.scratch)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """Make an empty file under another name first: one that is cut off in its first bytes opens never again."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            duckdb.connect(temporary, config=dict(SETTINGS)).close()
            temporary.replace(self.path)  # the turn to write is ours
        finally:
            temporary.unlink(missing_ok=True)

    def turn(self, deadline_seconds: float) -> AbstractContextManager[None]:
        return file_turn(self.home.store, deadline_seconds)


def make_backend(home: Home, settings: StoreSettings) -> Backend:
    """Return the backend that ``[store]`` names. Raises :class:`UserError` for a catalog or place that is not taken."""
    if settings.backend == "file":
        return FileBackend(home, settings)
    if settings.catalog.startswith(PREFIX):
        return PostgresLake(home, settings)
    if settings.catalog == "sqlite":
        return SqliteLake(home, settings)
    kind = settings.catalog.partition(":")[0][:20]  # no more of it: the rest may hold a password
    raise UserError(f"store.catalog begins with {kind!r}: write 'sqlite' or 'postgres:dbname=... host=... user=...'")


def open_waiting(backend: Backend, read_only: bool, deadline_seconds: float) -> duckdb.DuckDBPyConnection:
    """Open the store, waiting while another process holds the lock. Raises :class:`UserError` at the deadline."""
    return waiting(lambda: backend.open(read_only), deadline_seconds)
