"""Parquet files: types, drifting quality, corrupt pages and footers."""

from __future__ import annotations

import datetime
import json
import random
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.text import DOCUMENTS, FieldMap, Limits, Quarantined, ShardReader

LENIENT = Limits(max_bad_fraction=1.0)


def read(
    path: Path, fields: FieldMap | None = None, limits: Limits = LENIENT
) -> tuple[pa.Table, list[Quarantined], ShardReader]:
    reader = ShardReader(path, fields, limits)
    batches = list(reader)
    quarantined = [row for batch in batches for row in batch.quarantined]
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    documents.validate(full=True)
    assert reader.records == reader.occurrences + reader.quarantined
    assert reader.quarantined == sum(row.records for row in quarantined)
    assert reader.failed or reader.occurrences == len(documents)
    assert all(row.excerpt.isprintable() and len(row.excerpt) <= 200 for row in quarantined)
    return documents, quarantined, reader


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def metadata_of(documents: pa.Table) -> list[Any]:
    return [json.loads(text) for text in documents["metadata"].to_pylist()]


def strings_of(*values: bytes) -> pa.Array:
    """Return a string column of bytes that Arrow does not check."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


def test_rows_are_documents_with_positions_over_all_row_groups(tmp_path: Path) -> None:
    texts = [f"document {i} é" for i in range(1000)]
    path = write(tmp_path / "a.parquet", {"id": range(1000), "text": texts, "url": [None] * 1000}, row_group_size=300)
    documents, quarantined, reader = read(path, limits=Limits(batch_bytes=20_000))
    assert documents["text"].to_pylist() == texts and not quarantined
    assert documents["row"].to_pylist() == list(range(1000))
    assert documents["original_id"].to_pylist() == [str(i) for i in range(1000)]
    assert documents["url"].null_count == 1000 and set(documents["metadata"].to_pylist()) == {"{}"}
    assert reader.records == 1000


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_kind_of_string_column_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    values = ["a", "é", "a", None]
    raw = [None if value is None else value.encode() for value in values]
    column = pa.array(raw, kind) if "binary" in str(kind) else pa.array(values).cast(kind)
    documents, (row,), _ = read(write(tmp_path / "a.parquet", {"text": column}))
    assert documents["text"].to_pylist() == ["a", "é", "a"]
    assert (row.row, row.reason) == (3, "missing_text")


def test_bad_rows_are_quarantined_by_their_position(tmp_path: Path) -> None:
    text = strings_of(b"good", b"", b"\xff bad", b"a\0b", b" \n", b"x" * 1001, b"fine")
    path = write(tmp_path / "a.parquet", {"text": text, "n": range(7)})
    documents, rows, _ = read(path, limits=Limits(max_record_bytes=1000, max_bad_fraction=1.0))
    assert documents["row"].to_pylist() == [0, 6]
    assert [(row.row, row.reason) for row in rows] == [
        (1, "empty_text"),
        (2, "invalid_utf8"),
        (3, "nul_byte"),
        (4, "empty_text"),
        (5, "record_too_large"),
    ]
    assert rows[1].detail == "row 2: column 'text' is not UTF-8; convert it, or declare it binary"
    assert rows[2].excerpt == "text: a\ufffdb, n: 3"


def test_other_columns_become_valid_metadata_whatever_their_type(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 123000)
    path = write(
        tmp_path / "a.parquet",
        {
            "text": ["a"],
            "date": pa.array([moment], pa.timestamp("ms")),
            "nanos": pa.array([1], pa.timestamp("ns")),
            "far": pa.array([3 * 10**11], pa.timestamp("s")),
            "day": pa.array([datetime.date(2024, 1, 2)]),
            "clock": pa.array([datetime.time(1, 2, 3)]),
            "lasting": pa.array([datetime.timedelta(days=1)]),
            "price": pa.array([Decimal("1.50")]),
            "blob": pa.array([b"caf\xc3\xa9"]),
            "noise": pa.array([b"\xff\x00"]),
            "number": [float("nan")],
            "nested": pa.array([{"list": [{"when": moment, "x": float("inf")}], "none": None}]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "coded": pa.array([moment]).dictionary_encode(),
        },
    )
    documents, quarantined, _ = read(path)
    assert not quarantined
    assert documents["date"].to_pylist() == ["2024-05-06 07:08:09.123"]
    assert metadata_of(documents) == [
        {
            "nanos": "1970-01-01 00:00:00.000000001",
            "far": "11476-08-15 05:20:00.000",
            "day": "2024-01-02",
            "clock": "01:02:03.000000",
            "lasting": "86400000000",
            "price": "1.50",
            "blob": "café",
            "noise": "/wA=",
            "number": None,
            "nested": {"list": [{"when": "2024-05-06 07:08:09.123000", "x": None}], "none": None},
            "map": {"k": 1},
            "coded": "2024-05-06 07:08:09.123000",
        }
    ]


def test_a_nested_text_column_is_found_and_taken_out_of_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"data": [{"text": "a", "lang": "en"}, {"text": "b", "lang": None}, None]})
    documents, (row,), _ = read(path, FieldMap(text="data.text"))
    assert documents["text"].to_pylist() == ["a", "b"]
    assert metadata_of(documents) == [{"data": {"lang": "en"}}, {"data": {"lang": None}}]
    assert (row.row, row.reason) == (2, "missing_text")


@pytest.mark.parametrize("name", ["text", "content.text", "content.deep.er", "data.text"])
def test_a_missing_text_column_fails_the_file_naming_what_is_there(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.parquet", {"content": ["a"] * 500, "data": [{"n": 1}] * 500})
    documents, (row,), reader = read(path, FieldMap(text=name), Limits())
    assert len(documents) == 0 and reader.failed and reader.records == 500
    assert (row.reason, row.records) == ("missing_text", 500)
    assert row.detail == f"field '{name}' is missing (set text_field=...); fields present: content, data"


def test_a_text_column_of_another_type_fails_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": range(500), "body": ["a"] * 500})
    _, (row,), reader = read(path)
    assert reader.failed and (row.reason, row.records) == ("text_not_string", 500)
    assert "column 'text' is int64; expected strings (set text_field=...); columns present: text, body" in row.detail


def test_a_row_whose_other_column_is_no_utf8_is_quarantined_alone(tmp_path: Path) -> None:
    columns = {"text": ["a", "b"], "title": strings_of(b"t", b"\xff"), "n": [{"s": "x"}] * 2}
    documents, (row,), _ = read(write(tmp_path / "a.parquet", columns))
    assert documents["text"].to_pylist() == ["a"]
    assert (row.row, row.reason) == (1, "invalid_utf8") and "column 'title'" in row.detail


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all" * 10, b"PAR1" + bytes(100) + b"PAR1"])
def test_an_unreadable_footer_is_one_quarantine_row(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    _, (row,), reader = read(path)
    assert row.reason == "unreadable_file" and "footer" in row.detail
    assert reader.failed and reader.sha256 is not None


def test_a_cut_file_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a" * 100] * 1000})
    path.write_bytes(path.read_bytes()[:-100])
    assert [row.reason for row in read(path)[1]] == ["unreadable_file"]


def _words(count: int) -> list[str]:
    chosen = random.Random(0)
    return [" ".join(str(chosen.random()) for _ in range(20)) for _ in range(count)]


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"compression": "none", "write_page_checksum": True}])
def test_a_corrupt_page_costs_the_rest_of_its_row_group_and_no_more(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = _words(4000)
    path = write(tmp_path / "a.parquet", {"text": texts}, row_group_size=1000, use_dictionary=False, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(data)
    results = []
    for limits in (Limits(), Limits(batch_bytes=1000)):
        documents, (row,), reader = read(path, limits=limits)
        kept = len(documents) - 1000
        assert 2000 <= kept < 3000 and documents["text"].to_pylist() == texts[:kept] + texts[3000:]
        assert (row.reason, row.row, row.records) == ("truncated_stream", kept, 3000 - kept)
        assert reader.records == 4000 and not reader.failed
        results.append(kept)
    assert results[0] == results[1]


def test_no_corruption_of_a_file_escapes_as_an_exception(tmp_path: Path) -> None:
    columns = {"text": _words(300), "when": pa.array(range(300), pa.timestamp("ns")), "n": [{"a": [1, 2]}] * 300}
    path = write(tmp_path / "a.parquet", columns, row_group_size=100, write_page_checksum=True)
    whole = path.read_bytes()
    chosen = random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        start = chosen.randrange(len(data))
        for place in range(start, min(len(data), start + chosen.randrange(1, 30))):
            data[place] = chosen.randrange(256)
        path.write_bytes(data)
        documents, quarantined, _ = read(path)
        assert len(documents) + len(quarantined) > 0


def test_an_empty_table_has_no_records_and_does_not_fail(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
    documents, quarantined, reader = read(path)
    assert len(documents) == 0 and not quarantined and not reader.failed


def test_many_copies_of_a_long_text_are_not_decoded_at_once(tmp_path: Path) -> None:
    text = "0123456789" * 20_000
    path = write(tmp_path / "a.parquet", {"text": [text] * 2000})
    assert path.stat().st_size < 2 * len(text)
    before = pa.total_allocated_bytes()
    peak = 0
    tracemalloc.start()
    reader = ShardReader(path, limits=Limits(batch_bytes=4 * 2**20))
    for batch in reader:
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert batch.documents["bytes"].to_pylist() == [len(text)] * len(batch.documents)
    python_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.occurrences == 2000
    assert peak + python_peak < 256 * len(text) * 4 < 2000 * len(text)
