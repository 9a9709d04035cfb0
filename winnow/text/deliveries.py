"""What has been delivered: compare the files of the corpus locations with the shards that are known.

A *delivery* is a batch of files to read and of shards to withdraw; it is one partition of the ``shards`` dimension.
Nothing is read here but names, sizes and times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from winnow.config import Corpus
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest
from winnow.text.formats import discover

Fingerprint = tuple[int, int]
"""size in bytes, modification time in nanoseconds"""


@dataclass(frozen=True)
class Known:
    """What the store holds: the fingerprint of every shard, and how many deliveries brought it there."""

    shards: Mapping[str, Fingerprint]
    deliveries: int


@dataclass(frozen=True)
class DeliveredFile:
    """One file of the corpus: ``shard`` is its uri relative to the location's root, ``source`` its folder there."""

    shard: str
    source: str
    path: str
    bytes: int
    mtime_ns: int

    @property
    def fingerprint(self) -> Fingerprint:
        return self.bytes, self.mtime_ns


@dataclass(frozen=True)
class Delivery:
    """Files to read and shards to withdraw.

    ``after`` counts the deliveries before it. ``key`` is a digest of all three: asking twice for what is still waiting
    gives the same key, a file that returns to an earlier state gives a new one.
    """

    files: tuple[DeliveredFile, ...]
    withdrawn: tuple[str, ...] = ()
    after: int = 0

    @property
    def key(self) -> str:
        return "batch-" + digest(asdict(self))[:12]

    def __bool__(self) -> bool:
        return bool(self.files or self.withdrawn)

    def as_of_now(self, files: Iterable[DeliveredFile]) -> Delivery:
        """Return this delivery with its files as they are now, for a partition that is run again later.

        A file that is gone is withdrawn; a shard whose file is back is left to the delivery that brings it.
        """
        present = {file.shard: file for file in files}
        named = [file.shard for file in self.files]
        gone = {shard for shard in (*named, *self.withdrawn) if shard not in present}
        return Delivery(tuple(present[shard] for shard in named if shard in present), tuple(sorted(gone)), self.after)

    def save(self, home: Home) -> None:
        """Write the delivery under its key, where the partition's run will look for it."""
        home.batches.mkdir(parents=True, exist_ok=True)
        path = home.batches / f"{self.key}.json"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(path)

    @classmethod
    def load(cls, home: Home, key: str) -> Delivery:
        """Read a saved delivery. Raises :class:`UserError` when the partition names none."""
        path = home.batches / f"{key}.json"
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise UserError(
                f"partition '{key}' of shards has no delivery ({path} is missing): choose another"
            ) from error
        return cls(tuple(DeliveredFile(**file) for file in raw["files"]), tuple(raw["withdrawn"]), raw["after"])


def scan(home: Home, corpus: Corpus) -> list[DeliveredFile]:
    """Return every corpus file of the configured locations, sorted by shard.

    Raises :class:`UserError` when two locations deliver a file under the same name.
    """
    found: dict[str, DeliveredFile] = {}
    for location in corpus.locations:
        root = home.resolve(location.root)
        for path in discover(root, location.include):
            relative = path.relative_to(root)
            source = relative.parent.as_posix() if len(relative.parts) > 1 else root.name
            shard = f"{source}/{relative.name}"
            if shard in found and found[shard].path != str(path):
                raise UserError(
                    f"{path} and {found[shard].path} would both be shard '{shard}': rename one of the two folders"
                )
            try:
                status = path.stat()
                # A file that may not be read looks different once it may, so that it is tried again.
                size, mtime = status.st_size, status.st_mtime_ns if os.access(path, os.R_OK) else 0
            except OSError:  # unreadable or just gone: the reader says why, in quarantine
                size, mtime = 0, 0
            found[shard] = DeliveredFile(shard, source, str(path), size, mtime)
    return [found[shard] for shard in sorted(found)]


def plan(
    files: Iterable[DeliveredFile], known: Known, ready: Callable[[DeliveredFile], bool] = lambda file: True
) -> Delivery:
    """Return what differs from the store: files that are new or changed, and ready; shards whose file is gone."""
    files = list(files)
    changed = [file for file in files if known.shards.get(file.shard) != file.fingerprint]
    closed_files = tuple(file for file in changed if ready(file))
    # A renamed file is gone and new at once: while anything is still being written, nothing is withdrawn.
    gone = set(known.shards) - {file.shard for file in files} if len(closed_files) == len(changed) else set()
    return Delivery(closed_files, tuple(sorted(gone)), known.deliveries)


def closed(seen_before: Mapping[str, Sequence[int]]) -> Callable[[DeliveredFile], bool]:
    """Return a test for files that did not change since the last look, so that nobody is still writing them."""
    return lambda file: tuple(seen_before.get(file.shard, ())) == file.fingerprint
