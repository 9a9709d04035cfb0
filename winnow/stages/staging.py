"""Files of a delivery read into spooled rows, with no connection open and memory bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.store.parts import PartWriter, arrow_schema, conform
from winnow.store.stage import Stage
from winnow.store.store import now
from winnow.text.deliveries import DeliveredFile
from winnow.text.readers import ShardReader


@dataclass
class Delivered:
    """What a delivery did."""

    shards: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    failed: list[str] = field(default_factory=list)
    records: int = 0
    occurrences: int = 0
    quarantined: int = 0
    documents_added: int = 0
    documents_removed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.shards or self.withdrawn)


class Staged:
    """Rows read from files and not yet committed, spooled to Parquet so that memory stays bounded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[dict[str, object]] = []
        self.touched: list[DeliveredFile] = []
        self.occurrences: list[Path] = []
        self.quarantine: list[pa.Table] = []

    def read(
        self,
        file: DeliveredFile,
        reader: ShardReader,
        settings: str,
        texts: PartWriter,
        work: Stage,
        report: Delivered,
        progress: Callable[[str], None],
    ) -> None:
        """Read one file; its texts reach the parts only if the file does not fail."""
        started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        spool = self.folder / f"{len(self.occurrences)}.parquet"
        text_spool = self.folder / "texts.parquet"
        quarantined = []
        with _spool(spool, "occurrences") as occurrences, _spool(text_spool, "texts") as bodies:
            for piece in reader:
                quarantined.extend(piece.quarantined)
                rows = _with_shard(piece.documents, file)
                occurrences.write_table(conform("occurrences", rows.drop_columns(["text"])))
                bodies.write_table(conform("texts", rows.select(["doc_id", "shard", "row", "text"])))
        if not reader.failed:
            with pq.ParquetFile(text_spool) as bodies_file:
                for rows in bodies_file.iter_batches():
                    texts.add(pa.Table.from_batches([rows]))
            self.occurrences.append(spool)
        else:
            report.failed.append(file.shard)
        fields = ("row", "offset", "reason", "detail", "excerpt", "records")
        columns = {name: [getattr(row, name) for row in quarantined] for name in fields}
        columns["byte_offset"] = columns.pop("offset")
        self.quarantine.append(
            conform("quarantine", pa.table({**columns, "shard": [file.shard] * len(quarantined)}))
            if quarantined
            else arrow_schema("quarantine").empty_table()
        )
        for row in quarantined:
            report.reasons[row.reason] = report.reasons.get(row.reason, 0) + row.records
        self.shards.append(
            {
                "shard": file.shard,
                "batch": work.partition,
                "source": file.source,
                "path": file.path,
                "format": reader.format,
                "bytes": file.bytes,
                "mtime_ns": file.mtime_ns,
                "sha256": reader.sha256,
                "reader": settings,
                "records": reader.records,
                "occurrences": reader.occurrences,
                "quarantined": reader.quarantined,
                "failed": reader.failed,
                "delivered_at": now(),
                "run_id": work.run_id,
            }
        )
        report.shards += 1
        report.records += reader.records
        report.occurrences += reader.occurrences
        report.quarantined += reader.quarantined
        rate = reader.records / max(time.monotonic() - started, 1e-9)
        progress(
            f"{file.shard}: {reader.records} records, {reader.occurrences} documents, "
            f"{reader.quarantined} quarantined ({rate:,.0f} records/s)"
        )

    def close(self) -> None:
        self.quarantine.clear()


@contextmanager
def _spool(path: Path, kind: str) -> Iterator[pq.ParquetWriter]:
    writer = pq.ParquetWriter(path, arrow_schema(kind), compression="zstd")
    try:
        yield writer
    finally:
        writer.close()


def _with_shard(documents: pa.Table, file: DeliveredFile) -> pa.Table:
    import polars as pl

    words = pl.from_arrow(documents["text"].combine_chunks()).str.count_matches(r"\S+")  # type: ignore[union-attr]
    count = len(documents)
    return (
        documents.append_column("shard", pa.array([file.shard] * count, pa.string()))
        .append_column("source", pa.array([file.source] * count, pa.string()))
        .append_column("words", pa.array(words.cast(pl.Int64).to_arrow(), pa.int64()))
    )
