"""Files into staged rows and text parts: path in, path out, on as many processes as there are cores.

A worker reads the pieces of a task into Parquet: the rows of ``occurrences`` as a spool, the texts as parts. Nothing it
writes counts until the delivery's transaction lists it, so a killed worker leaves only files that no list names.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.stages.progress import EVERY_SECONDS, Progress
from winnow.store.parts import Part, PartWriter, arrow_schema, conform
from winnow.store.store import Store
from winnow.text.deliveries import DeliveredFile
from winnow.text.drift import FieldTypes
from winnow.text.formats import WHOLE
from winnow.text.locations import is_remote, scheme_of
from winnow.text.planning import Piece, Plan, Task
from winnow.text.quarantine import Quarantined
from winnow.text.readers import ShardReader
from winnow.text.tally import Tally
from winnow.text.watched import UnavailableError

OCCURRENCES = list(arrow_schema("occurrences").names)
TEXTS = list(arrow_schema("texts").names)


@dataclass
class Read:
    """What came of one piece: counts, field types, spooled rows, and which of the task's parts hold its texts.

    ``quarantine`` is complete for a whole file; the spans of one are judged together, by their tallies.
    """

    piece: Piece
    format: str
    tally: Tally
    fields: FieldTypes
    quarantine: list[Quarantined] = field(default_factory=list)
    sha256: str | None = None
    bytes: int = 0
    spool: Path | None = None
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
    rows = _Rows(
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
    return reads


def _read_piece(piece: Piece, rows: _Rows, moved: Callable[[int, int, int], None]) -> Read:
    file = piece.file
    reader = ShardReader(file.path, reading=piece.reading, span=piece.span)
    rows.begin()
    before = (0, 0, 0)
    quarantine: list[Quarantined] = []
    unavailable = None
    try:
        for batch in reader:
            rows.add(_owned(batch.documents, file.shard, file.source))
            quarantine += batch.quarantined
            now = (reader.records - reader.quarantined, reader.quarantined, reader.consumed)
            moved(*(new - old for new, old in zip(now, before, strict=True)))
            before = now
        if piece.span != WHOLE:
            _require_unchanged(file)
    except UnavailableError as error:
        unavailable = str(error)
    moved(0, 0, reader.consumed - before[2])
    rows.finish(kept=unavailable is None and not reader.failed)
    return Read(
        piece,
        reader.format,
        reader.tally,
        reader.fields,
        quarantine,
        reader.sha256,
        reader.bytes,
        unavailable=unavailable,
    )


def _require_unchanged(file: DeliveredFile) -> None:
    """Raise :class:`UnavailableError` unless a local file still is what was cut: each of its pieces is opened anew."""
    if is_remote(file.path):
        return
    try:
        status = Path(file.path).stat()
    except OSError as error:
        raise UnavailableError(file.path, error) from error
    if (status.st_size, status.st_mtime_ns) != file.fingerprint:
        raise UnavailableError(file.path, "the file changed while it was read")


def _owned(documents: pa.Table, shard: str, source: str) -> pa.Table:
    count = len(documents)
    return documents.append_column("shard", pa.array([shard] * count, pa.string())).append_column(
        "source", pa.array([source] * count, pa.string())
    )


class _Rows:
    """The rows of a task's pieces on their way into a spool of occurrences and into text parts.

    ``held``: a piece may still fail, so its rows wait (in memory, over a bound on disk) until it has ended well. Those
    of a task with one piece are written at once; if it fails, what was written is listed nowhere. ``holders`` gives,
    for each piece, the numbers of the parts that hold its texts.
    """

    HELD_BYTES = 32 * 2**20

    def __init__(self, texts: PartWriter, stem: Path, held: bool) -> None:
        self.spool = stem.with_suffix(".parquet")
        self.holders: list[list[int]] = []
        self._texts, self._held = texts, held
        self._occurrences = pq.ParquetWriter(self.spool, arrow_schema("occurrences"), compression="zstd")
        self._held_path = stem.with_suffix(".arrow")
        self._tables: list[pa.Table] = []
        self._size = 0
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None

    def begin(self) -> None:
        """The rows that follow are those of the next piece."""
        self.holders.append([])

    def add(self, rows: pa.Table) -> None:
        if not self._held:
            self._write(rows)
            return
        self._tables.append(rows)
        self._size += rows.nbytes
        if self._size > self.HELD_BYTES:
            if self._stream is None:
                self._stream = pa.ipc.new_stream(self._held_path, rows.schema)
            for table in self._tables:
                self._stream.write_table(table)
            self._tables, self._size = [], 0

    def finish(self, kept: bool) -> None:
        """The piece has ended: if it ended well its rows are kept."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            with pa.ipc.open_stream(self._held_path) as batches:
                for batch in batches if kept else ():
                    self._write(pa.Table.from_batches([batch]))
            self._held_path.unlink()
        for table in self._tables if kept else ():
            self._write(table)
        self._tables, self._size = [], 0
        if not kept:
            self.holders[-1] = []

    def _write(self, rows: pa.Table) -> None:
        if len(rows):
            self._occurrences.write_table(conform("occurrences", rows.select(OCCURRENCES)))
            part = self._texts.add(rows.select(TEXTS))
            if part not in self.holders[-1]:
                self.holders[-1].append(part)

    def end(self) -> list[Part]:
        """Close the spool and return the parts."""
        self._texts.cut()
        self._occurrences.close()
        return self._texts.parts

    def abandon(self) -> None:
        """Let go of what is still open."""
        self._texts.abandon()
        with suppress(OSError):
            self._occurrences.close()
            if self._stream is not None:
                self._stream.close()
