"""What killed runs, old deliveries and old questions left beside the parts: temporaries, batches, stored gradients."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from winnow.errors import UserError
from winnow.home import Home
from winnow.store.storage import LocalStorage
from winnow.store.store import Store, get_meta

HIDDEN_CHECKPOINT = re.compile(r"\.(.+)\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Removed:
    """Something that was (or in a dry run would be) removed: what it is, where it lies, its bytes."""

    what: str
    place: str
    bytes: int


# -- temporaries ------------------------------------------------------------------------------------------------------


def temporaries(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
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
            yield from _removed("temporary", path, before, open_now, dry_run)


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


def _removed(what: str, path: Path, before: float, open_now: set[str], dry_run: bool) -> Iterator[Removed]:
    """Remove a file or folder and tell it, unless it is young, gone, or open."""
    try:
        newest, size = _age_and_size(path)
    except OSError:  # gone meanwhile
        return
    if newest > before or any(name == str(path) or name.startswith(f"{path}/") for name in open_now):
        return
    if not dry_run:
        _remove(path)
    yield Removed(what, str(path), size)


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


# -- stored gradients -------------------------------------------------------------------------------------------------


def gradients(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
    """Remove stored projected gradients that nothing was added to lately, and what killed questions left in others."""
    open_now = _open_paths()
    for folder in sorted(store.home.gradients.glob("*")):
        gone = list(_removed("stored gradients", folder, before, open_now, dry_run))
        yield from gone
        for path in [] if gone else sorted(folder.glob("*.tmp")):
            yield from _removed("temporary", path, before, open_now, dry_run)


def remove_gradients(home: Home) -> None:
    """Remove all stored projected gradients. Raises :class:`UserError` for those that stay where they are.

    A folder is renamed first: a question that is writing to it fails instead of leaving some of it behind.
    """
    for folder in sorted(home.gradients.glob("*")):
        try:
            doomed = folder.rename(home.gradients / f".gone-{uuid4().hex}")
            shutil.rmtree(doomed) if doomed.is_dir() and not doomed.is_symlink() else doomed.unlink()
        except FileNotFoundError:  # another process removes it
            continue
        except OSError as error:
            raise UserError(
                f"{folder}: gradients of withdrawn documents cannot be removed ({error}); delete this folder yourself "
                "and run this again"
            ) from error


# -- batches ----------------------------------------------------------------------------------------------------------


def batches(store: Store, before: float, dry_run: bool) -> Iterator[Removed]:
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
