"""``winnow restore``: a home from a backup, in whatever backend the new home asks for.

Every byte is checked against the backup's index while it is copied into a folder beside the new home, and the tables
are checked to need no part that the backup lacks; only then are they committed, the folder renamed into place and the
store published. A restore that fails takes all of that back. One that is killed leaves

- before the rename a folder ``.NAME.restoring-*``, which the next restore of that home removes; outside of it what was
  put into a Postgres catalog and a ``store.data`` elsewhere, which the next restore finds in use: empty them first;
- after it the whole home, which the next run publishes.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import shutil
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.config import Config, load_config, save_config, validate_config
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.backup_index import CONFIG, read_index
from winnow.store.backup_reader import BackupReader
from winnow.store.lake import LakeBackend, PostgresLake
from winnow.store.remote import filesystem, is_remote
from winnow.store.schema import SCHEMA_VERSION
from winnow.store.store import Store, open_store

log = logging.getLogger(__name__)

LOCK = ".restoring.lock"
"""Held in the folder of a restore for as long as it lives."""
TABLES = ".tables"


@dataclass(frozen=True)
class Restored:
    """A home that was restored: from which backup, into which backend, how many files and bytes were checked."""

    store: Store
    name: str
    backend: str
    files: int
    bytes: int


def restore_backup(target: Path, home: Home, name: str | None = None, backend: str | None = None) -> Restored:
    """Restore a backup in ``target`` (the newest unless named) into a home that is empty, absent or a ``winnow.toml``.

    The section ``[store]`` of that file wins over the backup's, and ``backend`` over both. The store is published.
    Raises :class:`UserError`: the home holds more than that, the place named by ``[store]`` holds a store already, or
    the backup is damaged, naming the file.
    """
    record = read_index(target, name)
    if int(record["schema_version"]) > SCHEMA_VERSION:
        raise UserError(f"backup {record['name']} is of schema version {record['schema_version']}: upgrade winnow")
    _sweep(home.root)
    own = _own_config(home)
    with _working_folder(home.root) as work:
        copied = BackupReader(target, record)
        copied.files_into(work)
        config = _configured(work, own, backend)
        store = open_store(Home(work), config.store)
        _require_unused(store)
        copied.tables_into(work / TABLES)
        with _taken_back(store, copied):
            copied.parts_into(store)
            copied.commit(store, work / TABLES)
            shutil.rmtree(work / TABLES)
            with _into_place(work, home.root):
                restored = open_store(home)
                restored.publish()
    return Restored(restored, record["name"], config.store.backend, copied.files, copied.bytes)


# -- the folder beside the home ----------------------------------------------------------------------------------------


def _sweep(root: Path) -> None:
    """Remove what killed restores of a home left beside it. Raises :class:`UserError` when one is still at work."""
    for folder in [*root.parent.glob(f".{glob.escape(root.name)}.restoring-*"), root]:
        if folder == root and not (root / LOCK).exists():
            continue
        with _locked(folder, root):
            if folder == root:
                (root / LOCK).unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)
    aside = _aside(root)
    if aside.exists() and not root.exists():
        aside.rename(root)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(root: Path) -> Path:
    """Return where a ``winnow.toml`` that was there waits until its home is published."""
    return root.with_name(f".{root.name}.before")


@contextmanager
def _working_folder(root: Path) -> Iterator[Path]:
    """Make a folder beside a home that nobody sweeps, and remove what is left of it."""
    work = root.parent / f".{root.name}.restoring-{uuid.uuid4().hex}"
    work.mkdir(parents=True)
    try:
        with _locked(work, root):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(folder: Path, root: Path) -> Iterator[None]:
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another restore of {root} is at work: wait until it has ended") from error
        yield


@contextmanager
def _into_place(work: Path, root: Path) -> Iterator[None]:
    """Rename a finished home into place while the block runs, and back when it fails.

    A ``winnow.toml`` that was there steps aside first and is removed in the end.
    """
    aside = _aside(root)
    if root.exists():
        root.rename(aside)
    try:
        work.rename(root)
        try:
            yield
        except BaseException:
            root.rename(work)
            raise
    except BaseException:
        if aside.exists():
            aside.rename(root)
        raise
    (root / LOCK).unlink()
    shutil.rmtree(aside, ignore_errors=True)


# -- the places outside of it ------------------------------------------------------------------------------------------


def _require_unused(store: Store) -> None:
    """Raise :class:`UserError` when another store uses the catalog or the data: gc of one would empty the other."""
    if store.backend.exists():
        raise UserError(
            "the place that [store] names holds a store already (or what a killed restore left): restore into another "
            "catalog and data, or empty them"
        )
    part = next(store.storage.list(), None)
    found = store.storage.uri(part.kind, part.digest) if part is not None else _lake_file(store)
    if found is not None:
        raise UserError(f"the place that store.data names is in use (it holds {found}): name another, or empty it")


def _lake_file(store: Store) -> str | None:
    """Return a file of a lake's own in ``store.data``."""
    if not isinstance(store.backend, LakeBackend):
        return None
    data = store.backend.data
    if is_remote(data):
        return next(iter(filesystem(data).find(data)), None)
    return next((str(path) for path in Path(data).rglob("*") if path.is_file()), None)


@contextmanager
def _taken_back(store: Store, copied: BackupReader) -> Iterator[None]:
    """Take away what this restore put in storage and catalog when the block fails: it may lie outside the folder."""
    try:
        yield
    except BaseException:
        try:
            for kind, part in copied.placed:
                store.storage.remove(kind, part)
            if copied.committing and isinstance(store.backend, LakeBackend):
                _drop_lake(store.backend)
        except Exception:
            log.warning("what the restore put into the catalog and store.data could not be taken back", exc_info=True)
        raise


def _drop_lake(lake: LakeBackend) -> None:
    """Remove the catalog's tables, and the data files that they name."""
    if isinstance(lake, PostgresLake):
        query = (
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
            " WHERE table_name LIKE 'ducklake\\_%'"
        )
        with lake.database.attached("taken_back") as connection:
            found = connection.execute(
                "SELECT * FROM postgres_query('taken_back', $query)", {"query": query}
            ).fetchall()
            for (name,) in found:
                connection.execute("CALL postgres_execute('taken_back', $drop)", {"drop": f"DROP TABLE {name}"})
    if not is_remote(lake.data):
        shutil.rmtree(lake.data, ignore_errors=True)
    elif filesystem(lake.data).exists(lake.data):
        filesystem(lake.data).rm(lake.data, recursive=True)


# -- the configuration -------------------------------------------------------------------------------------------------


def _own_config(home: Home) -> dict[str, Any] | None:
    """Return the home's own ``[store]``, None without. Raises :class:`UserError` when the home holds anything else."""
    if home.root.exists() and not home.root.is_dir():
        raise UserError(f"{home.root} is a file: name a folder with --home")
    inside = sorted(path.name for path in home.root.iterdir()) if home.root.is_dir() else []
    if set(inside) - {CONFIG}:
        raise UserError(
            f"{home.root} is not empty (it holds {', '.join(inside[:5])}): restore into a new one with --home"
        )
    if not inside:
        return None
    load_config(home.config)  # so that a mistake in it is told as one
    own = tomllib.loads(home.config.read_text())
    if set(own) - {"store"}:
        others = ", ".join(sorted(set(own) - {"store"}))
        raise UserError(f"{home.config} has {others}: a restore takes all but [store] from the backup; take it out")
    return dict(own.get("store", {}))


def _configured(work: Path, own: dict[str, Any] | None, backend: str | None) -> Config:
    """Return the configuration of the new home, and write it there where it differs from the backup's."""
    path = work / CONFIG
    if own is None and backend is None:
        return load_config(path)
    raw = tomllib.loads(path.read_text()) if path.exists() else {}
    if own is not None:
        raw["store"] = own
    if backend is not None:
        raw["store"] = raw.get("store", {}) | {"backend": backend}
    config = validate_config(raw, path)
    save_config(config, path)
    return config
