"""Arbitrary bytes under every name: reading raises nothing, loses nothing, and depends on the bytes alone."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text import DOCUMENTS, Limits, Quarantined, ShardReader, streams
from winnow.text.formats.base import Reading

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lambda data: lzma.compress(data, preset=0),
}
NAMES = [stem + suffix for stem in ("a.jsonl", "a.csv", "a.tsv", "a.txt", "a.md") for suffix in PACK]
Read = tuple[list[dict[str, object]], list[Quarantined], tuple[object, ...]]


def read(folder: Path, name: str, data: bytes, how: Reading, block: int) -> Read:
    path = folder / name
    path.write_bytes(data)
    reader = ShardReader(path, reading=how)
    with mock.patch.object(streams, "BLOCK", block):
        batches = list(reader)
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    documents.validate(full=True)
    bad = [row for batch in batches for row in batch.quarantined]
    assert reader.records == reader.occurrences + reader.quarantined
    assert reader.quarantined == sum(row.records for row in bad)
    assert all(row.detail and row.detail.isprintable() and row.excerpt.isprintable() for row in bad)
    if not reader.failed:
        rows = documents["row"].to_pylist()
        assert reader.occurrences == len(rows) and rows == sorted(set(rows))
        broken = [row for row in bad if row.reason == "truncated_stream"]
        assert len(broken) <= 1
        assert sorted([*rows, *(row.row for row in bad if row.row is not None)]) == list(range(reader.records))
    totals = (reader.records, reader.occurrences, reader.failure, reader.sha256, reader.bytes, reader.fields.types)
    # Of a failed file, what was handed out before it failed is void, and may be more or less.
    return ([] if reader.failed else documents.drop_columns(["doc_id"]).to_pylist(), bad, totals)


fragments = st.lists(
    st.sampled_from(
        [
            b'{"text": "a"}\n', b'{"text": "b", "n": 1e-7}', b"text,n\n", b"text\tn\n", b'"a",1\n', b"\n", b"\r\n",
            b"\r", b'"', b",", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"[", b"--", b"word ",
            b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b'{"text": "\\ud800"}\n', b"[" * 2000, b"NaN",
            b"\xc3",
        ]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip
contents = st.one_of(fragments, st.binary(max_size=60))


@settings(max_examples=250, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    data=contents,
    packed=st.booleans(),
    cut=st.one_of(st.just(0), st.integers(0, 40)),
    twice=st.booleans(),
    separator=st.sampled_from(["", "--", "\n"]),
    max_record_bytes=st.sampled_from([8, 40, 10**6]),
    block=st.integers(1, 50),
    batch_bytes=st.integers(1, 3000),
)
def test_whatever_the_bytes_are_they_are_counted_and_nothing_else_matters(
    name: str,
    data: bytes,
    packed: bool,
    cut: int,
    twice: bool,
    separator: str,
    max_record_bytes: int,
    block: int,
    batch_bytes: int,
) -> None:
    if packed:
        pack = PACK["." + name.rpartition(".")[2] if name.count(".") > 1 else ""]
        data = pack(data) * (2 if twice else 1)
        data = data[: max(0, len(data) - cut)]
    limits = Limits(max_record_bytes=max_record_bytes, max_bad_fraction=1.0)
    other = Limits(max_record_bytes=max_record_bytes, max_bad_fraction=1.0, batch_bytes=batch_bytes)
    with tempfile.TemporaryDirectory() as folder:
        one = read(Path(folder), name, data, Reading(limits=limits, separator=separator), 2**20)
        again = read(Path(folder), name, data, Reading(limits=other, separator=separator), block)
    assert one == again


NASTY: dict[str, bytes] = {
    "empty": b"",
    "a mark alone": b"\xef\xbb\xbf",
    "line ends": b"\n\r\n\r\r\n \n",
    "UTF-16": '{"text": "a"}\n'.encode("utf-16"),
    "UTF-16 without a mark": '{"text": "a"}\n'.encode("utf-16-be"),
    "returns alone": b'{"text": "a"}\r{"text": "b"}\r',
    "doubled keys": b'{"text": "a", "text": "b", "text": 1}\n',
    "deep": b'{"text": "a", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
    "deep and open": b'{"a":' * 50_000,
    "numbers as text": b'{"text": 5}\n{"text": 1e999}\n{"text": NaN}\n',
    "large numbers": b'{"text": "a", "n": ' + b"9" * 10_000 + b"}\n",
    "surrogates": b'{"text": "\\ud800"}\n{"text": "\xed\xa0\x80"}\n{"text": "a", "\\udfff": "\\udfff"}\n',
    "zeros": bytes(100_000),
    "quotes": b'text,n\n"' + b'""' * 5000,
    "commas": b"text,n\n" + b"," * 100_000,
    "one array": json.dumps([{"text": "a"}] * 10).encode(),
    "no line end": b'{"text": "a"}',
    "XML": b'<?xml version="1.0"?>\n<text>a</text>\n',
}


@pytest.mark.parametrize("kind", sorted(NASTY))
def test_nasty_files_are_read_to_the_end_under_every_name(kind: str, tmp_path: Path) -> None:
    for name in NAMES:
        compression = "." + name.rpartition(".")[2] if name.count(".") > 1 else ""
        limits = Limits(max_bad_fraction=1.0, max_record_bytes=200_000)
        first = read(tmp_path, name, PACK[compression](NASTY[kind]), Reading(limits=limits), 2**20)
        assert read(tmp_path, name, PACK[compression](NASTY[kind]), Reading(limits=limits), 777) == first
        # Under the name of a compression that it has not, every file that is not empty is unreadable.
        if compression:
            _, bad, totals = read(tmp_path, name, NASTY[kind], Reading(limits=limits), 2**20)
            assert [row.reason for row in bad] == ["unreadable_file" if NASTY[kind] else "truncated_stream"]
            assert totals[1] == 0
