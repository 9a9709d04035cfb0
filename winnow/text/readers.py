"""One delivered file, or a piece of it, to batches of documents and quarantine rows, in bounded memory."""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from winnow.errors import UserError
from winnow.text.batches import DOCUMENTS, BatchBuilder
from winnow.text.dolma import joined
from winnow.text.drift import FieldTypes
from winnow.text.formats import WHOLE, Item, Reading, Span, format_named, format_of
from winnow.text.limits import Limits
from winnow.text.locations import file_name, is_remote, open_binary
from winnow.text.normalize import Normalization
from winnow.text.quarantine import FileFailedError, Quarantined
from winnow.text.records import FieldMap
from winnow.text.streams import HashedFile
from winnow.text.tally import MAX_QUARANTINE_ROWS, Tally
from winnow.text.watched import UnavailableError, Watched

__all__ = ["MAX_QUARANTINE_ROWS", "Batch", "Limits", "ShardReader", "read_batches"]

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """A run of a file's documents in its order, and the quarantine rows met among them.

    ``documents`` has the schema :data:`winnow.text.batches.DOCUMENTS`: row int64 (0-based position of the record in the
    file: in JSON Lines among the lines that are not blank, in Parquet among all rows, 0 for a text file), doc_id uuid,
    text large_string, original large_string (the text before normalization, null if it is the same), original_id, url,
    date string or null, metadata string (canonical JSON of the other fields, ``{}`` for none), characters int64, bytes
    int64 (of the text in UTF-8), words int64 (separated by Unicode white space).
    """

    documents: pa.Table
    quarantined: list[Quarantined]


class ShardReader:
    """Read one file, or one span of it: iterate over its batches, then ask for the totals.

    When the iteration has ended, ``records == occurrences + quarantined`` holds (all counts of records), and the
    ``records`` of all quarantine rows handed out sum to ``quarantined``.

    **Stage the batches and admit their documents only if** ``failed`` **is False at the end**: whether too many records
    are bad is known only when all have been read, and batches cannot be taken back. Of a failed file no document is
    admitted (``occurrences`` is 0); all its quarantine rows stay, and one row ``file_failed`` stands for its readable
    records; ``failure`` says why. A file fails when its bad records exceed the limits, when the text column is missing,
    or when it cannot be read at all. Where a stream breaks (a cut or corrupt archive, a corrupt page), what came before
    stays; the break counts as one bad record there, whatever number of records it swallowed.

    ``bytes`` and ``sha256`` (hex) are the delivered file's, of the bytes that were read; 0 and None if it could not be,
    and None for a remote file that is not read front to back. Of a span that is not the whole file, neither is known
    and no limit is applied: merge the ``tally`` of all spans and judge that. ``opened`` is False of a local file that
    could not be opened, which fails.

    At most ``MAX_QUARANTINE_ROWS`` quarantine rows are handed out one by one; the others are summed, a row a reason,
    in the last batch. Whatever the file holds, reading it raises nothing; ``UnavailableError`` where its bytes stop
    coming or change meanwhile, and what was handed out is void. Raises ``UserError`` for a name that is no corpus
    file's.
    """

    def __init__(
        self,
        path: Path | str,
        fields: FieldMap | None = None,
        limits: Limits | None = None,
        reading: Reading | None = None,
        span: Span = WHOLE,
    ) -> None:
        how = reading or Reading(fields=fields or FieldMap(), limits=limits or Limits())
        kind = format_of(file_name(path), how.format)
        if kind is None:
            raise UserError(
                f"{path} is no corpus file by its suffix; name it .jsonl, .jsonl.zst, .parquet, .txt or .md, "
                "or declare its source's format"
            )
        self.path = path
        self.format = kind
        self.span = span
        self._how = how
        self._normalization = Normalization(how.normalization)
        self._reset()

    @property
    def records(self) -> int:
        """Records met."""
        return self.tally.records

    @property
    def occurrences(self) -> int:
        """Records that became documents."""
        return self.tally.occurrences

    @property
    def quarantined(self) -> int:
        """Records that could not be read."""
        return self.tally.quarantined

    @property
    def failure(self) -> str | None:
        """Why none of the file's documents may be admitted."""
        return self.tally.failure

    @property
    def failed(self) -> bool:
        """Whether none of the file's documents may be admitted."""
        return self.tally.failure is not None

    @property
    def consumed(self) -> int:
        """Bytes of the file that were read so far."""
        return self._file.consumed if self._file else 0

    def _reset(self) -> None:
        self._file: Watched | None = None
        self.opened = True
        self.tally = Tally()
        self.fields = FieldTypes()
        self.bytes = 0
        self.sha256: str | None = None

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        self._reset()
        builder = BatchBuilder(self._how.limits.batch_bytes, self._normalization)
        held: list[Quarantined] = []
        try:
            for item in self._read():
                if isinstance(item, Quarantined):
                    held += self._count(item)
                elif builder.add(item):
                    yield self._batch(builder, held)
                    held = []
        except FileFailedError as error:
            held += self._count(error.quarantined)
            self.tally.failure = error.quarantined.detail
        last = self._batch(builder, held)
        if self.span == WHOLE:
            last.quarantined += self.tally.judge(self._how.limits)
            if self.failed:
                last = replace(last, documents=DOCUMENTS.empty_table())
        if last.quarantined or len(last.documents):
            yield last
        logger.info(
            "%s: %d records, %d documents, %d quarantined in %.1f s%s",
            *(self.path, self.records, self.occurrences, self.quarantined, time.perf_counter() - started),
            f"; failed: {self.failure}" if self.failed else "",
        )

    def _batch(self, builder: BatchBuilder, held: list[Quarantined]) -> Batch:
        documents, emptied = builder.take()
        self.tally.good(len(documents))
        return Batch(documents, [*held, *(row for bad in emptied for row in self._count(bad))])

    def _count(self, row: Quarantined) -> list[Quarantined]:
        """Count one quarantine row and return it, or nothing if there have been too many to list."""
        return [row] if self.tally.add(row) else []

    def _read(self) -> Iterator[Item]:
        kind, name, compression = format_named(self.format)
        path = str(self.path)
        try:
            if not is_remote(path) and not stat.S_ISREG(Path(path).stat().st_mode):
                raise FileFailedError(_unreadable("it is a folder or a device; give only files such a name"))
            opened = open_binary(path)
        except OSError as error:
            if is_remote(path) or self.span != WHOLE:  # it was there when it was cut
                raise UnavailableError(path, error) from error
            self.opened = False
            why = f"{error.strerror or error}; check that it is there and may be read"
            raise FileFailedError(_unreadable(why)) from error
        with Watched(opened, path) as file:
            self._file = file
            if kind.seekable or self.span != WHOLE:
                if self.span == WHOLE and not is_remote(path):
                    hashed = HashedFile(file)
                    self.sha256, self.bytes = hashed.digest(), hashed.bytes
                    file.seek(0)
                    file.consumed = 0
                items = kind.read(file, name, compression, self.span, self._how, self.fields)
                yield from joined(items, self._how, self.fields)
                file.check()
                return
            source = HashedFile(file)
            fault: FileFailedError | None = None
            try:
                items = kind.read(source, name, compression, self.span, self._how, self.fields)  # type: ignore[arg-type]
                yield from joined(items, self._how, self.fields)
            except FileFailedError as error:
                fault = error
            self.sha256, self.bytes = source.digest(), source.bytes
            file.check()
        if fault:
            raise fault


def read_batches(path: Path, fields: FieldMap | None = None, limits: Limits | None = None) -> Iterator[Batch]:
    """Yield one file's batches; see :class:`ShardReader`, which also tells whether the documents may be admitted."""
    return iter(ShardReader(path, fields, limits))


def _unreadable(why: str) -> Quarantined:
    return Quarantined(None, None, "unreadable_file", f"the file cannot be read: {why}", "")
