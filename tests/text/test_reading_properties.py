"""Invariants of reading: nothing is lost or doubled, and neither packing nor batching changes a result."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text import DOCUMENTS, Limits, Quarantined, ShardReader, streams

BAD_LINES = [
    b"bad",
    b"{",
    b'{"text": 1}',
    b'{"text": ""}',
    b"\xff",
    b'{"no": "text"}',
    b'{"text": "\\udead"}',
    b"[]",
    b"\0",
]
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: not text.isspace()
)
lines = st.lists(
    st.one_of(texts.map(lambda text: ("good", text)), st.sampled_from(BAD_LINES).map(lambda line: ("bad", line))),
    max_size=30,
)


def read(path: Path, limits: Limits) -> tuple[pa.Table, list[Quarantined], ShardReader]:
    reader = ShardReader(path, limits=limits)
    batches = list(reader)
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    return documents, [row for batch in batches for row in batch.quarantined], reader


def counts(reader: ShardReader) -> tuple[int, int, int, str | None]:
    return reader.records, reader.occurrences, reader.quarantined, reader.failure


PACK = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lambda data: lzma.compress(data, preset=0),
}


def packed(raw: bytes, compression: str, pieces: int) -> bytes:
    size = max(1, -(-len(raw) // pieces))
    parts = [raw[start : start + size] for start in range(0, len(raw), size)] or [b""]
    return b"".join(PACK[compression](part) for part in parts)


@settings(max_examples=120, deadline=None)
@given(
    items=lines,
    ascii_only=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]),
    compression=st.sampled_from(sorted(PACK)),
    pieces=st.integers(1, 4),
    block=st.integers(1, 64),
    batch_bytes=st.integers(1, 4000),
    max_bad_records=st.integers(0, 30),
)
def test_every_record_is_a_document_in_order_or_a_quarantine_row(
    items: list[tuple[str, str | bytes]],
    ascii_only: bool,
    line_end: bytes,
    compression: str,
    pieces: int,
    block: int,
    batch_bytes: int,
    max_bad_records: int,
) -> None:
    encoded = [
        json.dumps({"text": item}, ensure_ascii=ascii_only).encode() if kind == "good" else bytes(item)  # type: ignore[arg-type]
        for kind, item in items
    ]
    limits = Limits(batch_bytes=batch_bytes, max_bad_fraction=0, max_bad_records=max_bad_records)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(streams, "BLOCK", block):
        path = Path(folder) / f"a.jsonl{compression}"
        path.write_bytes(packed(line_end.join(encoded), compression, pieces))
        documents, quarantined, reader = read(path, limits)
    good = [(row, item) for row, (kind, item) in enumerate(items) if kind == "good"]
    bad = [row for row, (kind, _) in enumerate(items) if kind == "bad"]
    assert reader.records == len(items) == reader.occurrences + sum(row.records for row in quarantined)
    assert [row.row for row in quarantined if row.reason != "file_failed"] == bad
    assert reader.failed == (len(bad) > max_bad_records)
    if reader.failed:
        assert reader.occurrences == 0
    else:
        assert list(zip(documents["row"].to_pylist(), documents["text"].to_pylist(), strict=True)) == good


@settings(max_examples=30, deadline=None)
@given(items=lines, cut=st.floats(0, 1), compression=st.sampled_from(sorted(PACK)[1:]))
def test_a_cut_archive_gives_a_prefix_of_the_whole_ones_documents_and_one_more_row(
    items: list[tuple[str, str | bytes]], cut: float, compression: str
) -> None:
    encoded = [json.dumps({"text": item}).encode() if kind == "good" else bytes(item) for kind, item in items]  # type: ignore[arg-type]
    limits = Limits(max_bad_fraction=1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.jsonl{compression}"
        whole = packed(b"\n".join(encoded), compression, 3)
        path.write_bytes(whole)
        documents, quarantined, _ = read(path, limits)
        path.write_bytes(whole[: int(cut * (len(whole) - 1))])
        part, rows, reader = read(path, limits)
    assert part.equals(documents.slice(0, len(part)))
    # A cut between two members is no cut inside a stream: then the last line may be half, or the file whole in itself.
    if rows and rows[-1].reason == "truncated_stream":
        assert rows[:-1] == quarantined[: len(rows) - 1]
    assert reader.records == len(part) + len(rows)


@settings(max_examples=30, deadline=None)
@given(items=lines, first=st.integers(1, 20_000), second=st.integers(1, 20_000))
def test_the_size_of_batches_changes_nothing(items: list[tuple[str, str | bytes]], first: int, second: int) -> None:
    encoded = [json.dumps({"text": item}).encode() if kind == "good" else bytes(item) for kind, item in items]  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"\n".join(encoded))
        one = read(path, Limits(batch_bytes=first, max_bad_fraction=1.0))
        other = read(path, Limits(batch_bytes=second, max_bad_fraction=1.0))
    assert one[0].combine_chunks().equals(other[0].combine_chunks())
    assert one[1] == other[1] and counts(one[2]) == counts(other[2])


def test_batches_stay_within_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * (number % 300 + 1)}) + "\n" for number in range(3000)))
    batches = list(ShardReader(path, limits=Limits(batch_bytes=100_000)))
    assert len(batches) > 20
    assert max(batch.documents.nbytes for batch in batches) < 102_000


def test_real_messages_are_read_whole_but_for_the_empty_ones() -> None:
    path = Path(os.environ.get("WINNOW_TEST_DATA", "../shared/data")) / "usenet" / "docs.jsonl.zst"
    if not path.exists():
        pytest.skip(f"{path} is not there; set WINNOW_TEST_DATA")
    documents, quarantined, reader = read(path, Limits(batch_bytes=2**20))
    assert (reader.records, len(documents), reader.failed) == (19_997, 19_956, False)
    assert {row.reason for row in quarantined} == {"empty_text"} and len(quarantined) == 41
    assert documents["row"].to_pylist() == sorted(set(range(19_997)) - {row.row for row in quarantined})
    # The data set's notes count 681 surplus copies among all texts; the empty bodies are 5 of the distinct texts.
    assert pc.count_distinct(documents["doc_id"].cast(pa.binary(16))).as_py() == 19_997 - 681 - 5
