"""``winnow backup``: the whole of a store in a folder, whatever backend it has; a second one copies only what is new.

    DIR/parts/KIND/DIGEST.parquet    parts, shared by all backups in DIR
    DIR/files/SHA256                 files of manifests, artifacts and checkpoints, shared as well
    DIR/backups/TIME/tables/         every table as Parquet, exported from one consistent state
    DIR/backups/TIME/index.json      what belongs to it, each file with SHA-256 and bytes; written last

A backup without its index does not exist. Everything shared is put in place by a rename and never changed, but for what
turns out to be damaged: that is copied anew.
"""

from __future__ import annotations

import fcntl
import json
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

from winnow.durable import sync
from winnow.errors import UserError
from winnow.identity import digest, digest_file
from winnow.store.backup_index import CONFIG, FOLDERS, FORMAT, INDEX
from winnow.store.connections import quoted
from winnow.store.frozen import frozen
from winnow.store.garbage import SNAPSHOTS, no_garbage_collection
from winnow.store.part_files import PART_DIGITS, copy_file, part_bytes, pour
from winnow.store.schema import tables
from winnow.store.store import Connection, Store, get_meta


@dataclass(frozen=True)
class BackedUp:
    """A backup that was made: its name, its files, what it copied of them, how many of these replaced damaged ones."""

    name: str
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    replaced_files: int


def make_backup(store: Store, target: Path, verify: bool = False) -> BackedUp:
    """Back the store up into ``target`` beside the backups that are there.

    A file that is in ``target`` already is taken for whole when it has the store's size; with ``verify`` it is hashed.
    One that is not whole is copied anew. Raises :class:`UserError` when there is no store, another backup is at work in
    ``target``, or a file of the store is damaged or missing; then there is no backup.
    """
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: nothing to back up")
    if target.is_relative_to(store.home.root):
        raise UserError(f"{target} lies in {store.home.root} itself: back up to another place")
    with _alone(target), no_garbage_collection(store):
        _sweep(target)
        name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
        folder = target / "backups" / name
        writer = _Writer(store, target, folder, verify)
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
    if (home.root / CONFIG).is_file():
        yield home.root / CONFIG
    for folder in (home.root / name for name in FOLDERS):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(step.startswith(".") for step in path.relative_to(folder).parts):
                yield path


class _Writer:
    """One backup in the making."""

    def __init__(self, store: Store, target: Path, folder: Path, verify: bool) -> None:
        self.store, self.target, self.folder, self.verify = store, target, folder, verify
        self.parts: list[tuple[str, str]] = []
        self.sizes: dict[tuple[str, str], int] = {}
        self.index: dict[str, Any] = {"tables": {}, "parts": [], "files": []}
        self.copied_files = self.copied_bytes = self.replaced_files = 0

    def write_tables(self) -> None:
        """Export every table from one state, and note the parts that this state and its manifests need.

        Others write meanwhile: a store in one file is exported from a copy.
        """
        folder = self.folder / "tables"
        folder.mkdir(parents=True)
        with frozen(self.store) as connection:
            for table in tables().values():
                if not table.parts:
                    path = folder / f"{table.name}.parquet"
                    connection.execute(f"COPY {table.name} TO '{quoted(str(path))}' (FORMAT parquet, COMPRESSION zstd)")
            self._note(connection)
        for path in sorted(folder.iterdir()):
            sync(path)
            size = path.stat().st_size
            self.index["tables"][path.stem] = {"sha256": digest_file(path), "bytes": size}
            self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + size

    def _note(self, connection: Connection) -> None:
        self.sizes = {(part.kind, part.digest): part.bytes for part in self.store.storage.list()}
        live = connection.execute("SELECT kind, part FROM parts").fetchall()
        kept = connection.execute("SELECT kind, part FROM snapshots").fetchall()
        named = {part for (part,) in connection.execute(SNAPSHOTS).fetchall()} - {part for _, part in [*live, *kept]}
        if named:  # of manifests that are older than the table of snapshots
            found = {(kind, part) for kind, part in self.sizes if part in named} | self._held(named)
            if lost := named - {part for _, part in found}:
                raise UserError(
                    f"{len(lost)} parts that manifests need are missing, {min(lost)} among them: `winnow doctor` says "
                    "what to do; nothing was backed up"
                )
            kept += found
        self.parts = sorted({*live, *kept})
        self.index |= {name: get_meta(connection, name) for name in ("schema_version", "generation")}

    def _held(self, digests: set[str]) -> set[tuple[str, str]]:
        """Return those of some parts that the backup folder has."""
        return {
            (path.parent.name, path.stem) for path in self.target.glob("parts/*/[!.]*.parquet") if path.stem in digests
        }

    def copy_part(self, kind: str, part: str) -> None:
        """Copy a part unless the backup has it; one that the store lost stays as it is there, when it is whole."""
        place = self.target / "parts" / kind / f"{part}.parquet"
        if not self._whole(place, part, self.sizes.get((kind, part))):
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

    def _whole(self, place: Path, expected: str, size: int | None) -> bool:
        """Return whether a shared file is in place with its size; with its digest too when asked, or without a size."""
        if not place.exists():
            return False
        if size is not None and (place.stat().st_size != size or not self.verify):
            return place.stat().st_size == size
        return digest_file(place)[: len(expected)] == expected

    def copy_shared(self, path: Path) -> None:
        temporary = self.target / "files" / f".{uuid.uuid4().hex}.tmp"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        name = path.relative_to(self.store.home.root).as_posix()
        found = digest_file(path)
        place = self.target / "files" / found
        if not self._whole(place, found, path.stat().st_size):
            found = copy_file(path, temporary)  # what was copied counts, not what was there an instant before
            place = self.target / "files" / found
            self._place(temporary, place)
        self.index["files"].append({"path": name, "sha256": found, "bytes": place.stat().st_size})

    def _place(self, temporary: Path, place: Path) -> None:
        self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + temporary.stat().st_size
        self.replaced_files += place.exists()
        sync(temporary)
        temporary.replace(place)
        sync(place.parent)

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
        sync(temporary)
        temporary.replace(self.folder / INDEX)
        for folder in (self.folder / "tables", self.folder, self.folder.parent, self.target):
            sync(folder)
        files = [*record["tables"].values(), *record["parts"], *record["files"]]
        total = sum(file["bytes"] for file in files)
        return BackedUp(name, len(files), total, self.copied_files, self.copied_bytes, self.replaced_files)
