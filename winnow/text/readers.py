"""One delivered file to batches of documents and quarantine rows, in bounded memory."""

from __future__ import annotations

import logging
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import digest_file
from winnow.text.batches import DOCUMENTS, BatchBuilder
from winnow.text.formats import format_of
from winnow.text.jsonlines import read_json_lines, read_whole_text
from winnow.text.quarantine import FileFailedError, Quarantined
from winnow.text.records import Document, FieldMap
from winnow.text.streams import HashedFile

logger = logging.getLogger(__name__)

MAX_QUARANTINE_ROWS = 1000


@dataclass(frozen=True)
class Limits:
    """Bounds on one file's reading.

    ``max_record_bytes``: a longer record (JSON line, text file, or a Parquet row's text and metadata) is quarantined
    unread. ``batch_bytes``: the size in memory at which a batch is handed on; it changes no result. A file fails when
    more than ``max(max_bad_records, max_bad_fraction * records)`` of its records are bad. Raises ``UserError`` for
    values out of range.
    """

    max_record_bytes: int = 32 * 2**20
    batch_bytes: int = 32 * 2**20
    max_bad_fraction: float = 0.01
    max_bad_records: int = 10

    def __post_init__(self) -> None:
        for name in ("max_record_bytes", "batch_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"limits: {name} is {getattr(self, name)}; give at least 1 byte")
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"limits: max_bad_fraction is {self.max_bad_fraction}; give a share between 0 and 1")
        if self.max_bad_records < 0:
            raise UserError(f"limits: max_bad_records is {self.max_bad_records}; give 0 or more")


@dataclass
class Batch:
    """A run of a file's documents in its order, and the quarantine rows met among them.

    ``documents`` has the schema :data:`winnow.text.batches.DOCUMENTS`: row int64 (0-based position of the record in the
    file: in JSON Lines among the lines that are not blank, in Parquet among all rows, 0 for a text file), doc_id uuid,
    text large_string, original_id, url, date string or null (never taken from text files), metadata string (canonical
    JSON of all other fields, ``{}`` for none), characters int64, bytes int64 (of the text in UTF-8).
    """

    documents: pa.Table
    quarantined: list[Quarantined]


class ShardReader:
    """Read one file: iterate over its batches, then ask for the totals.

    When the iteration has ended, ``records == occurrences + quarantined`` holds (all counts of records), and the
    ``records`` of all quarantine rows handed out sum to ``quarantined``.

    **Stage the batches and admit their documents only if** ``failed`` **is False at the end**: whether too many records
    are bad is known only when all have been read, and batches cannot be taken back. Of a failed file no document is
    admitted (``occurrences`` is 0); all its quarantine rows stay, and one row ``file_failed`` stands for its readable
    records; ``failure`` says why. A file fails when its bad records exceed the limits, when the text column is missing,
    or when it cannot be read at all. Where a stream breaks (a cut or corrupt archive, a corrupt page), what came before
    stays; the break counts as one bad record there, whatever number of records it swallowed.

    ``bytes`` and ``sha256`` (hex) are the delivered file's, of the bytes that were read; 0 and None if it could not be.

    At most ``MAX_QUARANTINE_ROWS`` quarantine rows are handed out one by one; the others are summed, a row a reason,
    in the last batch. Whatever the file holds, reading it raises nothing. Raises ``UserError`` for a name that is no
    corpus file's.
    """

    def __init__(self, path: Path, fields: FieldMap | None = None, limits: Limits | None = None) -> None:
        kind = format_of(path)
        if kind is None:
            raise UserError(
                f"{path} is no corpus file by its suffix; name it .jsonl, .jsonl.zst, .parquet, .txt or .md"
            )
        self.path = path
        self.format = kind
        self._fields = fields or FieldMap()
        self._limits = limits or Limits()
        self._reset()

    @property
    def failed(self) -> bool:
        """Whether none of the file's documents may be admitted."""
        return self.failure is not None

    def _reset(self) -> None:
        self.records = 0
        self.occurrences = 0
        self.quarantined = 0
        self.failure: str | None = None
        self.bytes = 0
        self.sha256: str | None = None
        self._bad: Counter[str] = Counter()
        self._overflow: dict[str, Quarantined] = {}

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        self._reset()
        builder = BatchBuilder(self._limits.batch_bytes)
        held: list[Quarantined] = []
        try:
            for item in self._read():
                if isinstance(item, Quarantined):
                    held += self._count_bad(item)
                    continue
                self.records += 1
                self.occurrences += 1
                if builder.add(item):
                    yield Batch(builder.take(), held)
                    held = []
        except FileFailedError as error:
            held += self._count_bad(error.quarantined)
            self.failure = error.quarantined.detail
        held += self._judge()
        documents = DOCUMENTS.empty_table() if self.failed else builder.take()
        if held or len(documents):
            yield Batch(documents, held)
        logger.info(
            "%s: %d records, %d documents, %d quarantined in %.1f s%s",
            *(self.path.name, self.records, self.occurrences, self.quarantined, time.perf_counter() - started),
            f"; failed: {self.failure}" if self.failed else "",
        )

    def _read(self) -> Iterator[Document | Quarantined]:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise FileFailedError(_unreadable("it is a folder or a device; give only files such a name"))
            if self.format == "parquet":
                from winnow.text.parquet import read_parquet

                self.bytes, self.sha256 = self.path.stat().st_size, digest_file(self.path)
                yield from read_parquet(self.path, self._fields, self._limits.max_record_bytes)
            else:
                with self.path.open("rb") as file:
                    source = HashedFile(file)
                    fault: FileFailedError | None = None
                    try:
                        yield from self._read_stream(source)
                    except FileFailedError as error:
                        fault = error
                    self.sha256, self.bytes = source.digest(), source.bytes
                if fault:
                    raise fault
        except OSError as error:
            self.bytes, self.sha256 = 0, None
            why = f"{error.strerror or error}; check that it is there and may be read"
            raise FileFailedError(_unreadable(why)) from error

    def _read_stream(self, source: HashedFile) -> Iterator[Document | Quarantined]:
        if self.format in ("text", "markdown"):
            return read_whole_text(source, self._limits.max_record_bytes)
        compression = self.format.partition(".")[2] or None
        return read_json_lines(source, compression, self._fields, self._limits.max_record_bytes)

    def _count_bad(self, item: Quarantined) -> list[Quarantined]:
        """Count one quarantine row and return it, or nothing if there have been too many to keep."""
        self.records += item.records
        self.quarantined += item.records
        self._bad[item.reason] += 1
        if self._bad.total() <= MAX_QUARANTINE_ROWS:
            return [item]
        first = self._overflow.setdefault(item.reason, replace(item, records=0))
        self._overflow[item.reason] = replace(first, records=first.records + item.records)
        return []

    def _judge(self) -> list[Quarantined]:
        """Apply the limits; return the rows that only the end of the file brings."""
        rows = [
            replace(row, detail=f"{row.records} further records that are not listed; the first: {row.detail}")
            for row in self._overflow.values()
        ]
        bad = self._bad.total()
        judged = self.occurrences + bad
        limits = self._limits
        if self.failure is None and bad > max(limits.max_bad_records, limits.max_bad_fraction * judged):
            reasons = ", ".join(f"{reason} {count}" for reason, count in self._bad.most_common())
            self.failure = (
                f"{bad} of {judged} records are bad ({reasons}), more than max_bad_records={limits.max_bad_records} "
                f"and max_bad_fraction={limits.max_bad_fraction:g} allow: mend the file or the field map, or raise them"
            )
        if self.failure is not None and self.occurrences:
            rows.append(Quarantined(None, None, "file_failed", self.failure, "", self.occurrences))
            self.quarantined += self.occurrences
            self.occurrences = 0
        return rows


def read_batches(path: Path, fields: FieldMap | None = None, limits: Limits | None = None) -> Iterator[Batch]:
    """Yield one file's batches; see :class:`ShardReader`, which also tells whether the documents may be admitted."""
    return iter(ShardReader(path, fields, limits))


def _unreadable(why: str) -> Quarantined:
    return Quarantined(None, None, "unreadable_file", f"the file cannot be read: {why}", "")
