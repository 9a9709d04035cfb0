"""``winnow gc``: what nobody needs any more is removed, once it is old enough.

Needed are the live parts, those of every manifest's snapshot, and those that the present published file names. What
came out of the list, or was written and never listed, within the grace period stays in any case: an open reader of an
older published file still reads it. A writer holds :func:`no_garbage_collection` from its first part until its parts
are listed. First a transaction unlists, and only a later collection removes the files.
"""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import IO, Concatenate, ParamSpec, TypeVar

import duckdb
import pyarrow as pa

from winnow.errors import UserError
from winnow.store.backends import open_waiting
from winnow.store.lake import LakeBackend
from winnow.store.leftovers import Removed, batches, gradients, temporaries
from winnow.store.published import open_published
from winnow.store.storage import StoredPart
from winnow.store.store import Connection, Store, load, now, unlist_parts
from winnow.store.turns import waiting

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SNAPSHOTS = "SELECT part FROM snapshots UNION SELECT unnest(snapshot) FROM manifests"
"""The digests of the parts that manifests need."""

NEEDED = f"""
SELECT part FROM asked WHERE part IN (SELECT part FROM parts) OR part IN ({SNAPSHOTS})
OR part IN (SELECT part FROM unlisted WHERE unlisted_at > $moment)
"""  # noqa: S608
"""Those of the parts ``asked`` that are live, that a manifest needs, or that were live after ``moment``."""

PART = re.compile(r"/([0-9a-f]{32})\.parquet")

SCORED_CHECKPOINTS = 3
"""Scores of so many of the newest checkpoints stay, beside those that manifests name."""

GLOB = set("*?[]")
"""A data path with these is a pattern to DuckLake when it looks for files of nobody: it could find another lake's."""

CHUNK = 500
"""Parts that are removed in one turn: no writer waits longer than that takes."""


@contextmanager
def no_garbage_collection(store: Store, exclusive: bool = False) -> Iterator[None]:
    """Keep every part in place while the block runs (any number of blocks at once); ``exclusive`` is gc's own side.

    It holds for all processes that share the home's folder. Raises :class:`UserError` when the other side keeps it
    longer than ``store.lock_wait_seconds``.
    """
    store.home.store.mkdir(parents=True, exist_ok=True)
    with (store.home.store / "gc.lock").open("a") as lock:
        try:
            waiting(lambda: _lock(lock, exclusive), store.settings.lock_wait_seconds)
        except UserError as error:
            holder = "a run, a backup or another `winnow gc`" if exclusive else "`winnow gc`"
            raise UserError(f"{holder} is at work in {store.home.root}: run this again when it has ended") from error
        yield


def _lock(lock: IO[str], exclusive: bool = True) -> None:
    fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def keeping_parts(function: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """Let a function of a store, which writes parts and lists them, hold :func:`no_garbage_collection` all along."""

    @wraps(function)
    def held(store: Store, /, *arguments: P.args, **options: P.kwargs) -> T:
        with no_garbage_collection(store):
            return function(store, *arguments, **options)

    return held


def collect_garbage(store: Store, keep_days: float | None = None, dry_run: bool = False) -> list[Removed]:
    """Remove what nobody needs and what is older than ``keep_days`` (default: ``store.keep_days``); return it.

    Old scores only leave the list of parts, and the published file is made anew without them: their files go in a
    later collection. Raises :class:`UserError` when there is no store, a run, a backup or another gc is at work, or the
    store stays locked.
    """
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: nothing to collect")
    days = store.settings.keep_days if keep_days is None else keep_days
    moment = now() - timedelta(days=days)
    before = moment.replace(tzinfo=UTC).timestamp()
    with no_garbage_collection(store, exclusive=True):
        removed = [*temporaries(store, before, dry_run), *batches(store, before, dry_run)]
        removed += gradients(store, before, dry_run)
        removed = [*_parts(store, moment, dry_run), *_lake_files(store, moment, dry_run), *removed]
        return [*removed, *_old_scores(store, moment, dry_run)]


# -- parts ------------------------------------------------------------------------------------------------------------


def _parts(store: Store, moment: datetime, dry_run: bool) -> Iterator[Removed]:
    stored = {(part.kind, part.digest): part for part in store.storage.list()}
    old = [part for part in stored.values() if part.modified <= moment]
    unneeded = _unneeded(store, old, moment)
    if dry_run:
        yield from (_told(store, part) for part in unneeded)
        return
    for start in range(0, len(unneeded), CHUNK):
        # Nobody publishes, and in the turn to write nobody lists a part, between the question whether it is needed and
        # its end. The publisher takes them in this order too.
        with _publishing(store), store.backend.turn(store.settings.lock_wait_seconds):
            for part in _unneeded(store, unneeded[start : start + CHUNK], moment):
                found = store.storage.find(part.kind, part.digest)
                if found is None or found.modified > moment:  # somebody wrote it again
                    continue
                store.storage.remove(part.kind, part.digest)
                yield _told(store, found)
    _forget(store, moment)


def _told(store: Store, part: StoredPart) -> Removed:
    return Removed(f"part of {part.kind}", store.storage.uri(part.kind, part.digest), part.bytes)


def _unneeded(store: Store, parts: Sequence[StoredPart], moment: datetime) -> list[StoredPart]:
    """Return those of the parts that nobody needs now nor needed after ``moment``."""
    if not parts:
        return []
    with store.read() as connection:
        load(connection, "asked", pa.table({"part": pa.array([part.digest for part in parts], pa.string())}))
        needed = {part for (part,) in connection.execute(NEEDED, {"moment": moment}).fetchall()}
    needed |= _named_by_published(store)
    return [part for part in parts if part.digest not in needed]


def _named_by_published(store: Store) -> set[str]:
    """Return the digests of all parts that the views of the present published file read."""
    if not store.home.published.exists():
        return set()
    with closing(open_published(store.home, store.settings)) as connection:
        views = connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    return {part for (sql,) in views for part in PART.findall(sql)}


@contextmanager
def _publishing(store: Store) -> Iterator[None]:
    """Hold the turn to publish."""
    with (store.home.store / "publish.lock").open("a") as lock:
        waiting(lambda: _lock(lock), store.settings.lock_wait_seconds)
        yield


def _forget(store: Store, moment: datetime) -> None:
    """Forget since when parts are unlisted that lie in the storage no more."""
    old = store.query("SELECT kind, part FROM unlisted WHERE unlisted_at <= $moment", {"moment": moment})
    gone = store.storage.missing(old)
    if gone:
        with store.write() as connection:
            connection.execute(
                "DELETE FROM unlisted WHERE unlisted_at <= $moment AND part IN (SELECT unnest($gone))",
                {"moment": moment, "gone": sorted(part for _, part in gone)},
            )


# -- scores of old checkpoints ----------------------------------------------------------------------------------------


def _old_scores(store: Store, moment: datetime, dry_run: bool) -> Iterator[Removed]:
    """Take the parts off the list that hold only scores of one old checkpoint which no manifest names."""
    with store.read() as connection:
        candidates = _old_parts(connection, moment)
        old = _old_checkpoints(connection)
    holding = {part: _only_checkpoint(store, part) for part in (candidates if old else ())}
    if not any(checkpoint in old for checkpoint in holding.values()):
        return
    with ExitStack() as stack:
        connection = stack.enter_context(store.read() if dry_run else store.write())
        # What a part holds never changes; what is live, and what a manifest names, may have meanwhile.
        old = _old_checkpoints(connection)
        going = [part for part in _old_parts(connection, moment) if holding.get(part) in old]
        if not dry_run:
            unlist_parts(connection, "kind = 'scores' AND part IN (SELECT unnest($going))", {"going": going})
    if not dry_run:
        try:
            store.publish()
        except duckdb.Error as error:  # a live part is missing, say: what is published stays as it is
            log.warning("the published file could not be made anew; `winnow doctor` tells what is wrong (%s)", error)
    for part in going:
        yield Removed("listing of old scores", store.storage.uri("scores", part), 0)


def _old_parts(connection: Connection, moment: datetime) -> list[str]:
    """Return the live parts of scores that were listed before ``moment``."""
    rows = connection.execute(
        "SELECT part FROM parts WHERE kind = 'scores' AND added_at <= $moment ORDER BY part", {"moment": moment}
    ).fetchall()
    return [part for (part,) in rows]


def _old_checkpoints(connection: Connection) -> set[str]:
    """Return the checkpoints that are neither among the newest nor named by a manifest."""
    known = [name for (name,) in connection.execute("SELECT checkpoint FROM checkpoints ORDER BY sequence").fetchall()]
    named = connection.execute(
        "SELECT checkpoint FROM manifests UNION SELECT checkpoint FROM influence_models"
        " WHERE model IN (SELECT influence_model FROM manifests)"
    ).fetchall()
    return set(known[:-SCORED_CHECKPOINTS]) - {name for (name,) in named}


def _only_checkpoint(store: Store, part: str) -> str | None:
    """Return the checkpoint that all scores of a part are of, as its footer tells; None when it does not."""
    found: set[str | None] = set()
    try:
        with store.storage.open("scores", part) as file:
            column = file.schema_arrow.names.index("checkpoint")
            for number in range(file.metadata.num_row_groups):
                facts = file.metadata.row_group(number).column(column).statistics
                whole = facts is not None and facts.has_min_max and facts.null_count == 0 and facts.min == facts.max
                found.add(facts.min if whole else None)
    except (OSError, ValueError, pa.ArrowException) as error:  # `winnow doctor` tells it
        log.warning("%s cannot be read (%s)", store.storage.uri("scores", part), error)
        return None
    return found.pop() if len(found) == 1 else None


# -- files of a lake --------------------------------------------------------------------------------------------------


def _lake_files(store: Store, moment: datetime, dry_run: bool) -> Iterator[Removed]:
    """Let a lake forget its own old snapshots, and remove the files that it let go of before ``moment``.

    What it lets go of now is removed by a later collection: somebody may still read it. What a killed transaction
    wrote, no snapshot ever had; below a path with a sign of ``GLOB`` in it that stays.
    """
    if not isinstance(store.backend, LakeBackend):
        return
    old = f"'lake', older_than => TIMESTAMPTZ '{moment.replace(tzinfo=UTC).isoformat()}'"
    found: list[Removed] = []
    with (
        store.backend.turn(store.settings.lock_wait_seconds),
        closing(open_waiting(store.backend, dry_run, store.settings.lock_wait_seconds)) as connection,
    ):
        if not dry_run:
            connection.execute(f"CALL ducklake_expire_snapshots({old})")
        calls = ["ducklake_cleanup_old_files"]
        if not GLOB & set(store.backend.data):
            calls.append("ducklake_delete_orphaned_files")
        for call in calls:
            unneeded = connection.execute(f"CALL {call}({old}, dry_run => true)").fetchall()
            removed = [Removed("file of the lake", path, _size(path)) for (path, *_) in unneeded]
            if removed and not dry_run:
                connection.execute(f"CALL {call}({old})")
            found += removed
    yield from found


def _size(path: str) -> int:
    """Return the bytes of a local file; 0 for one that is elsewhere."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
