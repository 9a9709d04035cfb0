"""Dolma's attributes: what taggers said of a file's documents, joined to them by id, never by row.

A tagger's file for a file of documents has a line ``{"id": ..., "attributes": {...}}`` a document, in any order
(https://github.com/allenai/dolma, docs/data-format.md). It is read first, into a temporary database on disk, since what
a line further down says may belong to the first document; so memory stays bounded whatever the order.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import canonical_json
from winnow.text.drift import FieldTypes
from winnow.text.formats import format_of
from winnow.text.formats.base import Block, Item, Reading
from winnow.text.json_records import RecordReader
from winnow.text.limits import Limits
from winnow.text.lines import Line, Lines
from winnow.text.locations import open_binary
from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined, excerpt, kind_of, too_large_detail
from winnow.text.records import Document, FieldMap, document_from, parse_object
from winnow.text.streams import BrokenStreamError, HashedFile, WrongCompressionError, read_blocks
from winnow.text.watched import UnavailableError, Watched

logger = logging.getLogger(__name__)

FIELD = "attributes"
"""The field of a document's metadata that the attributes go to, a tagger each: that of the documents has its name."""

_INSERTED_AT_ONCE = 1000
_TABLE = "CREATE TABLE attributes (tagger INTEGER, line INTEGER, id TEXT, value TEXT)"
_INSERT = "INSERT INTO attributes (tagger, line, id, value) VALUES (?, ?, ?, ?)"
_INDEX = "CREATE INDEX by_id ON attributes (id, tagger)"
_SELECT = "SELECT rowid, tagger, value FROM attributes WHERE id = ? ORDER BY tagger, rowid"
_REPEATED = """
    SELECT tagger, line, id FROM attributes
    WHERE (id, tagger) IN (SELECT id, tagger FROM attributes GROUP BY id, tagger HAVING count(*) > 1)
    ORDER BY id, tagger, rowid
"""

_INSIDE = slice(len(canonical_json({FIELD: 0})) - len("0}"), -len("}"))
"""Where the attributes lie in the text of a row's value, ``{"attributes":{...}}``."""
_OBJECT = canonical_json({FIELD: {}}).encode()[: -len("}}")]

_Row = tuple[int, int, str, str]


def joined(items: Iterator[Item], how: Reading, seen: FieldTypes) -> Iterator[Item]:
    """Yield a document file's items with their attributes: ``{"attributes": {tagger: {...}}}`` in the metadata.

    A document without attributes of a tagger stays, without that tagger; attributes without a document are left out;
    the log says how many of both. A line of a tagger's file that cannot be read, or has an id that was there before,
    is a quarantine row of this file; so is a document that has such attributes of its own. Raises ``FileFailedError``
    where a tagger's file is broken: its documents cannot be judged whole; ``UnavailableError`` where it cannot be
    opened, or its bytes stop coming.
    """
    if not how.attributes:
        yield from items
        return
    with AttributeJoin(how.attributes, how.limits) as join:
        yield from join.load()
        seen.note(FIELD, "object")
        for item in items:
            if isinstance(item, Block):
                yield from _with_attributes(item, join)
            elif isinstance(item, Document):
                metadata = _merged(item.metadata, join.take(item.original_id))
                yield _conflict(item.row, item.utf8) if metadata is None else item._replace(metadata=metadata)
            else:
                yield item
        join.report()


class AttributeJoin:
    """The attributes of one file of documents by original id; ``paths`` are (tagger, path or URI) pairs.

    About ``limits.batch_bytes`` of them are in memory, the rest in a temporary file that goes with the context.
    """

    def __init__(self, paths: tuple[tuple[str, str], ...], limits: Limits) -> None:
        self._paths = paths
        self._limits = limits
        self._taken = bytearray()
        self._rows = [0] * len(paths)
        self._without = [0] * len(paths)
        self._repeats = [0] * len(paths)
        self._fast = RecordReader(_LINE, FieldTypes())

    def __enter__(self) -> AttributeJoin:
        # An empty name is a database of our own, in a temporary file once it exceeds the cache.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in (
            "journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = -{max(64, self._limits.batch_bytes // 1024)}",
        ):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("BEGIN")  # one transaction for all: each by itself would write its pages
        self._database.execute(_TABLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
        if isinstance(error, sqlite3.OperationalError):
            raise UserError(
                f"{self._paths[0][1]}: its attributes do not fit on the disk of {tempfile.gettempdir()} ({error}); "
                "make room there, or set SQLITE_TMPDIR to a folder that has it"
            ) from error

    def load(self) -> Iterator[Quarantined]:
        """Read all files, once; yield a row for each line that cannot be read, or repeats an id."""
        for tagger in range(len(self._paths)):
            pending: list[_Row] = []
            for item in self._lines(tagger):
                if isinstance(item, Quarantined):
                    yield item
                    continue
                pending.append(item)
                self._rows[tagger] += 1
                if len(pending) == _INSERTED_AT_ONCE:
                    self._database.executemany(_INSERT, pending)
                    pending = []
            self._database.executemany(_INSERT, pending)
        self._database.execute(_INDEX)
        self._taken = bytearray(sum(self._rows) + 1)
        yield from self._repeated()

    def take(self, original_id: str | None) -> dict[str, str]:
        """Return what the taggers say of a document: tagger -> canonical JSON, without those that say nothing."""
        found: dict[str, str] = {}
        for row, tagger, value in self._database.execute(_SELECT, (original_id,)):
            name = self._paths[tagger][0]
            if name not in found:  # else a repeated one
                self._taken[row] = 1
                found[name] = value[_INSIDE]
        if len(found) < len(self._paths):
            for tagger, (name, _) in enumerate(self._paths):
                self._without[tagger] += name not in found
        return found

    def unmatched(self) -> list[tuple[str, int, int]]:
        """Return for each tagger how many attributes had no document, and how many documents no attributes."""
        counts, first = [], 1
        for (name, _), rows, repeated, without in zip(
            self._paths, self._rows, self._repeats, self._without, strict=True
        ):
            taken = self._taken.count(1, first, first + rows)
            counts.append((name, rows - repeated - taken, without))
            first += rows
        return counts

    def report(self) -> None:
        """Log how many attributes and documents had no counterpart."""
        for (_, path), (name, alone, without) in zip(self._paths, self.unmatched(), strict=True):
            if alone or without:
                logger.warning(
                    "%s: %d attributes of '%s' are of no document and left out; %d documents have none of them",
                    *(path, alone, name, without),
                )

    def _repeated(self) -> Iterator[Quarantined]:
        before: tuple[int, str] | None = None
        for tagger, line, original_id in self._database.execute(_REPEATED):
            if before == (tagger, original_id):
                self._repeats[tagger] += 1
                detail = f"{self._place(tagger)}, line {line}: a line before has the same id; the first one holds"
                yield Quarantined(None, None, "duplicate_attributes", detail, original_id)
            before = tagger, original_id

    def _place(self, tagger: int) -> str:
        name, path = self._paths[tagger]
        return f"attributes of '{name}' in {path}"

    def _lines(self, tagger: int) -> Iterator[_Row | Quarantined]:
        """Yield the lines of one file that are not blank."""
        place, path = self._place(tagger), self._paths[tagger][1]
        kind, _, compression = (format_of(path) or "").partition(".")
        if kind != "jsonl":
            raise _failed(f"{place}: they are no JSON Lines by their name; name the file .jsonl, .jsonl.gz or the like")
        try:
            opened = open_binary(path)
        except OSError as error:  # the documents may not go without it: a later run reads both
            raise UnavailableError(path, error) from error
        with Watched(opened, path) as file:
            blocks = read_blocks(HashedFile(file), compression or None, self._limits)
            lines = Lines(blocks, self._limits.max_record_bytes)
            try:
                for line in lines:
                    if not line.whole or not (line.data.isspace() or not line.data):
                        yield self._row(tagger, line)
            except (BrokenStreamError, WrongCompressionError) as error:
                detail = f"{place} cannot be read from line {lines.number} on: {error}; deliver the file anew"
                raise _failed(detail) from error
            file.check()

    def _row(self, tagger: int, line: Line) -> _Row | Quarantined:
        try:
            if not line.whole:
                raise BadRecordError("record_too_large", too_large_detail(self._limits.max_record_bytes))
            columns = self._fast(line.data)
            if columns and columns[4].startswith(_OBJECT):
                return tagger, line.number, columns[0].decode(), columns[4].decode()
            record = parse_object(line.data)
            original_id, attributes = record.get("id"), record.get("attributes")
            if type(original_id) not in (str, int) or type(attributes) is not dict:
                what = f"'id' is {kind_of(original_id)} and 'attributes' {kind_of(attributes)}"
                raise BadRecordError("invalid_attributes", f"{what}; expected a string and an object")
            # As any document's fields are read, so that ids compare and values can be stored.
            read = document_from({"text": "-", "id": original_id, FIELD: attributes}, 0, _AS_IT_IS)
            return tagger, line.number, read.original_id or "", read.metadata
        except BadRecordError as bad:
            detail = f"{self._place(tagger)}, line {line.number}: {bad.detail}"
            return Quarantined(None, None, bad.reason, detail, excerpt(line.data, bad.position))


_AS_IT_IS = FieldMap(url=None, date=None)
_LINE = FieldMap(text="id", id=None, url=None, date=None, metadata=(FIELD,))


def _failed(detail: str) -> FileFailedError:
    return FileFailedError(Quarantined(None, None, "invalid_attributes", detail, ""))


def _merged(metadata: str, attributes: dict[str, str]) -> str | None:
    """Return the metadata with the attributes, None where it has such of its own; all is canonical JSON."""
    if not attributes:
        return metadata
    record = json.loads(metadata)
    if FIELD in record:
        own, new = record[FIELD], {tagger: json.loads(value) for tagger, value in attributes.items()}
        if type(own) is not dict or own.keys() & new.keys():
            return None
        return canonical_json(record | {FIELD: own | new})
    taggers = ",".join(f"{canonical_json(tagger)}:{attributes[tagger]}" for tagger in sorted(attributes))
    before = canonical_json({name: value for name, value in record.items() if name < FIELD})
    parts = (before[1:-1], f'"{FIELD}":{{{taggers}}}', metadata[len(before) - 1 + (before != "{}") : -1])
    return f"{{{','.join(filter(None, parts))}}}"


def _with_attributes(block: Block, join: AttributeJoin) -> Iterator[Item]:
    ids = block.original_ids.to_pylist()
    merged = [_merged(metadata, join.take(one)) for metadata, one in zip(block.metadata.to_pylist(), ids, strict=True)]
    good = np.array([metadata is not None for metadata in merged], bool)
    for index in np.flatnonzero(~good):
        yield _conflict(int(block.rows[index]), block.texts[index].as_py().encode())
    block = replace(block, metadata=pa.array(merged, pa.string()))
    if good.all():
        yield block
    elif good.any():
        keep = pa.array(good)
        columns = (block.texts, block.original_ids, block.urls, block.dates, block.metadata)
        yield Block(block.rows[good], *(column.filter(keep) for column in columns))


def _conflict(row: int, utf8: bytes) -> Quarantined:
    detail = f"the record has '{FIELD}' of its own under a tagger's name; rename one of them"
    return Quarantined(row, None, "duplicate_attributes", detail, excerpt(utf8))
