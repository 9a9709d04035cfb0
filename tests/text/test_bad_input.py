"""Hostile JSON Lines and text files: every record ends as a document or as a quarantine row that helps."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from winnow.errors import UserError
from winnow.identity import canonical_json, doc_ids
from winnow.text import DOCUMENTS, FieldMap, Limits, Quarantined, ShardReader, read_batches, readers
from winnow.text.watched import UnavailableError

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
    assert all(row.detail.isprintable() and row.detail for row in quarantined)
    return documents, quarantined, reader


def lines_of(tmp_path: Path, *lines: bytes | dict[str, Any]) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


GOOD = {"text": "good", "id": 1}
BAD = {
    b'{"text": "a"': ("invalid_json", "line 3: "),
    b"nonsense": ("invalid_json", "write one JSON object a line"),
    b'{"text": "a\tb"}': ("invalid_json", "control character"),
    b'{"text": "a"} {"text": "b"}': ("invalid_json", "Extra data at character 14"),
    b"[": ("invalid_json", "spread over lines"),
    b'{"text": "a", "n": ' + b"9" * 5000 + b"}": ("invalid_json", "write such numbers as strings"),
    b'{"text": "a", "deep": ' + b"[" * 200 + b"]" * 200 + b"}": ("invalid_json", "nested more than 100 levels"),
    b'{"text": "a", "deep": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_000 + b"}": (
        "invalid_json",
        "nested more than 100",
    ),
    b'{"text": "a", "id": ' + b"[" * 900 + b"]" * 900 + b"}": ("invalid_json", "nested more than 100"),
    b"[" * 100_000: ("invalid_json", "nested more than 100 levels"),
    b'["text"]': ("not_an_object", "the line is an array; write one JSON object a line"),
    b'"text"': ("not_an_object", "a string"),
    b"null": ("not_an_object", "null"),
    b'{"content": "a", "n": 1}': ("missing_text", "(set text_field=...); fields present: content, n"),
    b"{}": ("missing_text", "fields present: none"),
    b'{"text": null}': ("missing_text", "field 'text' is null"),
    b'{"text": 5}': ("text_not_string", "line 3: field 'text' is a number; expected a string (set text_field=...)"),
    b'{"text": true}': ("text_not_string", "a boolean"),
    b'{"text": ["a"]}': ("text_not_string", "an array"),
    b'{"text": {"a": "b"}}': ("text_not_string", "an object"),
    b'{"text": ""}': ("empty_text", "field 'text' is empty"),
    b'{"text": " \\n\\t\\u00a0\\u3000"}': ("empty_text", "white space"),
    b'{"text": "a\xff"}': ("invalid_utf8", "byte 0xff at 11 is not UTF-8"),
    b'{"text": "\xed\xa0\x80"}': ("invalid_utf8", "0xed"),
    b'{"text": "caf\xe9"}': ("invalid_utf8", "convert it to UTF-8"),
    b'{"text": "ab\\ud800"}': ("lone_surrogate", "at character 2"),
    b'{"text": "\\udc00\\ud83d"}': ("lone_surrogate", "repair it at the source"),
    b'{"text": "a\\u0000b"}': ("nul_byte", "a NUL at character 1"),
    b"\0" * 512: ("nul_byte", "cut short by a crash"),
}


@pytest.mark.parametrize(("line", "reason", "detail"), [(line, *expected) for line, expected in BAD.items()])
def test_a_bad_line_is_quarantined_with_reason_place_and_mend(
    tmp_path: Path, line: bytes, reason: str, detail: str
) -> None:
    documents, (row,), _ = read(lines_of(tmp_path, GOOD, b"", line, GOOD))
    assert documents["row"].to_pylist() == [0, 2]
    assert (row.row, row.reason, row.records) == (1, reason, 1)
    assert row.offset == len(json.dumps(GOOD)) + 2
    assert detail in row.detail and row.detail.startswith("line 3: ")
    assert row.excerpt


def test_the_excerpt_shows_the_place_of_the_fault(tmp_path: Path) -> None:
    line = b'{"text": "' + b"x" * 5000 + b'", "here": oops, "more": "' + b"y" * 5000 + b'"}'
    _, (row,), _ = read(lines_of(tmp_path, line))
    assert '"here": oops' in row.excerpt


def test_fields_are_mapped_and_the_rest_is_canonical_metadata(tmp_path: Path) -> None:
    record = {
        "meta": {"b": [1, None], "link": "http://x", "a": 1.5},
        "data": {"text": "tëxt", "lang": "de"},
        "key": 7,
        "when": 2024.5,
        "z": "\u20ac",
    }
    fields = FieldMap(text="data.text", id="key", url="meta.link", date="when")
    documents, _, _ = read(lines_of(tmp_path, record), fields)
    assert documents.schema.equals(DOCUMENTS)
    (row,) = documents.drop_columns(["doc_id"]).to_pylist()
    assert row == {
        "row": 0,
        "text": "tëxt",
        "original": None,
        "original_id": "7",
        "url": "http://x",
        "date": "2024.5",
        "metadata": '{"data":{"lang":"de"},"meta":{"a":1.5,"b":[1,null]},"z":"€"}',
        "characters": 4,
        "bytes": 5,
        "words": 1,
    }
    assert documents["doc_id"].combine_chunks().equals(doc_ids(["tëxt"]))


def test_a_field_whose_name_has_a_dot_comes_before_a_nested_one(tmp_path: Path) -> None:
    documents, _, _ = read(lines_of(tmp_path, {"a.b": "flat", "a": {"b": "nested"}}), FieldMap(text="a.b"))
    assert documents["text"].to_pylist() == ["flat"]
    assert documents["metadata"].to_pylist() == ['{"a":{"b":"nested"}}']


@pytest.mark.parametrize(
    ("raw", "text"),
    [("12", "12"), ("true", "true"), ("null", None), ('{"b":1,"a":2}', '{"a":2,"b":1}'), ("NaN", None), ('"x"', "x")],
)
def test_an_id_that_is_no_string_is_kept_as_its_text(tmp_path: Path, raw: str, text: str | None) -> None:
    documents, _, _ = read(lines_of(tmp_path, f'{{"text": "a", "id": {raw}}}'.encode()))
    assert documents["original_id"].to_pylist() == [text]
    assert documents["metadata"].to_pylist() == ["{}"]


def test_absent_or_unmapped_fields_are_null_and_unmapped_ones_are_metadata(tmp_path: Path) -> None:
    path = lines_of(tmp_path, {"text": "a", "id": "i"})
    documents, _, _ = read(path, FieldMap(id=None, url="", date="no"))
    assert documents.select(["original_id", "url", "date", "metadata"]).to_pylist() == [
        {"original_id": None, "url": None, "date": None, "metadata": '{"id":"i"}'}
    ]


def test_metadata_is_always_valid_json_and_utf8(tmp_path: Path) -> None:
    line = b'{"text": "a", "n": [NaN, -Infinity, 1e999, 1.5], "s": "\\ud800x\\u0000", "url": "u\\udfff\\u0000"}'
    documents, quarantined, _ = read(lines_of(tmp_path, line))
    (metadata,) = documents["metadata"].to_pylist()
    assert not quarantined
    assert json.loads(metadata, parse_constant=pytest.fail) == {"n": [None, None, None, 1.5], "s": "\ufffdx\0"}
    assert metadata == canonical_json(json.loads(metadata))
    assert documents["url"].to_pylist() == ["u\ufffd\ufffd"]


def test_byte_order_mark_crlf_blank_lines_and_a_missing_last_line_end_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n \t \n{"text": "b\\r\\n"}\r\n\n{"text": "c"}')
    documents, quarantined, _ = read(path)
    assert documents["text"].to_pylist() == ["a", "b\r\n", "c"]
    assert documents["row"].to_pylist() == [0, 1, 2] and not quarantined


def test_only_line_feeds_end_lines_and_escaped_pairs_are_whole(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf 😀"
    for ascii_only in (True, False):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n")
        documents, quarantined, _ = read(path)
        assert documents["text"].to_pylist() == [text] and not quarantined


def test_an_empty_file_has_no_records_and_does_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    _, _, reader = read(path)
    assert (reader.records, reader.failed) == (0, False)
    assert list(read_batches(path)) == []


def test_a_record_over_the_limit_is_skipped_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    limit = 2**20
    line = b'{"text": "' + b"x" * (64 * 2**20) + b'"}'
    good = b'{"text": "after"}\n'
    path.write_bytes(good + line + b"\n" + good)
    packed = tmp_path / "b.jsonl.zst"
    packed.write_bytes(zstandard.compress(path.read_bytes()))
    del line
    for file in (path, packed):
        tracemalloc.start()
        documents, (row,), _ = read(file, limits=Limits(max_record_bytes=limit, batch_bytes=limit, max_expansion=1e6))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert documents["row"].to_pylist() == [0, 2]
        assert (row.row, row.offset, row.reason) == (1, len(good), "record_too_large")
        assert "1,048,576 bytes" in row.detail and row.excerpt.startswith('{"text": "xxx')
        assert peak < 6 * limit


def test_a_record_of_exactly_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = lines_of(tmp_path, b'{"text": "ab"}', b'{"text": "abc"}')
    documents, (row,), _ = read(path, limits=Limits(max_record_bytes=14, max_bad_fraction=1.0))
    assert documents["text"].to_pylist() == ["ab"]
    assert (row.row, row.reason) == (1, "record_too_large")


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_cut_archive_keeps_its_beginning_and_has_one_row_for_the_rest(tmp_path: Path, compression: str) -> None:
    raw = b"".join(json.dumps({"text": f"document {i} " + "word " * (i % 50)}).encode() + b"\n" for i in range(20_000))
    whole = gzip.compress(raw) if compression == "gz" else zstandard.compress(raw)
    path = tmp_path / f"a.jsonl.{compression}"
    path.write_bytes(whole[: len(whole) // 2])
    documents, (row,), reader = read(path, limits=Limits())
    kept = len(documents)
    assert 5000 < kept < 20_000 and not reader.failed
    assert documents["text"].to_pylist() == [json.loads(line)["text"] for line in raw.split(b"\n")[:kept]]
    assert (row.reason, row.row, row.records) == ("truncated_stream", kept, 1)
    assert row.offset == sum(len(line) + 1 for line in raw.split(b"\n")[:kept])
    assert "cut short" in row.detail and raw[row.offset :].decode().startswith(row.excerpt.split("\ufffd")[0][:100])


def test_concatenated_members_and_frames_are_read_whole_even_when_cut_inside_lines(tmp_path: Path) -> None:
    raw = b"".join(json.dumps({"text": f"document {i}"}).encode() + b"\n" for i in range(100))
    for name, pack in (("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)):
        path = tmp_path / name
        path.write_bytes(b"".join(pack(raw[start : start + 7]) for start in range(0, len(raw), 7)))
        documents, quarantined, _ = read(path)
        assert documents["text"].to_pylist() == [f"document {i}" for i in range(100)] and not quarantined


def test_a_file_compressed_otherwise_than_its_name_says_is_unreadable_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    _, (row,), reader = read(path)
    assert row.reason == "unreadable_file" and "add .gz to its name" in row.detail
    assert reader.failed and reader.records == 1


def test_too_many_bad_records_fail_the_file_and_nothing_of_it_is_admitted(tmp_path: Path) -> None:
    path = lines_of(tmp_path, *[GOOD] * 90, *[b"bad"] * 11)
    _, rows, reader = read(path, limits=Limits())
    assert (reader.failed, reader.records, reader.occurrences, reader.quarantined) == (True, 101, 0, 101)
    assert [row.reason for row in rows] == ["invalid_json"] * 11 + ["file_failed"]
    assert rows[-1].records == 90
    assert "11 of 101 records are bad (invalid_json 11)" in rows[-1].detail == reader.failure
    assert "mend the file or the field map" in rows[-1].detail


def test_bad_records_within_either_limit_do_not_fail_the_file(tmp_path: Path) -> None:
    path = lines_of(tmp_path, *[GOOD] * 90, *[b"bad"] * 10)
    assert not read(path, limits=Limits())[2].failed
    assert read(path, limits=Limits(max_bad_records=9))[2].failed
    assert not read(path, limits=Limits(max_bad_records=0, max_bad_fraction=0.1))[2].failed
    assert read(path, limits=Limits(max_bad_records=0, max_bad_fraction=0.09))[2].failed


def test_a_wrong_field_map_fails_the_file_with_a_bounded_number_of_rows(tmp_path: Path) -> None:
    path = lines_of(tmp_path, *[{"content": "a"}] * 3000, *[b"{"] * 50)
    _, rows, reader = read(path, limits=Limits())
    assert reader.failed and reader.records == 3050
    assert len(rows) == 1002
    assert [(row.reason, row.records) for row in rows[-2:]] == [("missing_text", 2000), ("invalid_json", 50)]
    assert rows[-2].detail.startswith("2000 further records that are not listed; the first: line 1001: field 'text'")


def test_what_is_no_readable_file_is_one_quarantine_row(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    names = ["folder.jsonl", "folder.parquet", "pipe.jsonl", "loop.txt", "gone.jsonl", "gone.parquet", "gone.txt"]
    for name in names:
        _, (row,), reader = read(tmp_path / name)
        assert (row.reason, row.records, row.row) == ("unreadable_file", 1, None)
        assert reader.failed and reader.records == 1
        assert reader.sha256 is None


def test_a_file_without_permission_is_one_quarantine_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines_of(tmp_path, GOOD)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    _, (row,), reader = read(path)
    assert row.reason == "unreadable_file" and "Permission denied" in row.detail
    assert reader.sha256 is None


def test_a_disk_error_in_the_middle_voids_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines_of(tmp_path, *[GOOD] * 100_000)

    class Flaky(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(readers, "open_binary", lambda _: Flaky(path.read_bytes()))
    reader = ShardReader(path)
    with pytest.raises(UnavailableError, match="Input/output error"):
        list(reader)
    assert reader.sha256 is None


def test_a_name_that_is_no_corpus_files_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus file by its suffix"):
        ShardReader(tmp_path / "a.doc")


@pytest.mark.parametrize(
    "wrong", [{"max_record_bytes": 0}, {"batch_bytes": -1}, {"max_bad_fraction": 1.5}, {"max_bad_records": -1}]
)
def test_limits_out_of_range_are_the_users_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Limits(**wrong)
    with pytest.raises(UserError, match="text_field"):
        FieldMap(text="")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"# Title\r\n\r\nBody\n", "# Title\r\n\r\nBody\n"),
        (b"\xef\xbb\xbfwith mark", "with mark"),
        ("Grüße\u2028".encode(), "Grüße\u2028"),
    ],
)
def test_a_text_file_is_one_document_as_it_is(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(data)
    documents, quarantined, reader = read(path)
    assert documents["text"].to_pylist() == [text] and not quarantined
    assert documents["metadata"].to_pylist() == ["{}"] and documents["original_id"].to_pylist() == [None]
    assert (reader.format, reader.records) == ("markdown", 1)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty_text", "the file is empty"),
        (b" \n ", "empty_text", "white space"),
        (b"caf\xe9", "invalid_utf8", "byte 0xe9 at 3"),
        ("text".encode("utf-16"), "invalid_utf8", "is UTF-16"),
        (b"a\0b", "nul_byte", "the file has a NUL at character 1"),
        (b"x" * 101, "record_too_large", "longer than 100 bytes"),
    ],
)
def test_a_bad_text_file_is_one_quarantine_row(tmp_path: Path, data: bytes, reason: str, detail: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    documents, (row,), reader = read(path, limits=Limits(max_record_bytes=100))
    assert len(documents) == 0 and not reader.failed
    assert (row.row, row.offset, row.reason) == (0, 0, reason)
    assert detail in row.detail


def test_digest_and_size_are_of_the_delivered_bytes_even_past_a_break(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n') + b"garbage" * 5000)
    reader = read(path)[2]
    assert (reader.sha256, reader.bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def test_a_file_can_be_read_again_with_the_same_totals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="winnow.text.readers")
    reader = ShardReader(lines_of(tmp_path, GOOD, b"bad", GOOD))
    first = [batch.documents for batch in reader], reader.records, reader.occurrences, reader.quarantined, reader.sha256
    again = [batch.documents for batch in reader], reader.records, reader.occurrences, reader.quarantined, reader.sha256
    assert again == first and first[1:4] == (3, 2, 1)
    assert "a.jsonl: 3 records, 2 documents, 1 quarantined" in caplog.text
