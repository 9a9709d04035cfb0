"""How a delivery's files become pieces of work: big files are cut where their format allows, small ones go together.

The cut depends on the files and on the target size alone, never on the machine, so that the same delivery gives the
same parts everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from winnow.text.deliveries import DeliveredFile
from winnow.text.formats import WHOLE, Cut, Reading, Span, format_named, format_of
from winnow.text.locations import file_name, is_remote, open_binary

log = logging.getLogger(__name__)

FILES_TOGETHER = 2_000
"""Small files that one task reads at most."""


@dataclass(frozen=True)
class Piece:
    """A file to read, or the ``number``-th span of one."""

    file: DeliveredFile
    reading: Reading
    span: Span = WHOLE
    number: int = 0


@dataclass(frozen=True)
class Task:
    """Pieces that one worker reads one after the other; ``bytes`` of input."""

    pieces: tuple[Piece, ...]
    bytes: int


@dataclass(frozen=True)
class Plan:
    """All tasks of a delivery, and what cutting has found out about the files that it read (by shard)."""

    tasks: list[Task]
    cuts: dict[str, Cut]

    @property
    def bytes(self) -> int:
        return sum(task.bytes for task in self.tasks)


def plan_tasks(files: Iterable[tuple[DeliveredFile, Reading]], target_bytes: int) -> Plan:
    """Cut files over ``target_bytes`` into a task a span; gather the others, in their order, up to that size."""
    tasks: list[Task] = []
    cuts: dict[str, Cut] = {}
    together: list[Piece] = []
    size = 0
    for file, reading in files:
        cut = _cut(file, reading, target_bytes) if file.bytes > target_bytes else Cut([WHOLE])
        if len(cut.spans) > 1:
            cuts[file.shard] = cut
            for number, span in enumerate(cut.spans):
                share = file.bytes * (number + 1) // len(cut.spans) - file.bytes * number // len(cut.spans)
                tasks.append(Task((Piece(file, reading, span, number),), share))
            continue
        if together and (size + file.bytes > target_bytes or len(together) >= FILES_TOGETHER):
            tasks.append(Task(tuple(together), size))
            together, size = [], 0
        together.append(Piece(file, reading))
        size += file.bytes
    if together:
        tasks.append(Task(tuple(together), size))
    return Plan(tasks, cuts)


def _cut(file: DeliveredFile, reading: Reading, target_bytes: int) -> Cut:
    name = format_of(file_name(file.path), reading.format)
    kind, _, compression = format_named(name or "")
    if compression or reading.attributes or (is_remote(file.path) and not kind.seekable):
        return Cut([WHOLE])
    try:
        with open_binary(file.path) as opened:
            return kind.cut(opened, target_bytes, reading)
    except OSError as error:  # reading it will say so, in its place
        log.warning("%s cannot be cut into pieces: %s", file.path, error)
        return Cut([WHOLE])
