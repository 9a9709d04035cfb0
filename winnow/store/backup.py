"""``winnow backup``: the whole of a store in a folder, whatever backend it has; a second one copies only what is new.

    DIR/parts/KIND/DIGEST.parquet    parts, shared by all backups in DIR
    DIR/files/SHA256                 files of manifests, artifacts and checkpoints, shared as well
    DIR/backups/TIME/tables/         every table as Parquet, exported from one consistent state
    DIR/backups/TIME/index.json      what belongs to it, each file with SHA-256 and bytes; written last

A backup without its index does not exist. Everything shared is put in place by a rename and never changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from winnow.errors import UserError
from winnow.identity import digest, digest_file
from winnow.store.connections import quoted
from winnow.store.garbage import SNAPSHOTS, no_garbage_collection
from winnow.store.part_files import PART_DIGITS, copy_file, part_bytes, pour
from winnow.store.schema import tables
from winnow.store.store import Connection, Store, get_meta

FORMAT = "winnow-backup-1"
INDEX = "index.json"


@dataclass(frozen=True)
class BackedUp:
    """A backup that was made: its name, its files, and what it had to copy of them."""

    name: str
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int


def make_backup(store: Store, target: Path) -> BackedUp:
    """Back the store up into ``target`` beside the backups that are there.

    Raises :class:`UserError` when there is no store, another backup is at work in ``target``, or a file of the store is
    damaged; then there is no backup.
    """
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: nothing to back up")
    if target.is_relative_to(store.home.root):
        raise UserError(f"{target} lies in {store.home.root} itself: back up to another place")
    with _alone(target), no_garbage_collection(store):
        _sweep(target)
        name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
        folder = target / "backups" / name
        writer = _Writer(store, target, folder)
        writer.write_tables()
        for kind, part in writer.parts:
            writer.copy_part(kind, part)
        for path in _files(store):
            writer.copy_shared(path)
        return writer.finish(name)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    with (target / "backup.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another backup is at work in {target}: wait until it has ended") from error
        yield


def _sweep(target: Path) -> None:
    """Remove what a killed backup left: the lock is ours."""
    for left in [*target.glob("parts/*/.*.tmp"), *target.glob("files/.*.tmp")]:
        left.unlink(missing_ok=True)
    for folder in target.glob("backups/*"):
        if not (folder / INDEX).exists():
            shutil.rmtree(folder)


def _files(store: Store) -> Iterator[Path]:
    """Yield the regular files of a home that a backup holds beside tables and parts; hidden ones are half written."""
    home = store.home
    if home.config.is_file():
        yield home.config
    for folder in (home.manifests, home.artifacts, home.checkpoints):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(step.startswith(".") for step in path.relative_to(folder).parts):
                yield path


class _Writer:
    """One backup in the making."""

    def __init__(self, store: Store, target: Path, folder: Path) -> None:
        self.store, self.target, self.folder = store, target, folder
        self.parts: list[tuple[str, str]] = []
        self.sizes: dict[str, int] = {}
        self.index: dict[str, Any] = {"tables": {}, "parts": [], "files": []}
        self.copied_files = self.copied_bytes = 0

    def write_tables(self) -> None:
        """Export every table from one state, and note the parts that this state and its manifests need."""
        folder = self.folder / "tables"
        folder.mkdir(parents=True)
        with self.store.read() as connection:
            for table in tables().values():
                if not table.parts:
                    path = folder / f"{table.name}.parquet"
                    connection.execute(f"COPY {table.name} TO '{quoted(str(path))}' (FORMAT parquet, COMPRESSION zstd)")
            self._note(connection)
        for path in sorted(folder.iterdir()):
            _sync(path)
            size = path.stat().st_size
            self.index["tables"][path.stem] = {"sha256": digest_file(path), "bytes": size}
            self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + size

    def _note(self, connection: Connection) -> None:
        self.sizes = dict(connection.execute("SELECT part, bytes FROM parts").fetchall())
        live = connection.execute("SELECT kind, part FROM parts").fetchall()
        kept = connection.execute("SELECT kind, part FROM snapshots").fetchall()
        named = {part for (part,) in connection.execute(SNAPSHOTS).fetchall()} - {part for _, part in [*live, *kept]}
        if named:  # of manifests that are older than the table of snapshots
            kept += [(part.kind, part.digest) for part in self.store.storage.list() if part.digest in named]
        self.parts = sorted({*live, *kept})
        self.index |= {name: get_meta(connection, name) for name in ("schema_version", "generation")}

    def copy_part(self, kind: str, part: str) -> None:
        place = self.target / "parts" / kind / f"{part}.parquet"
        if not place.exists() or place.stat().st_size != self.sizes.get(part, place.stat().st_size):
            temporary = place.with_name(f".{uuid.uuid4().hex}.tmp")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            where = self.store.storage.uri(kind, part)
            try:
                with part_bytes(self.store.storage, kind, part) as source, temporary.open("wb") as copy:
                    found = pour(source, copy.write)[:PART_DIGITS]
            except FileNotFoundError as error:
                raise UserError(
                    f"{where} is missing: `winnow doctor` says what to do; nothing was backed up"
                ) from error
            if found != part:
                temporary.unlink()
                raise UserError(f"{where} is damaged: `winnow doctor --deep` says what to do; nothing was backed up")
            self._place(temporary, place)
        self.index["parts"].append({"kind": kind, "digest": part, "bytes": place.stat().st_size})

    def copy_shared(self, path: Path) -> None:
        temporary = self.target / "files" / f".{uuid.uuid4().hex}.tmp"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        name = path.relative_to(self.store.home.root).as_posix()
        found = digest_file(path)
        place = self.target / "files" / found
        if not place.exists() or place.stat().st_size != path.stat().st_size:
            found = copy_file(path, temporary)  # what was copied counts, not what was there an instant before
            place = self.target / "files" / found
            self._place(temporary, place)
        self.index["files"].append({"path": name, "sha256": found, "bytes": place.stat().st_size})

    def _place(self, temporary: Path, place: Path) -> None:
        self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + temporary.stat().st_size
        _sync(temporary)
        temporary.replace(place)
        _sync(place.parent)

    def finish(self, name: str) -> BackedUp:
        """Write the index, which makes the backup one."""
        record = {
            "format": FORMAT,
            "name": name,
            "made_at": datetime.now(UTC).isoformat(),
            "winnow": version("winnow"),
            "duckdb": duckdb.__version__,
            "backend": self.store.backend.name,
            **self.index,
        }
        record["checksum"] = digest(record)
        temporary = self.folder / f".{INDEX}.tmp"
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _sync(temporary)
        temporary.replace(self.folder / INDEX)
        for folder in (self.folder / "tables", self.folder, self.folder.parent, self.target):
            _sync(folder)
        files = [*record["tables"].values(), *record["parts"], *record["files"]]
        total = sum(file["bytes"] for file in files)
        return BackedUp(name, len(files), total, self.copied_files, self.copied_bytes)


def backup_names(target: Path) -> list[str]:
    """Return the backups in a folder, oldest first."""
    return sorted(path.parent.name for path in target.glob(f"backups/*/{INDEX}"))


def read_index(target: Path, name: str | None = None) -> dict[str, Any]:
    """Return the index of a backup (the newest unless named). Raises :class:`UserError`: none, no such, damaged."""
    names = backup_names(target)
    if not names:
        raise UserError(f"there is no backup in {target}: `winnow backup {target}` makes one")
    if name is not None and name not in names:
        raise UserError(f"there is no backup '{name}' in {target}; there is: {', '.join(names)}")
    path = target / "backups" / (name or names[-1]) / INDEX
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        said = record.pop("checksum")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore another backup with --backup NAME") from error
    if said != digest(record):
        raise UserError(f"{path} was changed after it was written: restore another backup with --backup NAME")
    if record["format"] != FORMAT:
        raise UserError(f"{path} has format {record['format']}, expected {FORMAT}: restore it with a newer Winnow")
    return dict(record)


def _sync(path: Path) -> None:
    """Make a file's or folder's content survive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
