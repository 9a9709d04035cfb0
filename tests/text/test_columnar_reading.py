"""Columns to blocks: exactly what each row would give as a record of its own, however the file is cut."""

from __future__ import annotations

import datetime
import io
import json
import math
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.identity import canonical_json
from winnow.text import columns as columns_module
from winnow.text.arrow_json import json_texts, json_values
from winnow.text.arrow_values import nesting, plain, unique_names
from winnow.text.batches import BatchBuilder
from winnow.text.column_groups import measured, pieces
from winnow.text.column_paths import json_type
from winnow.text.columns import ColumnReader
from winnow.text.drift import FieldTypes
from winnow.text.formats.arrow import Arrow
from winnow.text.formats.base import WHOLE, Block, Format, Reading, Span
from winnow.text.formats.parquet import Parquet
from winnow.text.limits import Limits
from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined
from winnow.text.records import FieldMap, document_from
from winnow.text.watched import Watched

READING = Reading()
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What texts go wrong by, beside what hypothesis thinks of.
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(
        ["", " ", "\n\t", "\u3000\u2009", "\x1c", "\x85", "a\0b", "\0", "\ufeff", "null", '"', "\\", "\x07"]
    ),
    st.text(max_size=12),
    st.text(max_size=200),
)


def encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "ignore")


def stored(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "ignore").decode()


STRINGS = TEXTS.map(stored)
BYTES = st.one_of(st.none(), st.binary(max_size=8), TEXTS.map(encoded))
FLOATS = st.one_of(st.none(), st.floats(), st.sampled_from([1e16, 1e-7, 0.1, -0.0, 5e-324, 1.0, math.nan, math.inf]))
INTEGERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
DECIMALS = st.one_of(st.none(), st.decimals(min_value=-(10**9), max_value=10**9, places=4))
NATIVE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), STRINGS),
    (pa.large_string(), STRINGS),
    (pa.int64(), INTEGERS),
    (pa.uint64(), st.one_of(st.none(), st.integers(0, 2**64 - 1))),
    (pa.int8(), st.one_of(st.none(), st.integers(-128, 127))),
    (pa.bool_(), st.one_of(st.none(), st.booleans())),
    (pa.float64(), FLOATS),
    (pa.float32(), st.one_of(st.none(), st.floats(width=32))),
    (pa.null(), st.none()),
    (pa.binary(), BYTES),
    (pa.large_binary(), BYTES),
    (pa.decimal128(20, 4), DECIMALS),
    (pa.list_(pa.string()), st.one_of(st.none(), st.lists(STRINGS, max_size=3))),
    (pa.large_list(pa.float64()), st.one_of(st.none(), st.lists(FLOATS, max_size=3))),
    (
        pa.struct([("b", pa.string()), ("a", pa.float64()), ("n", pa.struct([("x", pa.binary())]))]),
        st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {"b": STRINGS, "a": FLOATS, "n": st.one_of(st.none(), st.fixed_dictionaries({"x": BYTES}))}
            ),
        ),
    ),
    (
        pa.list_(pa.struct([("k", pa.int32()), ("v", pa.list_(pa.string()))])),
        st.one_of(
            st.none(),
            st.lists(
                st.fixed_dictionaries(
                    {"k": st.one_of(st.none(), st.integers(0, 9)), "v": st.lists(STRINGS, max_size=2)}
                ),
                max_size=2,
            ),
        ),
    ),
]
TICKS = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(-(10**12), 10**12))
TIMES = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")]
STRANGE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    *((kind, TICKS) for kind in [*TIMES, pa.duration("us"), pa.date64(), pa.time64("us")]),
    (pa.date32(), st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))),
    (
        pa.map_(pa.string(), pa.float64()),
        st.one_of(st.none(), st.dictionaries(STRINGS.filter(lambda text: text is not None), FLOATS, max_size=2)),
    ),
]


def array_of(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if kind in [*TIMES, pa.duration("us"), pa.date64(), pa.time64("us")]:
        return pa.array(values, pa.int64()).view(kind)
    if kind == pa.date32():
        return pa.array(values, pa.int32()).view(kind)
    if pa.types.is_map(kind):
        values = [None if value is None else list(value.items()) for value in values]
    return pa.array(values, kind)


@st.composite
def tables(draw: st.DrawFn, kinds: list[tuple[pa.DataType, st.SearchStrategy[Any]]]) -> pa.Table:
    rows = draw(st.integers(0, 12))
    names = draw(st.lists(st.sampled_from(["id", "url", "date", "é", "", "a.b", "x", 'q"']), max_size=4, unique=True))
    chosen = {"text": (pa.string(), STRINGS)} | {name: draw(st.sampled_from(kinds)) for name in names}
    arrays = {}
    for name in draw(st.permutations(list(chosen))):
        kind, values = chosen[name]
        array = array_of(kind, draw(st.lists(values, min_size=rows, max_size=rows)))
        encode = pa.types.is_string(kind) and draw(st.booleans())
        arrays[name] = array.dictionary_encode() if encode else array
    return pa.table(arrays)


def parquet_of(table: pa.Table, row_group_size: int = 1 << 20, **options: Any) -> bytes:
    """Return a table as Parquet, in which seconds and milliseconds of dates do not fit and are plain integers."""
    for index, field in enumerate(table.schema):
        if field.type in (pa.timestamp("s"), pa.timestamp("s", "UTC"), pa.date64()):
            chunks = [chunk.view(pa.int64()) for chunk in table.column(index).chunks]
            table = table.set_column(index, field.name, pa.chunked_array(chunks, pa.int64()))
    data = io.BytesIO()
    pq.write_table(table, data, row_group_size=row_group_size, **options)
    return data.getvalue()


def arrow_of(table: pa.Table, rows: int = 1 << 20, stream: bool = False, compression: str | None = None) -> bytes:
    data = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(data, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return data.getvalue()


def read(
    kind: Format, data: bytes, how: Reading = READING, span: Span = WHOLE
) -> tuple[pa.Table, list[Quarantined], FieldTypes]:
    builder, bad, seen = BatchBuilder(how.limits.batch_bytes), [], FieldTypes()
    taken = []
    for item in kind.read(Watched(io.BytesIO(data), "a"), "a", None, span, how, seen):
        if isinstance(item, Quarantined):
            bad.append(item)
        elif builder.add(item):
            taken.append(builder.take()[0])
    documents = pa.concat_tables([*taken, builder.take()[0]])
    documents.validate(full=True)
    rows = documents["row"].to_pylist()
    assert rows == sorted(rows)
    return documents, bad, seen


def slowly(kind: Format, data: bytes, how: Reading) -> tuple[pa.Table, list[Quarantined], FieldTypes]:
    class OneByOne(ColumnReader):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.one_by_one = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("winnow.text.formats.parquet.ColumnReader", OneByOne)
        patch.setattr("winnow.text.formats.arrow.ColumnReader", OneByOne)
        return read(kind, data, how)


def same(
    one: tuple[pa.Table, list[Quarantined], FieldTypes], other: tuple[pa.Table, list[Quarantined], FieldTypes]
) -> bool:
    return one[0].equals(other[0]) and one[1] == other[1] and one[2].types == other[2].types


FIELD_MAPS = st.sampled_from(
    [
        FieldMap(),
        FieldMap(id="x", url="a.b", date=None),
        FieldMap(id="x.b", url="x.n.x", date="x.n"),
        FieldMap(metadata=()),
        FieldMap(metadata=("x", "é", "missing")),
        FieldMap(id="x.b", metadata=("x.a", "x.n.x", "a.b")),
        FieldMap(id="x", metadata=("x.b", "x", "url")),
    ]
)


@QUICK
@given(tables(NATIVE + STRANGE), FIELD_MAPS, st.integers(1, 5), st.sampled_from([20, 60, 1000]))
def test_blocks_hold_exactly_what_the_rows_give_one_by_one(
    table: pa.Table, fields: FieldMap, rows: int, largest: int
) -> None:
    how = Reading(fields, Limits(max_record_bytes=largest))
    for kind, data in ((Parquet(), parquet_of(table, rows)), (Arrow(), arrow_of(table, rows))):
        fast = read(kind, data, how)
        assert same(fast, slowly(kind, data, how))
        assert len(fast[0]) + sum(row.records for row in fast[1]) == len(table)


@QUICK
@given(tables(NATIVE), FIELD_MAPS)
def test_documents_are_those_of_the_rows_as_python_values(table: pa.Table, fields: FieldMap) -> None:
    documents, bad, _ = read(Arrow(), arrow_of(table), Reading(fields))
    expected, reasons = [], []
    for row, record in enumerate(table.to_pylist()):
        try:
            document = document_from(record, row, fields)
            expected.append((row, document.utf8.decode(), *document[3:]))
        except BadRecordError as error:
            reasons.append((row, error.reason))
    found = documents.select(["row", "text", "original_id", "url", "date", "metadata"]).to_pylist()
    assert [tuple(document.values()) for document in found] == expected
    assert [(row.row, row.reason) for row in bad] == reasons


@QUICK
@given(tables(NATIVE + STRANGE), st.integers(1, 4), st.integers(1, 3000), st.integers(1, 10_000), st.booleans())
def test_pieces_give_the_rows_of_the_whole_and_sizes_change_nothing(
    table: pa.Table, rows: int, target: int, batch_bytes: int, is_parquet: bool
) -> None:
    kind: Format = Parquet() if is_parquet else Arrow()
    data = parquet_of(table, rows) if is_parquet else arrow_of(table, rows)
    whole = read(kind, data)
    how = Reading(limits=Limits(batch_bytes=batch_bytes))
    cut = kind.cut(io.BytesIO(data), target, how)
    parts = [read(kind, data, how, span) for span in cut.spans]
    types = FieldTypes()
    for _, _, seen in parts:
        types.merge(seen)
    joined = pa.concat_tables([documents for documents, _, _ in parts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("winnow.text.column_groups.PIECE_BYTES", batch_bytes)
        assert same(read(kind, data), whole)
    assert same((joined, [row for _, bad, _ in parts for row in bad], types), whole)


@QUICK
@given(tables(NATIVE + STRANGE), st.integers(1, 5), st.sampled_from([None, "lz4", "zstd"]))
def test_every_columnar_format_gives_the_same(table: pa.Table, rows: int, compression: str | None) -> None:
    file = read(Arrow(), arrow_of(table, rows, compression=compression))
    assert same(read(Arrow(), arrow_of(table, rows, stream=True, compression=compression)), file)
    stored = pq.ParquetFile(io.BytesIO(parquet_of(table, rows)))
    if stored.schema_arrow.types == table.schema.types:
        assert same(read(Parquet(), parquet_of(table, rows)), file)


@QUICK
@given(st.sampled_from(NATIVE + STRANGE), st.data())
def test_json_of_a_column_is_canonical_json_of_its_values(
    chosen: tuple[pa.DataType, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    kind, values = chosen
    array = array_of(kind, data.draw(st.lists(values, max_size=6)))
    column = plain(array)
    column.validate(full=True)
    assert len(column) == len(array)
    python = column.to_pylist(maps_as_pydicts="lossy")
    assert json_values(column).to_pylist() == [None if value is None else canonical_json(value) for value in python]
    start = data.draw(st.integers(0, len(array)))
    assert plain(array.slice(start)).to_pylist() == column.to_pylist()[start:]
    assert json_values(column.slice(start)).to_pylist() == json_values(column).to_pylist()[start:]
    assert json_texts(column.slice(start)).to_pylist() == json_texts(column).to_pylist()[start:]
    assert {json_type(kind)} >= {
        {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}.get(
            type(value), "object"
        )
        for value in python
        if value is not None
    }


def test_values_that_json_has_no_words_for_become_text_or_null() -> None:
    uuid_value = uuid.UUID(int=7)
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    union = pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([5]), pa.array(["u"])]
    )
    cases: list[tuple[pa.Array, list[Any]]] = [
        (pa.array([uuid_value.bytes, None], pa.uuid()), [str(uuid_value), None]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2, 0, None], pa.int8())), [True, False, None]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[1]"])), ["[1]"]),
        (union, ["5", "u"]),
        (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), ["[1,2,3]", None]),
        (pc.run_end_encode(pa.array([1, 1, None, 2]))[1:], [1, None, 2]),
        (pa.array([{"a": moment}, None]).take(pa.array([1, 0])), [None, {"a": "2024-05-06 07:08:09.000000"}]),
        (pa.array([moment, None]).dictionary_encode(), ["2024-05-06 07:08:09.000000", None]),
        (pa.array([b"ab", b"\xff\xfe"], pa.binary(2)), ["ab", "//4="]),
        (pa.array(["x", None], pa.string_view()), ["x", None]),
        (pa.array([b"x", b"\xff"], pa.binary_view()), ["x", "/w=="]),
        (pa.array([[1.5, math.nan], None, [math.inf, 2]], pa.list_(pa.float16(), 2)), [[1.5, None], None, [None, 2.0]]),
        (pa.array([[1], None, [], [2, 3]], pa.list_view(pa.int64()))[1:], [None, [], [2, 3]]),
        (pa.array([[(2, "b"), (1, None)], None], pa.map_(pa.int64(), pa.string())), [{"2": "b", "1": None}, None]),
        (pa.array([{}, None], pa.struct([])), [{}, None]),
        (pa.array([1, None], pa.timestamp("s", "Nowhere/At all")), ["1970-01-01 00:00:01Z", None]),
        (pa.array([0], pa.timestamp("s", "+05:30")), ["1970-01-01 05:30:00+0530"]),
        (pa.array([Decimal("1.20")], pa.decimal256(40, 2)), ["1.20"]),
    ]
    for array, expected in cases:
        column = plain(array)
        column.validate(full=True)
        assert column.to_pylist(maps_as_pydicts="lossy") == expected, array.type
        assert json_values(column).to_pylist() == [None if one is None else canonical_json(one) for one in expected]


def test_a_name_that_repeats_is_numbered_and_none_is_dropped() -> None:
    assert unique_names(["a", "b", "a", "a_1", "a", ""]) == ["a", "b", "a_2", "a_1", "a_3", ""]
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["k", "k"])
    names = ["text", "x", "text", "x", "", "s"]
    arrays = [pa.array(["first"]), pa.array([1]), pa.array(["second"]), pa.array(["y"]), pa.array([0]), inner]
    table = pa.Table.from_arrays(arrays, names=names)
    expected = {"x": 1, "text_1": "second", "x_1": "y", "": 0, "s": {"k": 1, "k_1": 2}}
    for kind, data in ((Parquet(), parquet_of(table)), (Arrow(), arrow_of(table)), (Arrow(), arrow_of(table, 1, True))):
        documents, _, seen = read(kind, data)
        assert documents["text"].to_pylist() == ["first"]
        assert json.loads(documents["metadata"][0].as_py()) == expected
        assert seen.types["x"] == {"integer"} and seen.types["x_1"] == {"string"}
        chosen, _, seen = read(kind, data, Reading(FieldMap(metadata=("x_1", "s.k_1"))))
        assert chosen["metadata"].to_pylist() == ['{"s":{"k_1":2},"x_1":"y"}'] and seen.types.keys() == {
            "text",
            "x_1",
            "s",
        }


def test_a_name_with_dots_is_a_column_of_that_name_before_it_is_a_path() -> None:
    table = pa.table({"a.b": ["column"], "a": [{"b": "field", "c": {"d": 1, "e": None}}]})
    for kind, data in ((Parquet(), parquet_of(table)), (Arrow(), arrow_of(table))):
        documents, _, _ = read(kind, data, Reading(FieldMap(text="a.b")))
        assert documents["text"].to_pylist() == ["column"]
        assert documents["metadata"].to_pylist() == ['{"a":{"b":"field","c":{"d":1,"e":null}}}']
        documents, _, _ = read(kind, data, Reading(FieldMap(text="a.b", id="a.c.d", metadata=("a.b", "a.c"))))
        assert documents["metadata"].to_pylist() == ['{"a":{"b":"field","c":{"e":null}}}']
        assert documents["original_id"].to_pylist() == ["1"]


@pytest.mark.parametrize("inner", [pa.string(), pa.binary(), pa.string_view(), pa.large_string()])
def test_a_nested_text_is_read_through_nulls_and_checked(inner: pa.DataType) -> None:
    values = [b"good", None, b"a\0", b"\xff", b" "]
    fields = pa.array(values, pa.binary())
    layout = {pa.string_view(): pa.binary_view(), pa.large_string(): pa.large_binary()}.get(inner, pa.binary())
    child = fields.cast(layout).view(inner)
    struct = pa.StructArray.from_arrays([child, pa.array(range(5))], names=["text", "n"])
    null = pa.StructArray.from_arrays([struct], names=["m"], mask=pa.array([False] * 5))
    table = pa.table({"d": pa.concat_arrays([null, pa.nulls(2, null.type)])})
    documents, bad, seen = read(Arrow(), arrow_of(table), Reading(FieldMap(text="d.m.text")))
    assert documents["text"].to_pylist() == ["good"] and documents["metadata"].to_pylist() == ['{"d":{"m":{"n":0}}}']
    reasons = ["missing_text", "nul_byte", "invalid_utf8", "empty_text", "missing_text", "missing_text"]
    assert [(row.row, row.reason) for row in bad] == list(zip(range(1, 7), reasons, strict=True))
    assert seen.types == {"d": {"object", "null"}}


def test_a_path_into_a_map_is_followed_row_by_row() -> None:
    maps = pa.array([[("id", "x"), ("k", "v")], None, [("k", "w")]], pa.map_(pa.string(), pa.string()))
    table = pa.table({"text": ["a", "b", "c"], "m": maps})
    documents, _, _ = read(Parquet(), parquet_of(table), Reading(FieldMap(id="m.id")))
    assert documents["original_id"].to_pylist() == ["x", None, None]
    assert documents["metadata"].to_pylist() == ['{"m":{"k":"v"}}', '{"m":null}', '{"m":{"k":"w"}}']


def test_field_types_are_json_types_and_nulls_are_noted() -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "none": pa.nulls(2),
            "empty": pa.array([None, None], pa.int32()),
            "when": pa.array([1, None], pa.timestamp("ms")),
            "price": pa.array([Decimal(1)] * 2),
            "raw": [b"x", b"\xff"],
            "tags": [["x"], []],
            "flag": [True, None],
            "score": [1.5, 2.0],
            "code": pa.array(["x", None]).dictionary_encode(),
            "map": pa.array([[("k", 1)]] * 2, pa.map_(pa.string(), pa.int8())),
        }
    )
    _, _, seen = read(Parquet(), parquet_of(table, 1))
    assert {name: "/".join(sorted(kinds)) for name, kinds in seen.types.items()} == {
        "text": "string",
        "none": "null",
        "empty": "null",
        "when": "null/string",
        "price": "string",
        "raw": "string",
        "tags": "array",
        "flag": "boolean/null",
        "score": "number",
        "code": "null/string",
        "map": "object",
    }


def test_only_the_columns_that_are_needed_are_read() -> None:
    table = pa.table({"text": ["a"] * 50, "big": ["x" * 20_000 + str(row) for row in range(50)], "n": range(50)})
    how = Reading(FieldMap(metadata=("n",)))

    class Counted(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    for kind, data in (
        (Parquet(), parquet_of(table, compression="none", use_dictionary=False)),
        (Arrow(), arrow_of(table)),
    ):
        file = Counted(data)
        items = list(kind.read(Watched(file, "a"), "a", None, WHOLE, how, FieldTypes()))
        assert isinstance(items[0], Block) and items[0].metadata[3].as_py() == '{"n":3}'
        assert file.taken < len(data) / 2


def test_long_values_of_a_dictionary_are_decoded_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "0123456789" * 10_000
    codes = pa.DictionaryArray.from_arrays(pa.array([0, None, 0, 0] * 500, pa.int16()), pa.array([text]))
    table = pa.table({"text": codes, "note": codes})
    before, peak = pa.total_allocated_bytes(), 0
    items = Arrow().read(Watched(io.BytesIO(arrow_of(table)), "a"), "a", None, WHOLE, Reading(), FieldTypes())
    documents = 0
    for item in items:
        peak = max(peak, pa.total_allocated_bytes() - before)
        documents += len(item.rows) if isinstance(item, Block) else 0
    assert documents == 1500 and peak < 60 * 2**20 < 2000 * 2 * len(text)


@QUICK
@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6), st.integers(1, 60))
def test_pieces_are_bounded_keep_the_order_and_lose_nothing(sizes: list[list[int]], target: int) -> None:
    texts = [[chr(97 + index % 26) * size for index, size in enumerate(batch)] for batch in sizes]
    batches = [pa.record_batch({"text": pa.array(batch, pa.string())}) for batch in texts]
    cut = list(pieces(measured(iter(batches)), target))
    assert [text for piece in cut for text in piece["text"].to_pylist()] == [text for batch in texts for text in batch]
    for piece in cut:
        lengths = [len(text) for text in piece["text"].to_pylist()]
        assert piece.num_rows and (sum(lengths) <= target or sum(map(bool, lengths)) == 1)


def test_a_document_of_the_slow_path_keeps_its_place_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["a", "b", "c", "d"]})
    faults = columns_module._faults

    def suspicious(texts: pa.Array) -> Any:
        bad = faults(texts)
        bad[[0, 2]] = True
        return bad

    expected = read(Parquet(), parquet_of(table))
    monkeypatch.setattr(columns_module, "_faults", suspicious)
    assert same(read(Parquet(), parquet_of(table)), expected)


def test_columns_nested_too_deep_fail_the_file_unless_they_are_left_out() -> None:
    kind: pa.DataType = pa.int8()
    for _ in range(60):
        kind = pa.list_(pa.struct([("x", kind)]))
    assert nesting(kind) == 120
    schema = pa.schema([("text", pa.string()), ("deep", kind)])
    with pytest.raises(FileFailedError, match="'deep' is nested 100 levels deep or more"):
        ColumnReader(schema, Reading(), FieldTypes())
    assert ColumnReader(schema, Reading(FieldMap(metadata=())), FieldTypes()).wanted == [0]


def test_a_name_that_is_no_utf8_fails_the_file() -> None:
    table = pa.table({"text": ["a"], "nname": [1], "s": [{"nfield": 1}]})
    for name in (b"nname", b"nfield"):
        data = arrow_of(table, stream=True).replace(name, b"\xff" + name[1:])
        with pytest.raises(FileFailedError, match="name is not UTF-8"):
            read(Arrow(), data)


def spans_rows(kind: Format, data: bytes, spans: list[Span]) -> Iterator[tuple[int, int]]:
    for span in spans:
        documents, _, _ = read(kind, data, span=span)
        yield span.first_row, len(documents)


@pytest.mark.parametrize("kind", [Parquet(), Arrow()])
def test_a_file_is_cut_by_its_groups_of_rows_near_the_target_size(kind: Format) -> None:
    table = pa.table({"text": [f"{row} " * 50 for row in range(4000)]})
    data = parquet_of(table, 100) if isinstance(kind, Parquet) else arrow_of(table, 100)
    cut = kind.cut(io.BytesIO(data), len(data) // 4, Reading())
    assert cut.spans[0] == Span(0, cut.spans[1].start, 0)
    assert len(cut.spans) in (4, 5) and cut.spans[-1].end == 40 and cut.sha256 is None
    assert [first for first, _ in spans_rows(kind, data, cut.spans)] == [span.start * 100 for span in cut.spans]
    assert sum(count for _, count in spans_rows(kind, data, cut.spans)) == 4000
    assert kind.cut(io.BytesIO(data), 2 * len(data), Reading()).spans == [WHOLE]
