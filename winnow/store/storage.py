"""Where immutable parts lie: ``<store.data>/parts/<kind>/<digest>.parquet``, in a folder or below a URI.

A part is written to a temporary file of this machine and put in place whole. Nothing here says which parts count: a
transaction does, by listing them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.parquet as pq

from winnow.config import Store as StoreSettings
from winnow.durable import sync
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.faults import StorageError, remote_fault
from winnow.store.remote import check_uri, filesystem, is_remote

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


REQUESTS = 16
"""Remote parts that are asked for at once."""


@dataclass(frozen=True)
class StoredPart:
    """A part that lies in the storage, listed or not; ``modified`` is UTC without a zone, as in the store."""

    kind: str
    digest: str
    bytes: int
    modified: datetime


class PartStorage(Protocol):
    """Holds whole, immutable files named by kind and digest; cheap to make and to pickle, opens nothing until asked.

    Every method raises :class:`StorageError` for a fault of a remote place, and plain ``OSError`` for one of a folder.
    """

    def uri(self, kind: str, digest: str) -> str:
        """Return what DuckDB's ``read_parquet`` takes."""

    def open(self, kind: str, digest: str) -> pq.ParquetFile:
        """Open a part for reading; use it in a ``with`` block. Raises an ``OSError`` when it is not there."""

    def temporary(self, kind: str) -> Path:
        """Return a new path of this machine to write to, its folder made; hand it to :meth:`put` or remove it."""

    def put(self, temporary: Path, kind: str, digest: str) -> None:
        """Put a finished file in place, whole and durable; the temporary is gone afterwards. Doing so twice is well."""

    def exists(self, kind: str, digest: str) -> bool:
        """Return whether a part lies in place."""

    def find(self, kind: str, digest: str) -> StoredPart | None:
        """Return a part as it lies in place now, None when it does not."""

    def missing(self, parts: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those (kind, digest) that do not lie in place now."""

    def list(self) -> Iterator[StoredPart]:
        """Yield every part that lies in place, whether a transaction lists it or not."""

    def remove(self, kind: str, digest: str) -> None:
        """Remove a part; one that is not there is no error."""


@dataclass(frozen=True)
class LocalStorage:
    """Parts below a folder of this machine (or one that several mount); ``put`` is a rename on one file system."""

    root: Path

    def path(self, kind: str, digest: str) -> Path:
        return self.root / kind / f"{digest}.parquet"

    def uri(self, kind: str, digest: str) -> str:
        return str(self.path(kind, digest))

    def open(self, kind: str, digest: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.path(kind, digest))

    def temporary(self, kind: str) -> Path:
        folder = self.root / kind
        _make_durably(folder)
        return folder / f".{uuid.uuid4().hex}.tmp"

    def put(self, temporary: Path, kind: str, digest: str) -> None:
        place = self.path(kind, digest)
        _make_durably(place.parent)
        sync(temporary)  # the file and its name must outlive a crash that the list of parts outlives
        temporary.replace(place)
        sync(place.parent)

    def exists(self, kind: str, digest: str) -> bool:
        return self.path(kind, digest).exists()

    def find(self, kind: str, digest: str) -> StoredPart | None:
        try:
            found = self.path(kind, digest).stat()
        except FileNotFoundError:
            return None
        return StoredPart(kind, digest, found.st_size, _naive(found.st_mtime))

    def missing(self, parts: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        return {part for part in parts if not self.exists(*part)}

    def list(self) -> Iterator[StoredPart]:
        for path in sorted(self.root.glob("*/[!.]*.parquet")):
            found = self.find(path.parent.name, path.stem)
            if found is not None:  # or it was removed meanwhile
                yield found

    def remove(self, kind: str, digest: str) -> None:
        self.path(kind, digest).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteStorage:
    """Parts below a URI; ``put`` uploads to the final key, which shows only once the upload is whole.

    Requests that fail for a passing reason are repeated with backoff before :class:`StorageError` is raised.
    """

    root: str
    scratch: Path

    @property
    def files(self) -> AbstractFileSystem:
        return filesystem(self.root)  # fsspec keeps one for equal settings, and another in a forked process

    def uri(self, kind: str, digest: str) -> str:
        return f"{self.root}/{kind}/{digest}.parquet"

    def open(self, kind: str, digest: str) -> pq.ParquetFile:
        uri = self.uri(kind, digest)
        with self._told(uri):
            # Arrow joins the ranges that it needs; a cache of whole blocks would fetch what nobody asked for.
            return pq.ParquetFile(self.files.open(uri, "rb", cache_type="none"), pre_buffer=True)

    def temporary(self, kind: str) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        return self.scratch / f"part-{uuid.uuid4().hex}.tmp"

    def put(self, temporary: Path, kind: str, digest: str) -> None:
        uri = self.uri(kind, digest)
        with self._told(uri, " to every attempt at the upload"):
            self.files.put_file(str(temporary), uri)
        temporary.unlink()

    def exists(self, kind: str, digest: str) -> bool:
        uri = self.uri(kind, digest)
        with self._told(uri):
            return bool(self.files.exists(uri))

    def find(self, kind: str, digest: str) -> StoredPart | None:
        uri = self.uri(kind, digest)
        with self._told(uri):
            self.files.invalidate_cache()  # other machines write too
            try:
                return StoredPart(kind, digest, *_size_and_moment(self.files.info(uri)))
            except FileNotFoundError:
                return None

    def missing(self, parts: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        parts = list(parts)
        with ThreadPoolExecutor(REQUESTS) as threads:
            there = threads.map(lambda part: self.find(*part) is not None, parts)
            return {part for part, found in zip(parts, there, strict=True) if not found}

    def list(self) -> Iterator[StoredPart]:
        with self._told(self.root):
            found = self.files.find(self.root, detail=True, withdirs=False)
        for key, facts in sorted(found.items()):
            kind, _, name = key.rpartition("/")
            if name.endswith(".parquet"):
                yield StoredPart(kind.rpartition("/")[2], name.removesuffix(".parquet"), *_size_and_moment(facts))

    def remove(self, kind: str, digest: str) -> None:
        uri = self.uri(kind, digest)
        with self._told(uri), suppress(FileNotFoundError):
            self.files.rm_file(uri)

    @contextmanager
    def _told(self, uri: str, attempts: str = "") -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            told = remote_fault(error, uri, attempts)
            if told is None:
                raise
            raise told from error


def data_root(home: Home, settings: StoreSettings) -> str:
    """Return where bulk data lies: an absolute path or a URI. Raises :class:`UserError` for one that is not taken."""
    remote = is_remote(settings.data)
    place = home.resolve(settings.data) if settings.data and not remote else home.store
    if "?" in str(place) or not str(place).isprintable():
        raise UserError(f"{place!s:.200}: DuckDB takes no '?' and no control characters in a path; rename the folder")
    return check_uri(settings.data) if remote else str(place)


def part_storage(home: Home, settings: StoreSettings) -> LocalStorage | RemoteStorage:
    """Return the storage that ``store.data`` names. Raises :class:`UserError` for a URI that is not taken."""
    data = data_root(home, settings)
    return RemoteStorage(f"{data}/parts", home.scratch) if is_remote(data) else LocalStorage(Path(data) / "parts")


def require_parts(storage: PartStorage, listed: dict[str, list[str]], before: str, data: str) -> None:
    """Raise :class:`UserError` when parts that the store lists do not lie where ``store.data`` now says."""
    wanted = {(kind, digest) for kind, digests in listed.items() for digest in digests}
    missing = wanted - {(part.kind, part.digest) for part in storage.list()} if wanted else set()
    if missing:
        raise UserError(
            f"store.data = {data!r} lacks {len(missing)} of {len(wanted)} parts that the store lists; it was "
            f"{before!r} at the last write. Copy parts/ and lake/ from there first, or set store.data back"
        )


def _make_durably(folder: Path) -> None:
    """Make a folder and those above it, each name synced in its parent."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(exist_ok=True)
        sync(step.parent)


def _size_and_moment(facts: Mapping[str, Any]) -> tuple[int, datetime]:
    """Return bytes and last change of a remote file from what its file system says of it."""
    return facts["size"], _naive(facts.get("LastModified") or facts.get("mtime") or facts.get("created"))


def _naive(moment: datetime | float | str | None) -> datetime:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    elif not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment or 0, UTC)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
