"""The fast path of JSON Lines against its slow, strict twin; words; and pieces against whole files."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from winnow.text import FieldMap, Limits, cutting, streams
from winnow.text._kernels import count_words
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import WHOLE, Block, Item, Reading, Span
from winnow.text.formats.jsonl import JsonLines, judge
from winnow.text.json_records import RecordReader
from winnow.text.lines import Frame, Frames, Line, Lines
from winnow.text.quarantine import FileFailedError, Quarantined
from winnow.text.records import Document
from winnow.text.streams import HashedFile

Rows = tuple[list[tuple[Any, ...]], list[Quarantined], dict[str, set[str]]]


def gathered(items: list[Item], seen: FieldTypes) -> Rows:
    documents: list[tuple[Any, ...]] = []
    bad: list[Quarantined] = []
    for item in items:
        if isinstance(item, Quarantined):
            bad.append(item)
        elif isinstance(item, Document):
            documents.append((item.row, item.utf8.decode(), *item[3:]))
        else:
            for column in (item.texts, item.original_ids, item.urls, item.dates, item.metadata):
                column.validate(full=True)
            columns = (item.texts, item.original_ids, item.urls, item.dates, item.metadata)
            documents += zip(item.rows.tolist(), *(column.to_pylist() for column in columns), strict=True)
    return documents, bad, seen.types


def fast(data: bytes, how: Reading, spans: tuple[Span, ...] = (WHOLE,)) -> Rows:
    seen = FieldTypes()
    items: list[Item] = []
    for span in spans:
        file = io.BytesIO(data)
        source = HashedFile(file) if span == WHOLE else file
        items += JsonLines().read(source, "jsonl", None, span, how, seen)  # type: ignore[arg-type]
    return gathered(items, seen)


def slow(data: bytes, how: Reading) -> Rows:
    seen = FieldTypes()
    row, items = 0, []
    for line in Lines([data] if data else [], how.limits.max_record_bytes):
        if not line.whole or (line.data and not line.data.isspace()):
            items.append(judge(line, row, how, seen))
            row += 1
    return gathered(items, seen)  # type: ignore[arg-type]


text = st.one_of(st.text(max_size=8), st.text('ab\n"\\\x00\x1f\x7f \u2028\ud800\udc00é😀/', max_size=6))
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.floats(-1e-3, 1e-3),
    st.floats(1e14, 1e20),
    st.sampled_from(
        [0, -0.0, 0.0, 1e15, 1e16, 1e17, 1e-4, 9.999e-5, 1e-5, 2**63, 2**64, -(2**63) - 1, 1.0, 1e22, 5e-324]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
names = st.sampled_from(["text", "id", "url", "date", "meta", "a.b", "a", "score", "é"])
records = st.dictionaries(names, values, max_size=6).flatmap(
    lambda record: st.one_of(
        st.just(record),
        text.map(lambda value: {**record, "text": value + "x"}),
        text.map(lambda value: {"text": "x" + value, **record}),
    )
)
LITERALS = [
    "-0",
    "1E5",
    "1e400",
    "-1e-400",
    "123456789012345678901234567890",
    "1.0e+2",
    "NaN",
    "-Infinity",
    "0e1",
    "2e-7",
]
raw_lines = st.one_of(
    records.map(lambda record: json.dumps(record).encode()),
    records.map(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.builds(
        lambda where, one, other: f'{{"text": "t", "{where}": {one}, "meta": [{{"n": {other}}}]}}'.encode(),
        names,
        st.sampled_from(LITERALS),
        st.sampled_from(LITERALS),
    ),
    st.sampled_from(
        [
            b"",
            b" \t",
            b"\r",
            b"\x0b",
            b'{"text": "a", "text": "b", "id": 1, "id": "2"}',
            b'{"text": "a", "x": ' + b"[" * 99 + b"]" * 99 + b"}",
            b'{"text": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}",
            b'{"text": "a", "x": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
            b'{"text": "[[[[{{{{", "x": []}',
            b'\xef\xbb\xbf{"text": "a"}',
            b'{"text": "a"}\x00',
            b'{"text": "a", "k\\u0000": "\\u0000", "id": "\\u0000"}',
            b'{"text": "a\xff"}',
            b"nonsense",
            b'"text"',
        ]
    ),
    st.binary(max_size=12),
)
field_maps = st.builds(
    FieldMap,
    text=st.sampled_from(["text", "text", "a.b", "meta"]),
    id=st.sampled_from(["id", None, "text", "a.b", "meta.n"]),
    url=st.sampled_from(["url", "", "id"]),
    date=st.sampled_from(["date", "score"]),
    metadata=st.sampled_from([None, None, (), ("meta", "é"), ("a.b", "a", "url"), ("score", "meta.n")]),
)


@settings(max_examples=250, deadline=None)
@given(line=raw_lines, fields=field_maps)
def test_a_line_is_read_fast_as_the_strict_way_reads_it_or_left_to_it(line: bytes, fields: FieldMap) -> None:
    how = Reading(fields=fields)
    seen, expected_seen = FieldTypes(), FieldTypes()
    columns = RecordReader(fields, seen)(line)
    if columns is not None:
        document = judge(Line(1, 0, line, True), 0, how, expected_seen)
        assert isinstance(document, Document)
        assert columns == (document.utf8, *document[3:6], document.metadata.encode())
        assert seen.types == expected_seen.types


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "plain", "id": "x", "url": "u", "date": "2024", "title": "\\u00e9\\n", "n": 5}',
        b'{"text": "a number as id", "id": 5}',
        b'{"text": "scores", "id": "a", "score": 0.123456789012345678, "small": 1e-7, "zero": 0.0}',
        b'{"text": "nested", "meta": {"b": [1, 2.5, {"c": null}], "a": "1e5"}, "tiny": {"p": 3e-9}}',
        b'{"text": "escaped \\ud83d\\ude00 \\/ \\u2028"}',
        '{"text": "raw \u2028 é 😀", "id": null}'.encode(),
    ],
)
def test_ordinary_records_take_the_fast_path(line: bytes) -> None:
    assert RecordReader(FieldMap(), FieldTypes())(line) is not None
    nested = json.dumps({"data": {"text": json.loads(line)["text"], "n": 1.5}, "x": 1}).encode()
    assert RecordReader(FieldMap(text="data.text", metadata=("x", "data.n")), FieldTypes())(nested) is not None


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(raw_lines, max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    last_end=st.booleans(),
    fields=field_maps,
    block=st.integers(1, 80),
    batch_bytes=st.integers(1, 2000),
    max_record_bytes=st.sampled_from([10, 60, 10_000]),
)
def test_a_file_is_read_as_its_lines_one_by_one(
    lines: list[bytes],
    end: bytes,
    last_end: bool,
    fields: FieldMap,
    block: int,
    batch_bytes: int,
    max_record_bytes: int,
) -> None:
    data = end.join(lines) + (end if last_end else b"")
    how = Reading(fields=fields, limits=Limits(max_record_bytes=max_record_bytes, batch_bytes=batch_bytes))
    with mock.patch.object(streams, "BLOCK", block):
        try:
            got = fast(data, how)
        except FileFailedError:
            return
    expected = slow(data, how)
    assert got == expected
    assert [row for row, *_ in got[0]] == sorted(row for row, *_ in got[0])


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(raw_lines, max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\n \n"]),
    last_end=st.booleans(),
    target=st.integers(1, 200),
    size=st.integers(1, 100),
    max_record_bytes=st.sampled_from([3, 60, 10_000]),
)
def test_the_pieces_of_a_file_give_the_rows_of_the_whole(
    lines: list[bytes], end: bytes, last_end: bool, target: int, size: int, max_record_bytes: int
) -> None:
    data = end.join(lines) + (end if last_end else b"")
    how = Reading(limits=Limits(max_record_bytes=max_record_bytes))
    try:
        expected = fast(data, how)
    except FileFailedError:
        assert JsonLines().cut(io.BytesIO(data), target, how).spans == [WHOLE]
        return
    with mock.patch.object(cutting, "PASS", size):
        cut = JsonLines().cut(io.BytesIO(data), target, how)
    if cut.sha256:
        assert (cut.sha256, cut.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    if cut.spans != [WHOLE]:
        assert (cut.spans[0].start, cut.spans[-1].end) == (0, len(data))
        assert all(one.end == other.start for one, other in itertools.pairwise(cut.spans))
        assert all(data[: span.end].endswith(b"\n") for span in cut.spans[:-1])
        assert all(span.end - span.start >= target for span in cut.spans[:-1])  # type: ignore[operator]
    assert fast(data, how, tuple(cut.spans)) == expected


def test_a_line_longer_than_the_target_is_one_piece() -> None:
    data = b'{"text": "' + b"x" * 5000 + b'"}\n' + b'{"text": "a"}\n' * 3
    spans = JsonLines().cut(io.BytesIO(data), 20, Reading()).spans
    assert [(span.first_row, span.first_line) for span in spans] == [(0, 1), (1, 2), (3, 4)]
    assert spans[0].end == 5013


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"a", b"\n")), max_size=8), st.integers(1, 12))
def test_frames_hold_the_lines_that_lines_gives_one_by_one(blocks: list[bytes], max_bytes: int) -> None:
    got: list[tuple[int, int, bytes, bool]] = []
    for frame in Frames(blocks, max_bytes):
        if isinstance(frame, Frame):
            number, offset = frame.number, frame.offset
            for line in frame.lines:
                whole = len(line) <= max_bytes
                got.append((number, offset, line, whole))
                number, offset = number + 1, offset + len(line) + 1
        else:
            got.append(tuple(frame))
    expected = list(Lines(blocks, max_bytes))
    assert [(n, o, w) for n, o, _, w in got] == [(line.number, line.offset, line.whole) for line in expected]
    assert all(
        data.removeprefix(b"\xef\xbb\xbf") == line.data for (*_, data, w), line in zip(got, expected, strict=True) if w
    )


@pytest.mark.parametrize(
    ("data", "reason", "mend"),
    [
        ('{"text": "a"}\n'.encode("utf-16"), "invalid_utf8", "iconv -f UTF-16 -t UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16-le"), "invalid_utf8", "iconv -f UTF-16 -t UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16-be"), "invalid_utf8", "iconv -f UTF-16 -t UTF-8"),
        ('{"text": "a"}\n'.encode("utf-32"), "invalid_utf8", "iconv -f UTF-32 -t UTF-8"),
        (b'{"text": "a"}\r{"text": "b"}\r', "invalid_json", "carriage returns alone"),
        (b'[{"text": "a"}, {"text": "b"}]', "invalid_json", "jq -c '.[]'"),
        (b'\xef\xbb\xbf[\n  {"text": "a"},\n  {"text": "b"}\n]\n', "invalid_json", "jq -c '.[]'"),
        (b'{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n', "invalid_json", "jq -c ."),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_a_file_that_is_no_json_lines_by_its_beginning_fails_once_with_the_mend(
    data: bytes, reason: str, mend: str, block: int
) -> None:
    with mock.patch.object(streams, "BLOCK", block), pytest.raises(FileFailedError) as failed:
        fast(data, Reading())
    row = failed.value.quarantined
    assert (row.reason, row.records) == (reason, 1) and mend in row.detail
    assert JsonLines().cut(io.BytesIO(data * 100), 50, Reading()).spans == [WHOLE]


def test_a_carriage_return_between_tokens_is_white_space() -> None:
    documents, bad, _ = fast(b'{"text":\r"a"}\r\n{"text": "b"}', Reading())
    assert [row[1] for row in documents] == ["a", "b"] and not bad


def wrapped(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    utf8 = [one.encode() for one in texts]
    offsets = np.cumsum([0, *map(len, utf8)]).astype(np.int64)
    return np.frombuffer(b"".join(utf8), np.uint8), offsets


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.text("a \n\x1c\x85\xa0\u1680\u2000\u200a\u200b\u2028\u202f\u205f\u3000é\u2019漢", max_size=400),
        ),
        max_size=5,
    )
)
@example(["x" * 127 + "\u3000" + "y", "a" * 126 + "\u2028 b", " " * 300 + "é"])
def test_words_are_counted_as_the_regular_expression_does(texts: list[str]) -> None:
    expected = pl.Series(texts, dtype=pl.String).str.count_matches(r"\S+").to_list()
    assert count_words(*wrapped(texts)).tolist() == expected


def test_every_code_point_is_white_space_or_not_as_the_regular_expression_says() -> None:
    texts = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    expected = pl.Series(texts).str.count_matches(r"\S+").to_numpy()
    assert (count_words(*wrapped(texts)) == expected).all()


def test_blocks_are_of_bounded_size_and_in_order() -> None:
    data = b"".join(json.dumps({"text": f"{number} " + "word " * 50}).encode() + b"\n" for number in range(5000))
    items = list(
        JsonLines().read(
            HashedFile(io.BytesIO(data)),  # type: ignore[arg-type]
            "jsonl", None, WHOLE, Reading(limits=Limits(batch_bytes=640_000)), FieldTypes(),
        )
    )  # fmt: skip
    assert all(isinstance(item, Block) and item.texts.nbytes < 15_000 for item in items)
    assert np.concatenate([item.rows for item in items if isinstance(item, Block)]).tolist() == list(range(5000))
