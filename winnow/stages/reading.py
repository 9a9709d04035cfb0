"""Files into staged rows and text parts: path in, path out, on as many processes as there are cores.

A worker reads the pieces of a task into Parquet: the rows of ``occurrences`` as a spool, the texts as parts. Nothing it
writes counts until the delivery's transaction lists it, so a killed worker leaves only files that no list names.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.stages.progress import EVERY_SECONDS, Progress
from winnow.stages.spooling import TaskRows
from winnow.store.parts import Part, PartWriter
from winnow.store.store import Store
from winnow.text.deliveries import DeliveredFile
from winnow.text.drift import FieldTypes
from winnow.text.formats import WHOLE
from winnow.text.locations import is_remote, list_files, scheme_of
from winnow.text.planning import Piece, Plan, Task
from winnow.text.readers import ShardReader
from winnow.text.tally import Tally
from winnow.text.watched import UnavailableError

log = logging.getLogger(__name__)


@dataclass
class Read:
    """What came of one piece: counts, field types, spooled rows, and which of the task's parts hold its texts.

    The quarantine rows of a whole file are spooled, and ``reasons`` counts their records; the spans of one file are
    judged together, by their tallies, which list them.
    """

    piece: Piece
    format: str
    tally: Tally
    fields: FieldTypes
    reasons: Counter[str] = field(default_factory=Counter)
    sha256: str | None = None
    bytes: int = 0
    spool: Path | None = None
    quarantine: Path | None = None
    parts: list[Part] = field(default_factory=list)
    unavailable: str | None = None


class Counters:
    """Documents, quarantined records and bytes read so far; ``values`` may be shared by all workers."""

    def __init__(self, values: Any = None) -> None:
        self.values = [0, 0, 0] if values is None else values

    def add(self, documents: int, quarantined: int, consumed: int) -> None:
        with self.values.get_lock() if hasattr(self.values, "get_lock") else nullcontext():
            for index, amount in enumerate((documents, quarantined, consumed)):
                self.values[index] += amount

    def now(self) -> tuple[int, int, int]:
        documents, quarantined, consumed = self.values
        return documents, quarantined, consumed


def read_all(
    plan: Plan, home: Home, settings: StoreSettings, folder: Path, workers: int, progress: Progress
) -> list[Read]:
    """Read every task of a plan, spooling below ``folder``; the results come in the order of the plan.

    ``workers`` processes at most (0: a core each); one task, or one worker, is read in this process, and so is what
    only this process has (``memory://``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = min(workers or len(os.sched_getaffinity(0)), len(plan.tasks))
    here = any(scheme_of(piece.file.path) == "memory" for task in plan.tasks for piece in task.pieces)
    if count <= 1 or here:
        counters = Counters()
        results = []
        for number, task in enumerate(plan.tasks):
            results += read_task(task, number, home, settings, folder, counters, progress)
        progress.update(*counters.now(), final=True)
        return results
    return _read_in_processes(plan, home, settings, folder, count, progress)


def _read_in_processes(
    plan: Plan, home: Home, settings: StoreSettings, folder: Path, count: int, progress: Progress
) -> list[Read]:
    context = multiprocessing.get_context("spawn")
    counters = Counters(context.Array("q", 3))
    results: dict[int, list[Read]] = {}
    with ProcessPoolExecutor(count, context, _begin_worker, (counters.values,)) as pool:
        waiting: dict[Future[list[Read]], int] = {}
        queue = iter(enumerate(plan.tasks))
        try:
            while True:
                # A few more than there are workers, so that none waits, and a failure stops what has not begun.
                for number, task in queue:
                    waiting[pool.submit(_work, task, number, home, settings, folder)] = number
                    if len(waiting) > count:
                        break
                if not waiting:
                    break
                done, _ = wait(waiting, EVERY_SECONDS, FIRST_COMPLETED)
                for future in done:
                    results[waiting.pop(future)] = future.result()
                progress.update(*counters.now())
        except BrokenProcessPool as error:
            raise UserError(
                "a process that reads files was killed, perhaps for want of memory: lower corpus.workers or "
                "corpus.batch_bytes, and run again; nothing was written"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress.update(*counters.now(), final=True)
    return [read for number in sorted(results) for read in results[number]]


_counters: Counters | None = None


def _begin_worker(values: Any) -> None:
    global _counters
    _counters = Counters(values)
    parent = multiprocessing.parent_process()

    def die_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()


def _work(task: Task, number: int, home: Home, settings: StoreSettings, folder: Path) -> list[Read]:
    assert _counters is not None
    return read_task(task, number, home, settings, folder, _counters, None)


def read_task(
    task: Task,
    number: int,
    home: Home,
    settings: StoreSettings,
    folder: Path,
    counters: Counters,
    progress: Progress | None,
) -> list[Read]:
    """Read one task's pieces; raises ``OSError`` where the results cannot be written."""
    rows = TaskRows(
        PartWriter(Store(home, settings).storage, "texts"), folder / f"task-{number}", held=len(task.pieces) > 1
    )
    reads = []

    def moved(documents: int, quarantined: int, consumed: int) -> None:
        counters.add(documents, quarantined, consumed)
        if progress:
            progress.update(*counters.now())

    try:
        for piece in task.pieces:
            reads.append(_read_piece(piece, rows, moved))
        parts = rows.end()
    finally:
        rows.abandon()
    for read, holders in zip(reads, rows.holders, strict=True):
        read.spool, read.parts = rows.spool, [parts[part] for part in holders]
        read.quarantine = rows.refused if read.reasons else None
    return reads


def _read_piece(piece: Piece, rows: TaskRows, moved: Callable[[int, int, int], None]) -> Read:
    """Read one piece; whatever is wrong with its file is said of it and stops no other. Raises what writing raises."""
    file = piece.file
    reader = ShardReader(file.path, reading=piece.reading, span=piece.span)
    rows.begin()
    before = (0, 0, 0)
    reasons: Counter[str] = Counter()
    unavailable = None
    batches = iter(reader)
    while True:
        try:
            batch = next(batches, None)
            if batch is None and piece.span != WHOLE:
                _require_unchanged(file)
        except UnavailableError as error:
            unavailable = str(error)
            break
        except Exception as error:  # a fault of the reader's, which must not hold up the other files
            log.exception("reading %s", file.path)
            unavailable = (
                f"{file.path}: it cannot be read ({type(error).__name__}: {error}); report it, or mend the file"
            )
            break
        if batch is None:
            break
        rows.add(_owned(batch.documents, file.shard, file.source))
        if piece.span == WHOLE:
            rows.refuse(file.shard, batch.quarantined)
            for row in batch.quarantined:
                reasons[row.reason] += row.records
        now = (reader.records - reader.quarantined, reader.quarantined, reader.consumed)
        moved(*(new - old for new, old in zip(now, before, strict=True)))
        before = now
    if not reader.opened and file.mtime_ns:  # it could be read when it was found
        unavailable = f"{file.path}: {reader.failure}"
    moved(0, 0, reader.consumed - before[2])
    rows.finish(kept=unavailable is None and not reader.failed)
    if piece.span == WHOLE:
        reader.tally.listed.clear()  # they are spooled
    return Read(
        piece,
        reader.format,
        reader.tally,
        reader.fields,
        reasons,
        reader.sha256,
        reader.bytes,
        unavailable=unavailable,
    )


def _require_unchanged(file: DeliveredFile) -> None:
    """Raise :class:`UnavailableError` unless a file still is what was cut: each of its pieces is opened anew."""
    try:
        if is_remote(file.path):
            found = [(one.bytes, one.version) for one in list_files(file.path, ["**/*"])]
        else:
            status = Path(file.path).stat()
            found = [(status.st_size, status.st_mtime_ns)]
    except (OSError, UserError) as error:
        raise UnavailableError(file.path, str(error)) from error
    if found != [file.fingerprint]:
        raise UnavailableError(file.path, "the file changed while it was read")


def _owned(documents: pa.Table, shard: str, source: str) -> pa.Table:
    count = len(documents)
    return documents.append_column("shard", pa.array([shard] * count, pa.string())).append_column(
        "source", pa.array([source] * count, pa.string())
    )
