"""CSV and TSV: rows as Python's csv reads them, and every bad row alone."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.text import DOCUMENTS, FieldMap, Limits, Quarantined, ShardReader, streams
from winnow.text.formats.base import Reading
from winnow.text.formats.delimited import Rows
from winnow.text.lines import Line

LENIENT = Limits(max_bad_fraction=1.0)


def read(
    tmp_path: Path, data: bytes | str, name: str = "a.csv", **how: Any
) -> tuple[list[dict[str, Any]], list[Quarantined], ShardReader]:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    reader = ShardReader(path, reading=Reading(**{"limits": LENIENT, **how}))
    batches = list(reader)
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    bad = [row for batch in batches for row in batch.quarantined]
    assert reader.records == reader.occurrences + reader.quarantined
    return documents.drop_columns(["doc_id"]).to_pylist(), bad, reader


def test_rows_become_documents_with_all_other_cells_as_metadata(tmp_path: Path) -> None:
    data = 'id,text,n,empty\n7,"a ""quoted"", word\nand a line",5,\n8,plain,6,x\n'
    rows, bad, reader = read(tmp_path, data)
    assert [(row["row"], row["original_id"], row["text"]) for row in rows] == [
        (0, "7", 'a "quoted", word\nand a line'),
        (1, "8", "plain"),
    ]
    assert [json.loads(row["metadata"]) for row in rows] == [{"n": "5", "empty": ""}, {"n": "6", "empty": "x"}]
    assert not bad and reader.format == "csv"
    assert reader.fields.types == {name: {"string"} for name in ("id", "text", "n", "empty")}


def test_delimiters_field_maps_marks_line_ends_and_compression(tmp_path: Path) -> None:
    expected = ["one", "two"]
    for name, data, how in (
        ("a.tsv", "text\tn\none\t1\ntwo\t2", {}),
        ("b.csv", "text;n\r\none;1\r\n\r\ntwo;2\r\n", {"delimiter": ";"}),
        ("c.csv", "\ufefftext,n\rone,1\rtwo,2\r", {}),
        ("d.csv", '\ufeff"text",n\n\none,1\n\n\n"two",2\n', {}),
        ("e.csv", "a.b,n\none,1\ntwo,2\n", {"fields": FieldMap(text="a.b", metadata=("n",))}),
    ):
        rows, bad, _ = read(tmp_path, data, name, **how)
        assert [row["text"] for row in rows] == expected and not bad
        assert [row["metadata"] for row in rows] == ['{"n":"1"}', '{"n":"2"}']
    rows, _, reader = read(tmp_path, gzip.compress(b"text\none\ntwo\n"), "f.csv.gz")
    assert [row["text"] for row in rows] == expected and reader.format == "csv.gz"


BAD_ROWS = [
    ("one", "invalid_csv", "the row has 1 cells, the header 3"),
    ("a,b,c,d", "invalid_csv", "the row has 4 cells, the header 3"),
    ('"a" b,c,d', "invalid_csv", "double those inside"),
    (",b,c", "empty_text", "field 'text' is empty"),
    (b"caf\xe9,b,c", "invalid_utf8", "byte 0xe9"),
    (b"a\0,b,c", "nul_byte", "NUL"),
    ('"' + "x\n" * 200 + '",b,c', "record_too_large", "longer than 300 bytes"),
    ("y" * 400 + ",b,c", "record_too_large", "max_record_bytes"),
]


@pytest.mark.parametrize(("bad_row", "reason", "detail"), BAD_ROWS)
def test_a_bad_row_spoils_only_itself(tmp_path: Path, bad_row: bytes | str, reason: str, detail: str) -> None:
    middle = bad_row if isinstance(bad_row, bytes) else bad_row.encode()
    data = b'text,n,m\n"good\nrow",1,2\n' + middle + b"\nafter,3,4\n"
    limits = Limits(max_bad_fraction=1.0, max_record_bytes=300)
    for block in (1, 5, 2**20):
        with mock.patch.object(streams, "BLOCK", block):
            rows, (row,), _ = read(tmp_path, data, limits=limits)
        assert [one["text"] for one in rows] == ["good\nrow", "after"]
        assert [one["row"] for one in rows] == [0, 2]
        assert (row.row, row.reason, row.offset) == (1, reason, data.index(middle))
        assert row.detail.startswith("line 4: ") and detail in row.detail


def test_a_quote_that_is_never_closed_is_one_bad_row_at_its_line(tmp_path: Path) -> None:
    rows, (row,), _ = read(tmp_path, 'text,n\ngood,1\n"open,2\nlost,3\n')
    assert [one["text"] for one in rows] == ["good"]
    assert row.reason == "invalid_csv" and row.detail.startswith("line 3: a quote is opened and never closed")


def test_a_quote_inside_a_cell_is_only_a_character(tmp_path: Path) -> None:
    rows, bad, _ = read(tmp_path, 'text,n\na 5" pipe,1\nnext,2\n')
    assert [one["text"] for one in rows] == ['a 5" pipe', "next"] and not bad


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        ("body,n\na,1\n", "missing_text", "fields present: body, n"),
        ("text,n,n\na,1,2\n", "invalid_csv", "names 'n' more than once"),
        (b"text,caf\xe9\na,1\n", "invalid_utf8", "line 1, the header"),
        ("text,n\na,1\n".encode("utf-16"), "invalid_utf8", "iconv -f UTF-16"),
        ('"text,n\na,1\n', "invalid_csv", "never closed"),
        (gzip.compress(b"text\na\n", mtime=0), "unreadable_file", "add .gz to its name"),
        ("x" * 400, "record_too_large", "the header"),
    ],
)
def test_a_table_without_a_usable_header_fails(tmp_path: Path, data: bytes | str, reason: str, detail: str) -> None:
    _, (row,), reader = read(tmp_path, data, limits=Limits(max_record_bytes=300))
    assert reader.failed and row.reason == reason and detail in row.detail


def test_tables_without_rows_have_no_records(tmp_path: Path) -> None:
    for data in (b"", b"\n\n", b"\xef\xbb\xbf", b"text,n", b"text,n\n\n"):
        _, bad, reader = read(tmp_path, data)
        assert (reader.records, reader.failed, bad) == (0, False, [])


def test_a_cut_table_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    raw = b"text,n\n" + b"".join(b'"row %d",%d\n' % (n, n * n) for n in range(5000))
    rows, bad, _ = read(tmp_path, gzip.compress(raw)[:-4000], "a.csv.gz")
    assert 100 < len(rows) < 5000 and [one["text"] for one in rows] == [f"row {n}" for n in range(len(rows))]
    assert [(row.reason, row.row) for row in bad] == [("truncated_stream", len(rows))]
    assert bad[0].detail.startswith(f"line {len(rows) + 2} and what follows")


@pytest.mark.parametrize("delimiter", ["ü", '"', "\n", "\0"])
def test_a_delimiter_that_can_be_none_is_the_users_mistake(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(UserError, match="give one ASCII character"):
        read(tmp_path, "text\na\n", delimiter=delimiter)


cells = st.text(st.sampled_from('ab,;"\n\r é\u2028\x00'), max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    table=st.lists(st.lists(cells, min_size=2, max_size=2), max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    block=st.integers(1, 40),
)
def test_what_csv_writes_is_read_back(table: list[list[str]], end: str, quoting: Any, block: int) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=quoting).writerows([["text", "n"], *table])
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(streams, "BLOCK", block):
        rows, bad, reader = read(Path(folder), out.getvalue())
    assert reader.records == len(table) == len(rows) + len(bad)
    assert {row.reason for row in bad} <= {"empty_text", "nul_byte", "invalid_csv"}
    for row in bad:
        if row.reason == "invalid_csv":  # Python's csv leaves carriage returns without quotes
            assert row.row is not None and "\r" in "".join(table[row.row])
    for row in rows:
        text, n = table[row["row"]]
        read_back = json.loads(row["metadata"])["n"]
        # For the same reason, the last ones are the line's end.
        assert read_back in ((n, n.rstrip("\r")) if quoting == csv.QUOTE_MINIMAL else (n,))
        assert row["text"] == text


def framed(data: bytes, size: int, max_bytes: int) -> list[Line]:
    rows = Rows(max_bytes, ",")
    rows.look(data)
    return list(rows.of([data[at : at + size] for at in range(0, len(data), size)]))


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["a", ",", '"', "\n", "\n", "bc", "é"])),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    size=st.integers(1, 9),
    max_bytes=st.integers(1, 30),
)
def test_rows_are_framed_as_csv_frames_them_however_the_bytes_are_cut(
    parts: list[str], end: str, size: int, max_bytes: int
) -> None:
    text = "".join(parts).replace("\n", end)
    data = text.encode()
    whole = framed(data, 10**6, max_bytes)
    assert framed(data, size, max_bytes) == whole
    assert all(data[row.offset :].startswith(row.data) for row in whole)
    twin = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    got = [next(csv.reader([row.data.decode()])) for row in framed(data, size, 10**6) if row.data]
    assert got == twin


def test_a_carriage_return_outside_quotes_is_one_bad_row(tmp_path: Path) -> None:
    rows, (row,), _ = read(tmp_path, 'text,n\na\rb,1\n"c\rd",2\n')
    assert [one["text"] for one in rows] == ["c\rd"]
    assert row.reason == "invalid_csv" and "carriage return is outside quotes" in row.detail
