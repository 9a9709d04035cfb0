"""``winnow restore``: a home from a backup, in whatever backend the new home asks for.

Every byte is checked against the backup's index while it is copied into a folder beside the new home; only what is
whole is renamed into place. So a killed or refused restore leaves nothing that looks like a home.
"""

from __future__ import annotations

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
from winnow.store.backup import FORMAT, INDEX, read_index
from winnow.store.connections import quoted
from winnow.store.part_files import copy_file
from winnow.store.schema import SCHEMA_VERSION
from winnow.store.store import Store, get_meta, open_store, set_meta

CONFIG = "winnow.toml"


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
    if int(record["schema_version"] or 0) > SCHEMA_VERSION:
        raise UserError(f"backup {record['name']} is of schema version {record['schema_version']}: upgrade winnow")
    own = _own_config(home)
    work = home.root.parent / f".{home.root.name}.restoring-{uuid.uuid4().hex}"
    work.mkdir(parents=True)
    try:
        copied = _Reader(target, record)
        copied.files_into(work)
        config = _configured(work, own, backend)
        store = open_store(Home(work), config.store)
        _require_unused(store)
        with _taken_back(store):
            copied.parts_into(store)
            copied.tables_into(store, work)
            _into_place(work, home.root)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    restored = open_store(home)
    restored.publish()
    return Restored(restored, record["name"], config.store.backend, copied.files, copied.bytes)


def _require_unused(store: Store) -> None:
    """Raise :class:`UserError` when another store uses the catalog or the data: gc of one would empty the other."""
    if store.backend.exists():
        raise UserError("the place that [store] names holds a store already: restore into another catalog and data")
    part = next(store.storage.list(), None)
    if part is not None:
        place = store.storage.uri(part.kind, part.digest)
        raise UserError(f"the place that store.data names is in use (it holds {place}): name another, or empty it")


@contextmanager
def _taken_back(store: Store) -> Iterator[None]:
    """Take away what was put in the storage when the block fails: it may lie outside the folder that goes."""
    try:
        yield
    except BaseException:
        for part in list(store.storage.list()):
            store.storage.remove(part.kind, part.digest)
        raise


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


class _Reader:
    """Copies what a backup holds, and checks each file against the index."""

    def __init__(self, target: Path, record: dict[str, Any]) -> None:
        self.target, self.record = target, record
        self.folder = target / "backups" / record["name"]
        self.files = self.bytes = 0

    def _copy(self, source: Path, place: Path, size: int, expected: str) -> None:
        """Copy a file whose SHA-256 has to begin with ``expected``."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = copy_file(source, place)
        except FileNotFoundError as error:
            raise UserError(f"{source} is missing: the backup {self.record['name']} is damaged") from error
        if not found.startswith(expected):
            raise UserError(f"{source} was changed after it was written: the backup {self.record['name']} is damaged")
        self.files, self.bytes = self.files + 1, self.bytes + size

    def files_into(self, work: Path) -> None:
        for file in self.record["files"]:
            place = work / file["path"]
            if not place.resolve().is_relative_to(work.resolve()):
                raise UserError(f"{self.folder / INDEX}: '{file['path']}' leads out of the home; this is no {FORMAT}")
            self._copy(self.target / "files" / file["sha256"], place, file["bytes"], file["sha256"])

    def parts_into(self, store: Store) -> None:
        for part in self.record["parts"]:
            source = self.target / "parts" / part["kind"] / f"{part['digest']}.parquet"
            temporary = store.storage.temporary(part["kind"])
            self._copy(source, temporary, part["bytes"], part["digest"])
            store.storage.put(temporary, part["kind"], part["digest"])

    def tables_into(self, store: Store, work: Path) -> None:
        """Make every table as it was, in one transaction; the first read or write brings an older schema forward."""
        copies = work / f".{uuid.uuid4().hex}"
        for name, file in self.record["tables"].items():
            source = self.folder / "tables" / f"{name}.parquet"
            self._copy(source, copies / f"{name}.parquet", file["bytes"], file["sha256"])
        with store.backend.turn(store.settings.lock_wait_seconds):
            connection = store.backend.open(False)
            try:
                connection.execute("BEGIN")
                for name in self.record["tables"]:
                    rows = quoted(str(copies / f"{name}.parquet"))
                    connection.execute(f"CREATE TABLE \"{name}\" AS FROM read_parquet('{rows}')")
                if (get_meta(connection, "data") or "") != store.settings.data:  # where its readers find the parts
                    set_meta(connection, "data", store.settings.data)
                connection.execute("COMMIT")
            finally:
                connection.close()
        shutil.rmtree(copies)


def _into_place(work: Path, root: Path) -> None:
    """Rename a finished home into place; a ``winnow.toml`` that was there steps aside first and is then removed."""
    aside = root.with_name(f".{root.name}.before-{uuid.uuid4().hex}")
    if root.exists():
        root.rename(aside)
    work.rename(root)
    shutil.rmtree(aside, ignore_errors=True)
