"""``winnow gc``: what nobody needs any more is removed, once it is old enough.

Needed are the live parts and those of every manifest's snapshot. What is younger than the grace period stays in any
case: a writer lists its parts after it has put them in place, and an open reader of an older published file still reads
them. First a transaction unlists, then files go, never the other way round, so that a killed run leaves a whole store.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from winnow.errors import UserError
from winnow.store.backends import open_waiting
from winnow.store.lake import LakeBackend
from winnow.store.storage import LocalStorage
from winnow.store.store import Connection, Store, get_meta, load

log = logging.getLogger(__name__)

SNAPSHOTS = "SELECT part FROM snapshots UNION SELECT unnest(snapshot) FROM manifests"
"""The digests of the parts that manifests need."""

SCORED_CHECKPOINTS = 3
"""Scores of so many of the newest checkpoints stay, beside those that manifests name."""

HIDDEN_CHECKPOINT = re.compile(r"\.(.+)\.[0-9a-f]{32}")

CHUNK = 500
"""Parts that are removed in one turn: no writer waits longer than that takes."""


@dataclass(frozen=True)
class Removed:
    """Something that was (or in a dry run would be) removed: what it is, where it lies, its bytes."""

    what: str
    place: str
    bytes: int


@contextmanager
def no_garbage_collection(store: Store, exclusive: bool = False) -> Iterator[None]:
    """Keep every part in place while the block runs (any number of blocks at once); ``exclusive`` is gc's own side.

    Raises :class:`UserError` at once when the other side holds it.
    """
    store.home.store.mkdir(parents=True, exist_ok=True)
    with (store.home.store / "gc.lock").open("a") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = "a backup or another `winnow gc`" if exclusive else "`winnow gc`"
            raise UserError(f"{holder} is at work in {store.home.root}: run this again when it has ended") from error
        yield


def collect_garbage(store: Store, keep_days: float | None = None, dry_run: bool = False) -> list[Removed]:
    """Remove what nobody needs and what is older than ``keep_days`` (default: ``store.keep_days``); return it.

    Raises :class:`UserError` when there is no store, another gc or a backup is at work, or the store stays locked.
    """
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: nothing to collect")
    before = time.time() - (store.settings.keep_days if keep_days is None else keep_days) * 86_400
    with no_garbage_collection(store, exclusive=True):
        removed = [*_temporaries(store, before, dry_run), *_batches(store, before, dry_run)]
        scores = _old_scores(store)
        if scores and not dry_run:
            with store.write() as connection:
                _unlist(connection, scores)
        return [*_parts(store, before, dry_run, scores), *_lake_files(store, before, dry_run), *removed]


# -- parts ------------------------------------------------------------------------------------------------------------


def _parts(store: Store, before: float, dry_run: bool, unlisted: Sequence[str]) -> Iterator[Removed]:
    moment = datetime.fromtimestamp(before, UTC).replace(tzinfo=None)
    stored = [part for part in store.storage.list() if part.modified <= moment]
    for start in range(0, len(stored), CHUNK):
        # In the turn to write nobody lists a part between the question whether it is needed and its end.
        with nullcontext() if dry_run else store.backend.turn(store.settings.lock_wait_seconds):
            needed = _needed(store, unlisted)
            for part in stored[start : start + CHUNK]:
                if part.digest in needed:
                    continue
                if not dry_run:
                    store.storage.remove(part.kind, part.digest)
                yield Removed(f"part of {part.kind}", store.storage.uri(part.kind, part.digest), part.bytes)


def _needed(store: Store, unlisted: Sequence[str]) -> set[str]:
    """Return the digests of all parts that somebody needs, when ``unlisted`` are no longer live."""
    with store.read() as connection:
        live = {part for (part,) in connection.execute("SELECT part FROM parts").fetchall()}
        kept = {part for (part,) in connection.execute(SNAPSHOTS).fetchall()}
    return (live - set(unlisted)) | kept


def _old_scores(store: Store) -> list[str]:
    """Return the live parts that hold scores of one checkpoint only, an old one that no manifest names."""
    with store.read() as connection:
        known = [
            name for (name,) in connection.execute("SELECT checkpoint FROM checkpoints ORDER BY sequence").fetchall()
        ]
        named = connection.execute(
            "SELECT checkpoint FROM manifests UNION SELECT checkpoint FROM influence_models"
            " WHERE model IN (SELECT influence_model FROM manifests)"
        ).fetchall()
        parts = [part for (part,) in connection.execute("SELECT part FROM parts WHERE kind = 'scores'").fetchall()]
    old = set(known[:-SCORED_CHECKPOINTS]) - {name for (name,) in named}
    return [part for part in parts if old and _only_checkpoint(store, part) in old]


def _only_checkpoint(store: Store, part: str) -> str | None:
    """Return the checkpoint that all scores of a part are of, None when there are several."""
    found: set[str] = set()
    with store.storage.open("scores", part) as file:
        for rows in file.iter_batches(columns=["checkpoint"]):
            found |= set(rows["checkpoint"].unique().to_pylist())
    return found.pop() if len(found) == 1 else None


def _unlist(connection: Connection, parts: Sequence[str]) -> None:
    load(connection, "unlisted", pa.table({"part": pa.array(parts, pa.string())}))
    connection.execute("DELETE FROM parts WHERE kind = 'scores' AND part IN (SELECT part FROM unlisted)")


def _lake_files(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
    """Let a lake forget its own old snapshots, and remove the files that it let go of before ``before``.

    What it lets go of now is removed by a later collection: somebody may still read it.
    """
    if not isinstance(store.backend, LakeBackend):
        return
    old = f"'lake', older_than => TIMESTAMPTZ '{datetime.fromtimestamp(before, UTC).isoformat()}'"
    with (
        store.backend.turn(store.settings.lock_wait_seconds),
        closing(open_waiting(store.backend, dry_run, store.settings.lock_wait_seconds)) as connection,
    ):
        if not dry_run:
            connection.execute(f"CALL ducklake_expire_snapshots({old})")
        unneeded = connection.execute(f"CALL ducklake_cleanup_old_files({old}, dry_run => true)").fetchall()
        found = [Removed("file of the lake", path, _size(path)) for (path, *_) in unneeded]
        if found and not dry_run:
            connection.execute(f"CALL ducklake_cleanup_old_files({old})")
    yield from found


def _size(path: str) -> int:
    """Return the bytes of a local file; 0 for one that is elsewhere."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


# -- temporaries ------------------------------------------------------------------------------------------------------


def _temporaries(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
    """Remove what killed runs left: nothing that is young, nor that a living process has open."""
    home = store.home
    left = [*home.scratch.glob("*"), *home.manifests.glob(".v*.partial"), *home.batches.glob("*.tmp")]
    left += [*home.artifacts.glob("*.tmp"), *home.artifacts.glob(".*.tmp"), *_half_written_checkpoints(store)]
    if isinstance(store.storage, LocalStorage):
        left += store.storage.root.glob("*/.*.tmp")
    with _publishing_turn(home.store / "publish.lock") as free:
        left += home.root.glob(".winnow-*.duckdb*") if free else []
        open_now = _open_paths()
        for path in left:
            try:
                newest, size = _age_and_size(path)
            except OSError:  # gone meanwhile
                continue
            if newest > before or any(name == str(path) or name.startswith(f"{path}/") for name in open_now):
                continue
            if not dry_run:
                _remove(path)
            yield Removed("temporary", str(path), size)


def _half_written_checkpoints(store: Store) -> Iterator[Path]:
    """Yield the hidden folders of checkpoints, but not one that may be all that is left of a registered checkpoint."""
    with store.read() as connection:
        known = {name for (name,) in connection.execute("SELECT checkpoint FROM checkpoints").fetchall()}
    for path in store.home.checkpoints.glob(".*"):
        name = HIDDEN_CHECKPOINT.fullmatch(path.name)
        if name and (name[1] not in known or (path.parent / name[1]).exists()):
            yield path


@contextmanager
def _publishing_turn(path: Path) -> Iterator[bool]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _open_paths() -> set[str]:
    """Return the files that this user's living processes have open, where the system tells it (Linux)."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(str(link.readlink()))
        except OSError:  # not ours to look at, or gone
            continue
    return found


def _age_and_size(path: Path) -> tuple[float, int]:
    """Return the newest modification time and the size of a file, or of a folder with all that is in it."""
    inside = [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
    facts = [one.lstat() for one in inside]
    return max(fact.st_mtime for fact in facts), sum(fact.st_size for fact in facts)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# -- batches ----------------------------------------------------------------------------------------------------------


def _batches(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
    """Remove the files of deliveries that no shard is of any more; one that may still be waiting stays."""
    with store.read() as connection:
        named = {batch for (batch,) in connection.execute("SELECT DISTINCT batch FROM shards").fetchall()}
        deliveries = int(get_meta(connection, "deliveries") or 0)
    for path in sorted(store.home.batches.glob("*.json")):
        facts = path.stat()
        if path.stem in named or facts.st_mtime > before or _after(path) >= deliveries:
            continue
        if not dry_run:
            path.unlink(missing_ok=True)
        yield Removed("batch", str(path), facts.st_size)


def _after(path: Path) -> int:
    """Return how many deliveries there had been when a batch was planned; nothing for one that cannot be read."""
    try:
        return int(json.loads(path.read_text())["after"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
