"""What has been delivered: compare the files of the corpus locations with the shards that are known.

A *delivery* is a batch of files to read and of shards to withdraw; it is one partition of the ``shards`` dimension.
Nothing is read here but names, sizes and times (and what a saved Hugging Face dataset says of its files).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from winnow.config import Corpus
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest
from winnow.text.formats import format_of
from winnow.text.layouts import find_shards
from winnow.text.locations import Listed, check_name, resolve_root

Fingerprint = tuple[int, int]
"""size in bytes, modification time in nanoseconds"""


@dataclass(frozen=True)
class Known:
    """What the store holds: the fingerprint of every shard, and how many deliveries brought it there.

    ``refused`` gives the fingerprint of files that could not be taken, those that were tried longest ago first.
    """

    shards: Mapping[str, Fingerprint]
    deliveries: int
    refused: Mapping[str, Fingerprint] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveredFile:
    """One file of the corpus: ``shard`` is its uri relative to the location's root, ``source`` its folder there.

    ``path`` is a path or a URI. ``mtime_ns`` is a modification time or another number that changes with the file (see
    :class:`winnow.text.locations.Listed`) and with its ``attributes``, the (tagger, path) pairs of Dolma's layout.
    """

    shard: str
    source: str
    path: str
    bytes: int
    mtime_ns: int
    attributes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DeliveredFile:
        """Return a file from what ``asdict`` made of it, also before there were attributes."""
        attributes = tuple((tagger, path) for tagger, path in raw.get("attributes", ()))
        return cls(**{**raw, "attributes": attributes})

    @property
    def fingerprint(self) -> Fingerprint:
        return self.bytes, self.mtime_ns


@dataclass(frozen=True)
class Delivery:
    """Files to read and shards to withdraw.

    ``waiting`` are known shards whose file is another or gone, and which are left to a later delivery. ``after`` counts
    the deliveries before it. ``key`` is a digest of them all: asking twice for what is still waiting gives the same
    key, a file that returns to an earlier state gives a new one.
    """

    files: tuple[DeliveredFile, ...]
    withdrawn: tuple[str, ...] = ()
    after: int = 0
    waiting: tuple[str, ...] = ()

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
        return Delivery(
            tuple(present[shard] for shard in named if shard in present), tuple(sorted(gone)), self.after, self.waiting
        )

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
        files = tuple(DeliveredFile.from_json(file) for file in raw["files"])
        return cls(files, tuple(raw["withdrawn"]), raw["after"], tuple(raw.get("waiting", ())))


def scan(home: Home, corpus: Corpus) -> list[DeliveredFile]:
    """Return every corpus file of the configured locations, local and remote, sorted by shard.

    Raises :class:`UserError` when two locations deliver a file under the same name, and for a location that cannot be
    listed or is not laid out as it says.
    """

    def is_corpus_file(source: str, file: Listed) -> bool:
        return format_of(file.parts[-1], corpus.source(source).format) is not None

    found: dict[str, DeliveredFile] = {}
    for location in corpus.locations:
        root = resolve_root(location.root, home.root)
        for shard in find_shards(root, location.include, location.layout, location.source, is_corpus_file):
            file = check_name(shard.file, str(root))
            if shard.name in found and found[shard.name].path != file.path:
                raise UserError(
                    f"{file.path} and {found[shard.name].path} would both be shard '{shard.name}': rename one of the "
                    "two folders, or give one location a source of its own"
                )
            attributes = tuple((tagger, one.path) for tagger, one in shard.attributes)
            found[shard.name] = DeliveredFile(
                shard.name, shard.source, file.path, file.bytes, shard.version, attributes
            )
    return [found[name] for name in sorted(found)]


MOST_FILES = 20_000
"""Files of one delivery."""


def plan(
    files: Iterable[DeliveredFile],
    known: Known,
    ready: Callable[[DeliveredFile], bool] = lambda file: True,
    most_bytes: int | None = None,
) -> Delivery:
    """Return what differs from the store: files that are new or changed, and ready; shards whose file is gone.

    A delivery stops before the file that would bring it over ``most_bytes``, so that a run that is cut off loses
    little; the next plan holds the rest. Files that were refused as they are come last, and hold up nothing.
    """
    files = list(files)
    changed = [file for file in files if known.shards.get(file.shard) != file.fingerprint]
    again = {shard: place for place, shard in enumerate(known.refused)}
    refused = [file for file in changed if known.refused.get(file.shard) == file.fingerprint]
    refused.sort(key=lambda file: again[file.shard])
    tried = {file.shard for file in refused}
    chosen = _first((file for file in changed if file.shard not in tried and ready(file)), most_bytes)
    chosen += _first((file for file in refused if ready(file)), most_bytes)
    taken = {file.shard for file in chosen}
    # A renamed file is gone and new at once: while a new one is still to come, nothing is withdrawn.
    coming = any(file.shard not in known.shards and file.shard not in taken | tried for file in changed)
    gone = {*known.shards, *known.refused} - {file.shard for file in files}
    withdrawn = set() if coming else gone
    waiting = {file.shard for file in changed if file.shard in known.shards} | gone
    return Delivery(
        tuple(sorted(chosen, key=lambda file: file.shard)),
        tuple(sorted(withdrawn)),
        known.deliveries,
        tuple(sorted(waiting - taken - withdrawn)),
    )


def _first(files: Iterable[DeliveredFile], most_bytes: int | None) -> list[DeliveredFile]:
    """Return the first files of at most so many bytes, one at least."""
    chosen: list[DeliveredFile] = []
    size = 0
    for file in files:
        size += file.bytes
        if chosen and (len(chosen) >= MOST_FILES or (most_bytes is not None and size > most_bytes)):
            break
        chosen.append(file)
    return chosen


def closed(seen_before: Mapping[str, Sequence[int]]) -> Callable[[DeliveredFile], bool]:
    """Return a test for files that did not change since the last look, so that nobody is still writing them."""
    return lambda file: tuple(seen_before.get(file.shard, ())) == file.fingerprint
