"""The two places a store can live in: one embedded DuckDB file, or DuckLake with a SQLite catalog.

Both give the same connection: the store's tables are the default schema, settings and limits are applied, extensions
are never fetched from the network.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, TypeVar

import duckdb

from winnow.config import Store as StoreSettings
from winnow.errors import UserError

T = TypeVar("T")

SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "arrow_lossless_conversion": "true",  # UUID columns arrive as arrow.uuid, not as text
}
BUSY = ("Could not set lock on file", "database is locked", "Conflicting lock", "different configuration")


class Backend(Protocol):
    """Opens the working store; raises ``duckdb.IOException`` while another process holds it."""

    name: str

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection: ...

    def exists(self) -> bool: ...


def configure(connection: duckdb.DuckDBPyConnection, settings: StoreSettings, scratch: Path) -> None:
    """Apply memory limit, threads and temporary folder to a connection."""
    scratch.mkdir(parents=True, exist_ok=True)
    connection.execute("SET memory_limit = $limit", {"limit": settings.memory_limit})
    connection.execute("SET temp_directory = $path", {"path": str(scratch)})
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET TimeZone = 'UTC'")
    if settings.threads:
        connection.execute("SET threads = $threads", {"threads": settings.threads})


class FileBackend:
    """One DuckDB file: a single writer at a time, and nobody else while it writes."""

    name = "file"

    def __init__(self, folder: Path, settings: StoreSettings, scratch: Path) -> None:
        self.path, self.settings, self.scratch = folder / "store.duckdb", settings, scratch

    def exists(self) -> bool:
        return self.path.exists()

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(self.path, read_only=read_only, config=dict(SETTINGS))
        configure(connection, self.settings, self.scratch)
        return connection


class LakeBackend:
    """DuckLake: catalog in SQLite, data as Parquet; readers never wait."""

    name = "lake"

    def __init__(self, folder: Path, settings: StoreSettings, scratch: Path) -> None:
        self.folder, self.settings, self.scratch = folder, settings, scratch
        self.catalog = folder / "catalog.sqlite"

    def exists(self) -> bool:
        return self.catalog.exists()

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        self.folder.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(":memory:", config=dict(SETTINGS))
        configure(connection, self.settings, self.scratch)
        try:
            for name in ("ducklake", "sqlite_scanner"):
                load_extension(connection, name)
            # ATTACH takes no parameters; both paths are Winnow's own, quotes doubled.
            catalog, data = (str(path).replace("'", "''") for path in (self.catalog, self.folder / "lake"))
            # The journal mode stays with the catalog: with WAL a reader's snapshot does not stop a writer's commit.
            mode = "READ_ONLY" if read_only else "META_JOURNAL_MODE 'WAL'"
            connection.execute(
                f"ATTACH 'ducklake:sqlite:{catalog}' AS lake (DATA_PATH '{data}', META_BUSY_TIMEOUT 5000, {mode})"
            )
            connection.execute("SET ducklake_max_retry_count = 100")
            connection.execute("USE lake")
        except BaseException:
            connection.close()
            raise
        return connection


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load a DuckDB extension from its wheel. Raises :class:`UserError` when the extra is not installed."""
    try:
        package = importlib.import_module(f"duckdb_extension_{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"store.backend = 'lake' needs the DuckDB extension {name}: install it with pip install 'winnow[lake]'"
        ) from error
    folder = Path(str(package.__file__)).parent / "extensions" / f"v{duckdb.__version__}"
    path = folder / f"{name}.duckdb_extension"
    if not path.exists():
        raise UserError(f"{package.__name__} has no {name} for DuckDB {duckdb.__version__}; install duckdb==1.5.5")
    connection.execute(f"LOAD '{str(path).replace(chr(39), chr(39) * 2)}'")


def is_busy(error: Exception) -> bool:
    """Return whether an error says that another process holds the file."""
    return any(sign in str(error) for sign in BUSY)


def make_backend(folder: Path, settings: StoreSettings, scratch: Path) -> Backend:
    kinds: dict[str, type[FileBackend] | type[LakeBackend]] = {"file": FileBackend, "lake": LakeBackend}
    return kinds[settings.backend](folder, settings, scratch)


@contextmanager
def writing_turn(folder: Path, deadline_seconds: float) -> Iterator[None]:
    """Hold the turn to write. Raises :class:`UserError` naming the holder at the deadline.

    Neither backend is enough: threads share a DuckDB file's lock, and DuckLake lets transactions run side by side; both
    then refuse the later of two commits that touch the same row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "write.lock").open("a+") as lock:
        waiting(lambda: _take(lock), deadline_seconds)
        lock.truncate(0)
        lock.write(f"PID {os.getpid()}")
        lock.flush()
        yield


def _take(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise BlockingIOError(f"it is being written by {lock.read() or 'another process'}") from error


def open_waiting(backend: Backend, read_only: bool, deadline_seconds: float) -> duckdb.DuckDBPyConnection:
    """Open the store, waiting while another process holds the lock. Raises :class:`UserError` at the deadline."""
    return waiting(lambda: backend.open(read_only), deadline_seconds)


def waiting(attempt: Callable[[], T], deadline_seconds: float) -> T:
    """Try until nobody else holds the store. Raises :class:`UserError` naming the holder at the deadline."""
    end = time.monotonic() + deadline_seconds
    delay = 0.01
    while True:
        try:
            return attempt()
        except (duckdb.IOException, duckdb.ConnectionException, duckdb.TransactionException, BlockingIOError) as error:
            if not (isinstance(error, BlockingIOError) or is_busy(error)):
                raise
            if time.monotonic() > end:
                raise UserError(
                    f"the working store stayed locked for {deadline_seconds:g} s ({str(error).splitlines()[0]}); "
                    "query the published winnow.duckdb instead of the file in store/, or raise store.lock_wait_seconds"
                ) from error
            time.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            delay = min(delay * 2, 0.5)
