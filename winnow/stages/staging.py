"""What was read of a delivery's files, put together file by file: judged by the limits, compared with its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from winnow.config import Corpus, Source
from winnow.stages.reading import Read
from winnow.stages.spooling import quarantine_table
from winnow.store.parts import Part, arrow_schema
from winnow.store.stage import Stage
from winnow.store.store import now
from winnow.text.deliveries import DeliveredFile
from winnow.text.drift import FieldTypes, contradictions, described
from winnow.text.formats import Cut
from winnow.text.limits import Limits
from winnow.text.normalize import Normalization
from winnow.text.quarantine import Quarantined
from winnow.text.tally import Tally

MOST_FIELDS = 50
"""Fields that a refusal shows, those that differ first."""


@dataclass
class Delivered:
    """What a delivery did.

    ``refused`` are files that were left as they were before (their bytes did not come, or their fields contradict their
    source's), each with why; ``failed`` are shards with too many bad records. ``read_seconds`` went into reading the
    files, ``commit_seconds`` into the transaction. ``taken_down`` occurrences went to quarantine by a takedown.
    """

    shards: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    taken_down: int = 0
    failed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    records: int = 0
    occurrences: int = 0
    quarantined: int = 0
    bytes: int = 0
    read_seconds: float = 0.0
    commit_seconds: float = 0.0
    documents_added: int = 0
    documents_removed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.shards or self.withdrawn)


@dataclass
class ReadFile:
    """One file after all its pieces: the row of ``shards`` in the making, its spools and parts.

    Spools and parts may hold other files' rows too. ``listed`` are the quarantine rows of a file that was cut; those of
    others are in ``quarantine`` spools. ``reasons`` counts quarantined records.
    """

    file: DeliveredFile
    format: str
    tally: Tally
    fields: FieldTypes
    sha256: str | None
    reasons: Counter[str] = field(default_factory=Counter)
    spools: set[Path] = field(default_factory=set)
    quarantine: set[Path] = field(default_factory=set)
    parts: list[Part] = field(default_factory=list)
    listed: list[Quarantined] = field(default_factory=list)
    unavailable: str | None = None


def put_together(reads: Iterable[Read], cuts: Mapping[str, Cut]) -> list[ReadFile]:
    """Merge the pieces of each file, in their order, and apply the limits to the files that were cut."""
    files: dict[str, ReadFile] = {}
    limits: dict[str, Limits] = {}
    for read in reads:
        file = read.piece.file
        spools = {read.spool} if read.spool else set()
        if file.shard not in cuts:
            files[file.shard] = ReadFile(
                file,
                read.format,
                read.tally,
                read.fields,
                read.sha256,
                read.reasons,
                spools,
                {read.quarantine} if read.quarantine else set(),
                read.parts,
                unavailable=read.unavailable,
            )
            continue
        whole = files.setdefault(
            file.shard, ReadFile(file, read.format, Tally(), FieldTypes(), cuts[file.shard].sha256)
        )
        whole.tally.merge(read.tally)
        whole.fields.merge(read.fields)
        whole.spools |= spools
        whole.parts += read.parts
        whole.unavailable = whole.unavailable or read.unavailable
        limits[file.shard] = read.piece.reading.limits
    for shard, whole in files.items():
        if shard in limits:
            whole.listed = [*whole.tally.listed, *whole.tally.judge(limits[shard])]
            for row in whole.listed:
                whole.reasons[row.reason] += row.records
        if whole.tally.failure is not None:
            whole.spools, whole.parts = set(), []
    return list(files.values())


def refuse(files: Iterable[ReadFile], known: Mapping[str, Mapping[str, FieldTypes]], corpus: Corpus) -> None:
    """Mark the files that cannot be taken now as unavailable, with why; the others are not held up by them.

    ``known`` gives the fields of the shards that stay, by source. A file whose bytes did not come is one; one whose
    fields contradict those of its source's shards (the known ones, and those before it in this delivery) is another.
    """
    seen = {source: dict(shards) for source, shards in known.items()}
    merged: dict[str, FieldTypes] = {}
    for file in sorted(files, key=lambda one: one.file.shard):
        settings = corpus.source(file.file.source)
        if file.unavailable is not None or file.tally.failure is not None or settings.schema_drift == "allow":
            continue
        shards = seen.setdefault(file.file.source, {})
        together = merged.get(file.file.source)
        if together is None:
            together = merged[file.file.source] = FieldTypes()
            for types in shards.values():
                together.merge(types)
        file.unavailable = _contradiction(file, shards, together, settings)
        if file.unavailable is None:
            shards[file.file.shard] = file.fields
            together.merge(file.fields)


def _contradiction(
    file: ReadFile, shards: Mapping[str, FieldTypes], together: FieldTypes, source: Source
) -> str | None:
    mapped = {name.split(".")[0] for name in (source.text_field, source.id_field, source.url_field, source.date_field)}
    names = contradictions(together, file.fields, mapped)
    if not names:
        return None
    other, types = next(
        (shard, types) for shard, types in sorted(shards.items()) if contradictions(types, file.fields, mapped)
    )
    others = sorted({*types.types, *file.fields.types} - set(names))
    everything = [*names, *others][:MOST_FIELDS]
    differing = ", ".join(repr(name) for name in names)
    return (
        f"{file.file.path}: field {differing} has another type than in {other} of the same source. "
        f"This file: {described(file.fields, everything)}. {other}: {described(types, everything)}. "
        "Mend the file, give it a folder (a source) of its own, "
        f"or set schema_drift = \"allow\" for source '{file.file.source}'"
    )


def shard_row(file: ReadFile, settings: str, source: Source, work: Stage) -> dict[str, object]:
    """Return the row of ``shards`` for a file that was read."""
    return {
        "shard": file.file.shard,
        "batch": work.partition,
        "source": file.file.source,
        "path": file.file.path,
        "format": file.format,
        "bytes": file.file.bytes,
        "mtime_ns": file.file.mtime_ns,
        "sha256": file.sha256,
        "reader": settings,
        "normalization": Normalization(source.normalization).name,
        "fields": file.fields.to_json(),
        "records": file.tally.records,
        "occurrences": file.tally.occurrences,
        "quarantined": file.tally.quarantined,
        "failed": file.tally.failure is not None,
        "parts": sorted({part.digest for part in file.parts}),
        "delivered_at": now(),
        "run_id": work.run_id,
    }


def quarantine_rows(files: Iterable[ReadFile]) -> pa.Table:
    """Return the rows of ``quarantine`` that are not spooled: those of the files that were cut."""
    tables = [quarantine_table(file.file.shard, file.listed) for file in files if file.listed]
    return pa.concat_tables(tables) if tables else arrow_schema("quarantine").empty_table()


def refused_rows(files: Iterable[ReadFile]) -> pa.Table:
    """Return the rows of ``refused`` for files that cannot be taken now."""
    rows = [
        {
            "shard": file.file.shard,
            "path": file.file.path,
            "bytes": file.file.bytes,
            "mtime_ns": file.file.mtime_ns,
            "reason": file.unavailable,
            "refused_at": now(),
        }
        for file in files
        if file.unavailable is not None
    ]
    return pa.Table.from_pylist(rows, arrow_schema("refused"))


def touched_table(files: Iterable[DeliveredFile]) -> pa.Table:
    """Return size, time and place of files whose bytes are those that the store knows."""
    rows = [{"shard": file.shard, "bytes": file.bytes, "mtime_ns": file.mtime_ns, "path": file.path} for file in files]
    kinds = [("shard", pa.string()), ("bytes", pa.int64()), ("mtime_ns", pa.int64()), ("path", pa.string())]
    return pa.Table.from_pylist(rows, pa.schema(kinds))
