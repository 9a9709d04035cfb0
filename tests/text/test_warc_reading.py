"""WARC and WET files: pages become documents, and whatever is broken stays in its place."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tempfile
import tracemalloc
import zlib
from base64 import b32encode
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from winnow.text import FieldMap, Limits, Quarantined, ShardReader, format_of
from winnow.text.formats import Reading

LENIENT = Limits(max_bad_fraction=1.0)
PAGE = (
    "<html><head><title>T</title></head><body><h1>Title {0}</h1><p>Words of page {0}, and &amp; more.</p></body></html>"
)


def record(
    kind: str, block: bytes, number: int = 0, headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """Write a record by hand, with any header and any length."""
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": f"http://example.org/{number}",
        "WARC-Date": "2024-02-03T04:05:06Z",
        **(headers or {}),
        "Content-Length": str(len(block) if length is None else length),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"WARC/1.0\r\n" + lines.encode() + b"\r\n" + block + b"\r\n\r\n"


def wet(number: int, text: str | None = None) -> bytes:
    return record("conversion", (text or f"Text {number}\n").encode(), number, {"Content-Type": "text/plain"})


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode() + body


def response(number: int, body: bytes, *headers: str, status: str = "200 OK", **more: str) -> bytes:
    fields = {"Content-Type": "application/http; msgtype=response"}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return record("response", http(body, *headers, status=status), number, fields)


def page(number: int) -> bytes:
    return response(number, PAGE.format(number).encode(), "Content-Type: text/html; charset=utf-8")


def read(
    data: bytes, name: str = "a.warc", limits: Limits = LENIENT, html: str = "text", **how: Any
) -> tuple[list[dict[str, Any]], list[Quarantined], ShardReader]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        reader = ShardReader(path, reading=Reading(limits=limits, html=html, **how))
        rows: list[dict[str, Any]] = []
        quarantined: list[Quarantined] = []
        for batch in reader:
            batch.documents.validate(full=True)
            rows += batch.documents.to_pylist()
            quarantined += batch.quarantined
        assert reader.sha256 == hashlib.sha256(data).hexdigest()
    assert reader.records == reader.occurrences + reader.quarantined
    assert reader.quarantined == sum(row.records for row in quarantined)
    for row in rows:
        row["metadata"] = json.loads(row["metadata"])
    return rows, quarantined, reader


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CC-MAIN-20240220211055-20240221001055-00000.warc.wet.gz", "wet.gz"),
        ("CC-MAIN-20240220211055-20240221001055-00000.warc.gz", "warc.gz"),
        ("a.wet", "wet"),
        ("A.WARC.ZST", "warc.zst"),
        ("CC-MAIN-20240220211055-00000.warc.wat.gz", None),
    ],
)
def test_the_names_of_common_crawl_say_the_format(name: str, expected: str | None) -> None:
    assert format_of(name) == expected


def test_a_wet_record_is_a_document_with_its_headers(tmp_path: Path) -> None:
    head = record("warcinfo", b"Software-Info: test\r\n", 9, {"Content-Type": "application/warc-fields"})
    headers = {
        "WARC-Identified-Content-Language": "deu,eng",
        "WARC-Refers-To": "<urn:uuid:5>",
        "Content-Type": "text/plain",
    }
    (row,), quarantined, reader = read(head + record("conversion", "Grüße\nzwei".encode(), 1, headers), "a.warc.wet")
    assert not quarantined and (reader.format, reader.records) == ("wet", 1)
    assert (row["text"], row["row"]) == ("Grüße\nzwei", 0)
    assert (row["original_id"], row["url"]) == ("urn:uuid:1", "http://example.org/1")
    assert row["date"] == "2024-02-03T04:05:06Z"
    assert row["metadata"] == {
        "warc-type": "conversion",
        "warc-identified-content-language": "deu,eng",
        "warc-refers-to": "<urn:uuid:5>",
        "content-type": "text/plain",
        "media_type": "text/plain",
        "charset": "utf-8",
        "undecodable": 0,
        "extractor": None,
    }


def test_a_response_is_a_document_with_status_type_digest_and_extractor() -> None:
    data = response(
        1, PAGE.format(1).encode(), "Content-Type: text/html", "X-A: 1", "x-a: 2", WARC_Payload_Digest="sha1:X"
    )
    (row,), quarantined, _ = read(data)
    assert not quarantined and row["text"] == "Title 1\nWords of page 1, and & more."
    metadata = row["metadata"]
    assert (metadata["status"], metadata["media_type"], metadata["extractor"]) == (200, "text/html", "text 1")
    assert metadata["warc-payload-digest"] == "sha1:X"
    assert metadata["http"] == {"content-type": "text/html", "x-a": "1, 2"}


def test_the_field_map_chooses_among_the_metadata() -> None:
    fields = FieldMap(text="body", id="no", metadata=("status", "http.x-a", "none"))
    (row,), _, _ = read(response(1, b"plain", "Content-Type: text/plain", "X-A: 1"), fields=fields)
    assert (row["text"], row["original_id"]) == ("plain", "urn:uuid:1")
    assert row["metadata"] == {"status": 200, "http": {"x-a": "1"}}


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_files_of_warcios_writer_are_read_as_warcio_reads_them(name: str) -> None:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=name.endswith(".gz"))
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    for number in range(20):
        uri = f"http://example.org/{number}"
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        body = PAGE.format(number).encode() * (1 + 40 * (number == 7))
        made = writer.create_warc_record(uri, "response", payload=io.BytesIO(body), http_headers=headers)
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "example.org")], is_http_request=True)
        writer.write_request_response_pair(
            writer.create_warc_record(uri, "request", payload=io.BytesIO(b""), http_headers=asked), made
        )
    data = zstandard.compress(out.getvalue()) if name.endswith(".zst") else out.getvalue()
    rows, quarantined, reader = read(data, name)
    assert not quarantined and reader.records == 20
    twin = [
        (one.rec_headers["WARC-Record-ID"][1:-1], one.rec_headers["WARC-Date"], one.http_headers["Content-Type"])
        for one in ArchiveIterator(io.BytesIO(out.getvalue()))
        if one.rec_type == "response"
    ]
    assert [(row["original_id"], row["date"], row["metadata"]["http"]["content-type"]) for row in rows] == twin
    assert [row["row"] for row in rows] == list(range(20)) and rows[7]["text"].count("Title 7") == 41


def test_other_records_are_no_records_of_the_corpus_and_no_page_fails_a_file() -> None:
    others = b"".join(record(kind, b"x", 50) for kind in ("warcinfo", "request", "metadata", "revisit", "odd"))
    errors = b"".join(response(i, b"gone", "Content-Type: text/html", status="404 Not Found") for i in range(30))
    images = b"".join(response(i, b"\x89PNG", "Content-Type: image/png") for i in range(20))
    dns = record("response", b"example.org. 60 IN A 1.2.3.4", 60, {"Content-Type": "text/dns"})
    empty = b"".join(response(i, b"<html><script>x</script></html>", "Content-Type: text/html") for i in range(12))
    data = (
        others + errors + page(1) + images + dns + response(2, b"?", "A: b") + empty + record("continuation", b"c", 3)
    )
    (row,), quarantined, reader = read(data, limits=Limits(max_bad_records=0, max_bad_fraction=0))
    assert row["text"].startswith("Title 1") and not reader.failed
    assert (reader.records, reader.occurrences, reader.quarantined) == (1 + 30 + 20 + 1 + 1 + 12 + 1, 1, 65)
    *listed, error, left = quarantined
    assert {row.reason for row in listed} == {"no_main_text"} and [row.row for row in listed] == list(range(1, 13))
    assert (error.reason, error.records) == ("http_error", 30) and "status 404 30" in error.detail
    assert (left.reason, left.records) == ("not_text", 23)
    assert "image/png 20" in left.detail and "no media type 1, text/dns 1" in left.detail
    assert "continuation of a record in segments 1" in left.detail


@pytest.mark.parametrize(
    ("body", "header", "text", "charset", "undecodable"),
    [
        ("größer".encode("latin-1"), "text/plain; charset=ISO-8859-1", "größer", "cp1252", 0),
        ("“é”".encode("cp1252"), 'text/plain; charset="latin1"; x=y', "“é”", "cp1252", 0),
        ("東京".encode("shift_jis"), "text/plain;charset=Shift_JIS", "東京", "cp932", 0),
        ("中文".encode("gbk"), "text/plain; charset=gb2312", "中文", "gb18030", 0),
        ("größer".encode(), "text/plain", "größer", "utf-8", 0),
        ("größer".encode()[:3], "text/plain", "gr\ufffd", "utf-8", 1),
        (b"gr\xf6\xdfer", "text/plain", "größer", "cp1252", 0),
        (b"a\xffb \xef\xbf\xbd", "text/plain; charset=utf-8", "a\ufffdb \ufffd", "utf-8", 1),
        ("größer".encode(), "text/plain; charset=nonsense", "größer", "utf-8", 0),
        (b"abc", "text/plain; charset=hex", "abc", "utf-8", 0),
        (b"+AGE-", "text/plain; charset=utf-7", "+AGE-", "utf-8", 0),
        ("größer".encode("utf-16"), "text/plain; charset=utf-8", "größer", "utf-16-le", 0),
        (b"\xef\xbb\xbfa", "text/plain; charset=latin1", "a", "utf-8", 0),
        ('<meta charset="windows-1251"><p>Привет'.encode("cp1251"), "text/html", "Привет", "cp1251", 0),
        ('<meta charset="utf-16"><p>ö'.encode(), "text/html", "ö", "utf-8", 0),
        ("<?xml version='1.0' encoding='koi8-r'?><p>Мир".encode("koi8-r"), "application/xhtml+xml", "Мир", "koi8-r", 0),
        (
            "<META http-equiv=Content-Type content='text/html; charset=euc-kr'><p>한국".encode("cp949"),
            "text/html",
            "한국",
            "cp949",
            0,
        ),
    ],
)
def test_the_charset_is_that_of_mark_header_meta_or_bytes(
    body: bytes, header: str, text: str, charset: str, undecodable: int
) -> None:
    (row,), _, _ = read(response(1, body, f"Content-Type: {header}"))
    metadata = row["metadata"]
    assert (row["text"], metadata["charset"], metadata["undecodable"]) == (text, charset, undecodable)


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


LONG = b"some words of a page, " * 500
CODINGS = {
    "gzip": gzip.compress(LONG, mtime=0),
    "GZIP": gzip.compress(LONG[:5000], mtime=0) + gzip.compress(LONG[5000:], mtime=0),
    "x-gzip": gzip.compress(LONG, mtime=0),
    "deflate": zlib.compress(LONG),
    "deflate, identity": raw_deflate(LONG),
    "zstd": zstandard.compress(LONG),
    "deflate, gzip": gzip.compress(zlib.compress(LONG), mtime=0),
}


@pytest.mark.parametrize(("coding", "body"), CODINGS.items())
@pytest.mark.parametrize("transfer", [False, True])
def test_the_codings_of_a_payload_are_undone(coding: str, body: bytes, transfer: bool) -> None:
    headers = ["Content-Type: text/plain", f"Content-Encoding: {coding}"]
    if transfer:
        body, headers = chunked(body), [*headers, "Transfer-Encoding: chunked"]
    (row,), quarantined, _ = read(response(1, body, *headers))
    assert row["text"] == LONG.decode() and not quarantined


def test_brotli_is_read_where_its_package_is_there() -> None:
    brotli = pytest.importorskip("brotli")
    body = brotli.compress(LONG)
    (row,), _, _ = read(response(1, body, "Content-Type: text/plain", "Content-Encoding: br"))
    assert row["text"] == LONG.decode()
    _, (bad,), _ = read(response(1, body[:-5], "Content-Type: text/plain", "Content-Encoding: br"))
    assert bad.reason == "broken_payload"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_payload_that_is_decoded_already_is_taken_as_it_is(coding: str) -> None:
    headers = ("Content-Type: text/html", f"Content-Encoding: {coding}", "Transfer-Encoding: chunked")
    (row,), quarantined, _ = read(response(1, PAGE.format(3).encode(), *headers))
    assert row["text"].startswith("Title 3") and not quarantined


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (gzip.compress(LONG, mtime=0)[:-9], "Content-Encoding: gzip"),
        (gzip.compress(LONG, mtime=0)[:40] + b"garbage" * 20, "Content-Encoding: gzip"),
        (zlib.compress(LONG)[:-9], "Content-Encoding: deflate"),
        (zstandard.compress(LONG)[:-9], "Content-Encoding: zstd"),
        (b"\x0b\x00nonsense" * 9, "Content-Encoding: br"),
        (b"abc", "Content-Encoding: compress"),
        (chunked(LONG)[:-40], "Transfer-Encoding: chunked"),
        (b"5\r\nabcde\r\nzz\r\n", "Transfer-Encoding: chunked"),
    ],
)
def test_a_broken_payload_is_one_bad_record_unless_the_crawler_cut_it(body: bytes, header: str) -> None:
    data = response(1, body, "Content-Type: text/plain", header)
    rows, (bad,), _ = read(data + page(2))
    assert [row["row"] for row in rows] == [1] and (bad.row, bad.reason) == (0, "broken_payload")
    assert bad.detail.startswith("http://example.org/1: ") and "fetch the page anew" in bad.detail
    if b"garbage" in body or header.endswith(("br", "zstd", "compress")):  # nothing whole comes before the break
        return
    (row,), quarantined, _ = read(response(1, body, "Content-Type: text/plain", header, WARC_Truncated="length"))
    assert LONG.decode().startswith(row["text"][:4000]) or row["text"] == "abcde"
    assert row["metadata"]["warc-truncated"] == "length" and not quarantined


def test_a_payload_that_expands_beyond_the_limit_is_quarantined() -> None:
    bomb = gzip.compress(bytes(50 * 2**20))
    data = response(1, bomb, "Content-Type: text/plain", "Content-Encoding: gzip") + page(2)
    tracemalloc.start()
    rows, (bad,), _ = read(data, limits=Limits(max_record_bytes=2**20, max_bad_fraction=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (bad.row, bad.reason) == (0, "record_too_large") and [row["row"] for row in rows] == [1]
    assert peak < 10 * 2**20


def test_a_record_over_the_limit_is_skipped_without_being_held() -> None:
    body = bytes(30 * 2**20)
    data = (
        page(0)
        + response(1, body, "Content-Type: text/html")
        + response(2, body, "Content-Type: video/mp4")
        + response(3, body, "Content-Type: text/html", status="500 Error")
        + record("metadata", body, 4)
        + page(5)
    )
    packed = zstandard.compress(data)
    del data, body
    tracemalloc.start()
    rows, quarantined, reader = read(
        packed, "a.warc.zst", Limits(max_record_bytes=2**20, max_bad_fraction=1, max_expansion=1e9)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row["row"], row["original_id"]) for row in rows] == [(0, "urn:uuid:0"), (2, "urn:uuid:5")]
    assert [(row.row, row.reason) for row in quarantined] == [
        (1, "record_too_large"),
        (None, "http_error"),
        (None, "not_text"),
    ]
    assert reader.records == 5 and peak < 10 * 2**20


def test_a_block_is_compared_with_its_digest() -> None:
    block = b"the text"
    good = hashlib.sha1(block).digest()
    stated = {
        f"sha1:{b32encode(good).decode()}": True,
        f"sha1:{good.hex()}": True,
        f"SHA-256:{hashlib.sha256(block).hexdigest()}": True,
        "blake9:XYZ": True,
        "nonsense": True,
        f"sha1:{b32encode(hashlib.sha1(b'another').digest()).decode()}": False,
        f"md5:{'0' * 32}": False,
    }
    data = b"".join(
        record("conversion", block, number, {"WARC-Block-Digest": digest}) for number, digest in enumerate(stated)
    )
    rows, quarantined, _ = read(data)
    assert [row["row"] for row in rows] == [number for number, good in enumerate(stated.values()) if good]
    assert [(row.row, row.reason) for row in quarantined] == [(5, "digest_mismatch"), (6, "digest_mismatch")]


@pytest.mark.parametrize("off", [-3, 5, 120, 700])
def test_a_wrong_length_costs_its_record_and_not_the_rest(off: int) -> None:
    block = b"x" * 600
    data = wet(0) + record("conversion", block, 1, {}, len(block) + off) + wet(2) + wet(3) + wet(4, "y" * 900)
    rows, (bad,), reader = read(data)
    assert [row["original_id"] for row in rows] == ["urn:uuid:0", "urn:uuid:2", "urn:uuid:3", "urn:uuid:4"]
    assert (bad.row, bad.offset, bad.reason) == (1, len(wet(0)), "broken_record")
    assert "Content-Length" in bad.detail and "is wrong" in bad.detail and reader.records == 5


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\0" * 3000,
        b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\ntext\r\n\r\n",
        b"WARC/1.0\r\nContent-Length: -5\r\n\r\ntext\r\n\r\n",
        b"WARC/1.0\r\nContent-Length: 99999999999999999999\r\n\r\ntext\r\n\r\n",
        b"text\nWARC/1.0\r\nthe start of a line\r\n\r\n",
        b"x" * (2**20 + 100) + b"\r\n\r\n",
        b"WARC/1.0\r\nA: " + b"x" * (2**20 + 100) + b"\r\n\r\n",
    ],
)
def test_bytes_between_records_that_are_none_are_one_bad_record(garbage: bytes) -> None:
    rows, (bad,), _ = read(wet(0) + garbage + wet(1) + wet(2))
    assert [row["original_id"] for row in rows] == ["urn:uuid:0", "urn:uuid:1", "urn:uuid:2"]
    assert (bad.row, bad.offset, bad.reason) == (1, len(wet(0)), "broken_record")


def test_what_a_cut_leaves_of_a_record_is_never_searched_for_records() -> None:
    inside = wet(7)
    data = wet(0) + response(1, b"first\r\n\r\n" + inside * 3 + b"end", "Content-Type: text/plain")
    assert [row["original_id"] for row in read(data)[0]] == ["urn:uuid:0", "urn:uuid:1"]
    rows, (bad,), _ = read(data[:-20])
    assert [row["original_id"] for row in rows] == ["urn:uuid:0"] and bad.reason == "truncated_stream"


def test_line_ends_between_records_may_be_odd_and_the_last_may_be_missing() -> None:
    one = wet(0).replace(b"\r\n", b"\n")
    data = b"\r\n" + one + b"\n\n\n" + wet(1, "a").rstrip(b"\r\n") + wet(2, "b").rstrip(b"\r\n")
    rows, quarantined, _ = read(data)
    assert [row["original_id"] for row in rows] == [f"urn:uuid:{i}" for i in range(3)] and not quarantined


def test_folded_repeated_and_latin_headers_are_read() -> None:
    header = "WARC/1.1\r\nwarc-type: conversion\r\nWARC-Record-ID: <urn:x>\r\nX: a\r\n  b\r\nX: c\r\nno colon\r\n"
    data = header.encode() + b"WARC-Target-URI: http://example.org/caf\xe9\r\nContent-Length: 1\r\n\r\nt\r\n\r\n"
    (row,), _, _ = read(data)
    assert row["url"] == "http://example.org/café" and row["metadata"]["x"] == "a b, c"


@pytest.mark.parametrize(
    "data", [b"filedesc://a.arc 0.0.0.0 20200101 text/plain 0\n", b"hello " * 1000, b"\0" * 5000, b"{}", b"<html>"]
)
def test_a_file_without_any_record_fails(data: bytes) -> None:
    rows, (bad,), reader = read(data)
    assert not rows and reader.failed and bad.reason == "unreadable_file" and "the file is no WARC" in bad.detail


def test_an_empty_file_has_no_records_and_an_empty_archive_is_cut_short() -> None:
    assert read(b"")[2].records == 0 and not read(b"")[2].failed
    assert [row.reason for row in read(b"", "a.warc.gz")[1]] == ["truncated_stream"]
    assert read(gzip.compress(b""), "a.warc.gz")[2].records == 0
    assert "take .gz off its name" in (read(wet(1), "a.warc.gz")[2].failure or "")


FILE = [
    wet(0),
    record("warcinfo", b"x", 9),
    page(1),
    response(2, b"e", status="404 No"),
    wet(3, "a\r\n\r\nb" * 30),
    page(4),
]
WHOLE = read(b"".join(FILE))[0]


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, sum(map(len, FILE))), packing=st.sampled_from(["", ".gz", ".zst"]))
def test_any_cut_keeps_what_came_before_and_has_at_most_one_row_for_the_rest(cut: int, packing: str) -> None:
    if packing == "":
        data = b"".join(FILE)[:cut]
    else:
        pack = gzip.compress if packing == ".gz" else zstandard.compress
        data = b"".join(map(pack, FILE))
        data = data[: cut * len(data) // sum(map(len, FILE))]
    rows, quarantined, reader = read(data, "a.warc" + packing)
    if reader.failed:  # not even the beginning of a header, or of an archive, is left
        assert not rows and len(data) < 10
        return
    assert rows == WHOLE[: len(rows)]
    reasons = [row.reason for row in quarantined]
    assert reasons in ([], ["http_error"], ["truncated_stream"], ["truncated_stream", "http_error"])


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, sum(map(len, FILE)) - 1), st.binary(max_size=12), st.integers(0, 12)), max_size=4
    )
)
def test_no_damage_raises_and_every_record_is_accounted_for(changes: list[tuple[int, bytes, int]]) -> None:
    data = b"".join(FILE)
    for at, put, drop in changes:
        data = data[:at] + put + data[at + drop :]
    first, second = read(data), read(data)
    assert first[:2] == second[:2]


@settings(max_examples=25, deadline=None)
@given(batch_bytes=st.integers(1, 3000), block=st.integers(1, 300))
def test_neither_batches_nor_blocks_change_a_result(batch_bytes: int, block: int) -> None:
    from unittest import mock

    from winnow.text import streams

    data = b"".join([*FILE[:3], b"garbage\r\n", *FILE[3:]])
    expected = read(data)[:2]
    with mock.patch.object(streams, "BLOCK", block):
        assert read(data, limits=Limits(batch_bytes=batch_bytes, max_bad_fraction=1))[:2] == expected


def test_a_corrupt_member_ends_the_reading_there() -> None:
    members = [gzip.compress(part, mtime=0) for part in FILE]
    members[2] = members[2][:20] + b"\xff" * 30 + members[2][50:]
    rows, quarantined, reader = read(b"".join(members), "a.warc.gz")
    assert rows == WHOLE[:1] and [row.reason for row in quarantined] == ["truncated_stream"] and not reader.failed
