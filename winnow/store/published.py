"""Opening the published file: one whole state, whatever users' shells do to the file or leave beside it.

DuckDB finds a file's log by name. A shell that writes to an older published file makes its log beside the newest one,
and whoever opens that by its name plays the log back, a mixture of two states. So Winnow opens the file under another
name, that of a link in a folder of its own, where no log can lie, and takes such logs away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import duckdb

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.connections import READING, configure
from winnow.store.store import Connection, get_meta, open_store
from winnow.store.turns import is_busy

HEADERS = 3 * 4096
"""Bytes at the start of a DuckDB file that every checkpoint changes: what they point to is not overwritten before."""
ATTEMPTS = 5


def open_published(home: Home, settings: StoreSettings | None = None) -> Connection:
    """Open the published file read-only, able to read where its parts lie, within ``store.memory_limit``.

    Without ``settings`` these are those of the home's ``winnow.toml``. Raises :class:`UserError` when there is no
    published file, a shell keeps writing to it, or the extension for its parts is not installed.
    """
    if not home.published.exists():
        raise UserError(f"{home.published} does not exist: run `winnow demo` or `winnow run` first, or set WINNOW_HOME")
    settings = settings or open_store(home).settings
    scratch = _scratch(home)
    connection = _open_apart(home, scratch)
    try:
        data = get_meta(connection, "data") or ""
        configure(connection, settings.model_copy(update={"data": data}), scratch)
        connection.execute("SET preserve_insertion_order = true")  # so that the first rows are the same each time
    except BaseException:
        connection.close()
        raise
    return connection


def remove_logs(home: Home) -> None:
    """Remove what shells that wrote to a published file left beside it."""
    for log in _logs(home):
        log.unlink(missing_ok=True)


def _logs(home: Home) -> list[Path]:
    return list(home.root.glob(f"{home.published.name}.wal*"))


def _scratch(home: Home) -> Path:
    """Return a folder that can be written, also where the home is somebody else's."""
    with suppress(OSError):
        home.scratch.mkdir(parents=True, exist_ok=True)
        if os.access(home.scratch, os.W_OK):
            return home.scratch
    return Path(tempfile.gettempdir())


def _open_apart(home: Home, scratch: Path) -> Connection:
    """Open the file where no log lies beside it: through a link, or as a copy; by its own name as the last resort.

    A name of its own also gives every opening its own instance: DuckDB shares one among all that open a path, with
    its memory limit and the lock on its configuration.
    """
    with tempfile.TemporaryDirectory(prefix="published-", dir=scratch) as folder:
        apart = Path(folder) / home.published.name  # the same name, as SQL may say winnow.documents
        linked = True
        try:
            os.link(home.published, apart)
        except OSError:  # the scratch folder is on another file system, or the file somebody else's
            linked = False
        try:
            if linked or not _logs(home):
                connection = duckdb.connect(apart if linked else home.published, read_only=True, config=dict(READING))
                with suppress(OSError):
                    remove_logs(home)  # nobody writes to the file, so that they are another's
                return connection
        except duckdb.IOException as error:
            if not is_busy(error):
                raise
        apart.unlink(missing_ok=True)
        _copy_whole(home.published, apart)  # a shell holds the file for writing, or its log cannot be trusted
        return duckdb.connect(apart, read_only=True, config=dict(READING))


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a DuckDB file that another process may write to, as of one of its checkpoints."""
    for _ in range(ATTEMPTS):
        before = _headers(source)
        shutil.copyfile(source, target)
        if before == _headers(target) == _headers(source):
            return
    raise UserError(f"{source} is being written by a DuckDB shell: close it, and open the file read-only")


def _headers(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADERS)
