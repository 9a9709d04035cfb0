"""Plain text: a file a document, or the documents between separators."""

from __future__ import annotations

import bz2
import gzip
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text import DOCUMENTS, Limits, Quarantined, ShardReader, streams
from winnow.text.formats.base import Reading

LENIENT = Limits(max_bad_fraction=1.0)


def read(
    tmp_path: Path, data: bytes, name: str = "a.txt", limits: Limits = LENIENT, **how: Any
) -> tuple[list[str], list[int], list[Quarantined], ShardReader]:
    path = tmp_path / name
    path.write_bytes(data)
    reader = ShardReader(path, reading=Reading(limits=limits, **how))
    batches = list(reader)
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    bad = [row for batch in batches for row in batch.quarantined]
    assert reader.records == reader.occurrences + reader.quarantined
    return documents["text"].to_pylist(), documents["row"].to_pylist(), bad, reader


@pytest.mark.parametrize(
    ("separator", "data"),
    [
        ("\n\n\n", b"one\n\n\ntwo\n\nlines\n\n\n\n\n\n \n\n\nthree\n"),
        ("<|endoftext|>", b"one<|endoftext|>two\n\nlines<|endoftext|><|endoftext|> \n<|endoftext|>three\n"),
        ("\f", b"\xef\xbb\xbfone\ftwo\n\nlines\f\f \f\fthree\n\f"),
        ("§", "one§two\n\nlines§§three\n".encode()),
    ],
)
def test_documents_between_separators_are_numbered_and_blank_ones_skipped(
    tmp_path: Path, separator: str, data: bytes
) -> None:
    for name, packed in (("a.txt", data), ("a.md.gz", gzip.compress(data)), ("a.txt.bz2", bz2.compress(data))):
        texts, rows, bad, _ = read(tmp_path, packed, name, separator=separator)
        assert texts == ["one", "two\n\nlines", "three\n"]
        assert rows == [0, 1, 2] and not bad


def test_a_bad_piece_spoils_only_itself(tmp_path: Path) -> None:
    data = b"one--caf\xe9--a\0b--" + b"x" * 101 + b"--\xe3\x80\x80--last"
    texts, rows, bad, _ = read(tmp_path, data, limits=Limits(max_record_bytes=100, max_bad_fraction=1), separator="--")
    assert (texts, rows) == (["one", "last"], [0, 5])
    assert [(row.row, row.reason, row.offset) for row in bad] == [
        (1, "invalid_utf8", 5),
        (2, "nul_byte", 11),
        (3, "record_too_large", 16),
        (4, "empty_text", 119),
    ]
    assert all(row.detail.startswith(f"piece {row.row + 1}: ") for row in bad if row.row is not None)


def test_a_cut_archive_keeps_the_pieces_before_the_cut_and_a_cut_document_is_none(tmp_path: Path) -> None:
    raw = b"".join(b"document %d, %d\f" % (n, n * n) for n in range(5000))
    texts, _, (row,), _ = read(tmp_path, gzip.compress(raw)[:-4000], "a.txt.gz", separator="\f")
    assert 100 < len(texts) < 5000 and texts == raw.decode().split("\f")[: len(texts)]
    assert (row.reason, row.row) == ("truncated_stream", len(texts))
    texts, _, (row,), _ = read(tmp_path, gzip.compress(raw)[:-4000], "b.txt.gz")
    assert texts == [] and (row.reason, row.row) == ("truncated_stream", 0)
    assert row.excerpt.startswith("document 0, 0")


def test_a_piece_over_the_limit_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\f" + b"x" * (48 * 2**20) + b"\ftwo")
    how = Reading(separator="\f", limits=Limits(max_record_bytes=2**20, batch_bytes=2**20, max_bad_fraction=1))
    for reading in (how, Reading(limits=how.limits)):
        tracemalloc.start()
        rows = [row for batch in ShardReader(path, reading=reading) for row in batch.quarantined]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [row.reason for row in rows] == ["record_too_large"] and peak < 8 * 2**20


def test_utf_16_is_told_once(tmp_path: Path) -> None:
    data = "\n".join(f"line {number}" for number in range(100)).encode("utf-16")
    _, _, (row,), reader = read(tmp_path, data, separator="\n")
    assert reader.failed and row.reason == "invalid_utf8" and "iconv -f UTF-16" in row.detail
    _, _, (row,), reader = read(tmp_path, gzip.compress(b"text"), "b.txt")
    assert reader.failed and row.reason == "unreadable_file" and "add .gz to its name" in row.detail


@settings(max_examples=100, deadline=None)
@given(
    data=st.lists(st.sampled_from([b"-", b"--", b"a", b"-a-", b"b\n", b"\xff", b" ", b"\0", b"\xef\xbb\xbf"])).map(
        b"".join
    ),
    separator=st.sampled_from(["-", "--", "---", "-a-", "a"]),
    block=st.integers(1, 9),
    batch_bytes=st.integers(1, 3000),
)
def test_pieces_are_what_lies_between_separators_however_the_bytes_are_cut(
    data: bytes, separator: str, block: int, batch_bytes: int
) -> None:
    limits = Limits(max_bad_fraction=1.0, batch_bytes=batch_bytes)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(streams, "BLOCK", block):
        texts, rows, bad, reader = read(Path(folder), data, limits=limits, separator=separator)
    pieces = data.split(separator.encode())
    pieces[0] = pieces[0].removeprefix(b"\xef\xbb\xbf")
    pieces = [piece for piece in pieces if piece and not piece.isspace()]
    if not reader.failed:
        assert reader.records == len(pieces)
        assert texts == [pieces[row].decode() for row in rows]
        assert sorted([*rows, *(row.row for row in bad if row.row is not None)]) == list(range(len(pieces)))
