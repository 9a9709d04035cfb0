"""The bytes of parts: copied and hashed on the way, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from winnow.store.storage import LocalStorage, PartStorage, RemoteStorage

CHUNK = 2**20
PART_DIGITS = 32
"""How many digits of the SHA-256 of its bytes name a part."""


@contextmanager
def part_bytes(storage: PartStorage, kind: str, digest: str) -> Iterator[IO[bytes]]:
    """Open a part as bytes. Raises an ``OSError`` when it is not there."""
    if isinstance(storage, LocalStorage):
        with storage.path(kind, digest).open("rb") as file:
            yield file
    else:
        remote = cast(RemoteStorage, storage)
        with remote.files.open(remote.uri(kind, digest), "rb") as stream:
            yield cast("IO[bytes]", stream)


def part_sha256(storage: PartStorage, kind: str, digest: str) -> str:
    """Return the SHA-256 of a part's bytes as they are now."""
    with part_bytes(storage, kind, digest) as file:
        return pour(file)


def copy_file(source: Path, target: Path) -> str:
    """Copy a file's bytes, so that they survive a crash of the machine, and return their SHA-256."""
    with source.open("rb") as file, target.open("wb") as copy:
        found = pour(file, copy.write)
        copy.flush()
        os.fsync(copy.fileno())
    return found


def pour(source: IO[bytes], write: Callable[[bytes], Any] = lambda chunk: None) -> str:
    """Hand on every byte of an open file and return their SHA-256."""
    hasher = hashlib.sha256()
    while chunk := source.read(CHUNK):
        hasher.update(chunk)
        write(chunk)
    return hasher.hexdigest()
