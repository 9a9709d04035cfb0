"""Whose turn it is to write, and waiting for it."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import duckdb

from winnow.errors import UserError

T = TypeVar("T")

BUSY = (
    "Could not set lock on file",
    "database is locked",
    "Conflicting lock",
    "different configuration",
    "the database system is starting up",
    "too many clients already",
)


def is_busy(error: Exception) -> bool:
    """Return whether an error says that others hold the store, or all the places to reach it by."""
    return any(sign in str(error) for sign in BUSY)


@contextmanager
def file_turn(folder: Path, deadline_seconds: float, name: str = "write", doing: str = "written") -> Iterator[None]:
    """Hold the turn to write on this machine. Raises :class:`UserError` naming the holder at the deadline.

    ``name`` and ``doing`` are of another turn, such as that to publish.
    No backend is enough: threads share a DuckDB file's lock, and DuckLake lets transactions run side by side; both
    then refuse the later of two commits that touch the same row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a+") as lock:
        waiting(lambda: _take(lock, doing), deadline_seconds)
        with suppress(OSError):  # on a full disk nobody learns who it is
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), f"PID {os.getpid()}".encode())
        yield


def _take(lock: IO[str], doing: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise BlockingIOError(f"it is being {doing} by {lock.read() or 'another process'}") from error


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
