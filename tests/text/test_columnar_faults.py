"""Parquet and Arrow files that are broken, cut short, of strange schemas, or whose bytes stop coming."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.text import DOCUMENTS, FieldMap, Limits, Quarantined, ShardReader
from winnow.text.arrow_footer import BrokenFooterError, batch_places, batch_rows
from winnow.text.columns import ColumnReader
from winnow.text.drift import FieldTypes
from winnow.text.formats.arrow import Arrow
from winnow.text.formats.base import WHOLE, Block, Format, Item, Reading
from winnow.text.formats.parquet import Parquet
from winnow.text.watched import UnavailableError, Watched

LENIENT = Limits(max_bad_fraction=1.0)
TEXTS = [" ".join(str(random.Random(row).random()) for _ in range(10)) for row in range(1000)]
TABLE = pa.table({"text": TEXTS, "n": range(1000), "kind": pa.array(["x", "y"] * 500).dictionary_encode()})


def read(path: Path, fields: FieldMap | None = None) -> tuple[list[str], list[Quarantined], ShardReader]:
    reader = ShardReader(path, fields, LENIENT)
    batches = list(reader)
    bad = [row for batch in batches for row in batch.quarantined]
    documents = pa.concat_tables([DOCUMENTS.empty_table(), *(batch.documents for batch in batches)])
    documents.validate(full=True)
    assert reader.records == reader.occurrences + reader.quarantined
    assert reader.quarantined == sum(row.records for row in bad)
    return documents["text"].to_pylist(), bad, reader


def write(
    path: Path, table: pa.Table = TABLE, rows: int = 100, stream: bool = False, compression: str | None = None
) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        path.open("wb") as file,
        (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema, options=options) as writer,
    ):
        writer.write_table(table, max_chunksize=rows)
    return path


def overwrite(path: Path, start: int, data: bytes) -> Path:
    changed = bytearray(path.read_bytes())
    changed[start : start + len(data)] = data
    path.write_bytes(changed)
    return path


@pytest.mark.parametrize("suffix", ["arrow", "ipc", "feather"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_files_and_streams_of_every_suffix_are_read(
    tmp_path: Path, suffix: str, stream: bool, compression: str | None
) -> None:
    path = write(tmp_path / f"a.{suffix}", stream=stream, compression=compression)
    texts, bad, reader = read(path)
    assert texts == TEXTS and not bad and reader.format == "arrow"
    assert reader.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reader.fields.types == {"text": {"string"}, "n": {"integer"}, "kind": {"string"}}


def test_the_first_version_of_feather_is_refused_with_a_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.feather"
    path.write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    _, (row,), reader = read(path)
    assert reader.failed and row.reason == "unreadable_file" and "Feather's first version" in row.detail


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
@pytest.mark.parametrize(
    "data", [b"", b"A", b"ARROW1", b"ARROW1\0\0", b"\xff" * 8, b'{"text": "plain"}\n' * 9, b"PAR1", bytes(64)]
)
def test_a_file_of_another_kind_fails_and_is_one_piece(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    texts, (row,), reader = read(path)
    assert not texts and reader.failed and row.reason == "unreadable_file" and reader.records == 1
    kind: Format = Arrow() if name == "a.arrow" else Parquet()
    assert kind.cut(io.BytesIO(data), 1, Reading()).spans == [WHOLE]


def test_an_encrypted_footer_fails_the_file(tmp_path: Path) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return key

    factory = encryption.CryptoFactory(lambda _: Keys())
    how = encryption.EncryptionConfiguration(footer_key="key", uniform_encryption=True)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, encryption_properties=properties)
    _, (row,), reader = read(path)
    assert reader.failed and row.reason == "unreadable_file" and "encrypted" in row.detail


def test_files_without_rows_have_no_records_and_do_not_fail(tmp_path: Path) -> None:
    empty = TABLE.schema.empty_table()
    pq.ParquetWriter(tmp_path / "none.parquet", TABLE.schema).close()
    pq.write_table(empty, tmp_path / "zero.parquet")
    write(tmp_path / "file.arrow", empty)
    write(tmp_path / "stream.arrow", empty, stream=True)
    with pa.ipc.new_file(tmp_path / "batch.arrow", TABLE.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=TABLE.schema))
    for path in sorted(tmp_path.iterdir()):
        texts, bad, reader = read(path)
        assert not texts and not bad and not reader.failed and reader.fields.types == {}


@pytest.mark.parametrize("stream", [False, True])
def test_a_missing_or_wrong_text_column_fails_an_arrow_file(tmp_path: Path, stream: bool) -> None:
    path = write(tmp_path / "a.arrow", stream=stream)
    _, (row,), reader = read(path, FieldMap(text="body"))
    assert reader.failed and (row.reason, row.records) == ("missing_text", 1 if stream else 1000)
    assert "fields present: text, n, kind" in row.detail
    _, (row,), reader = read(path, FieldMap(text="n"))
    assert reader.failed and (row.reason, row.records) == ("text_not_string", 1 if stream else 1000)
    assert Arrow().cut(io.BytesIO(path.read_bytes()), 1, Reading(FieldMap(text="n"))).spans == [WHOLE]


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.string()), pa.run_end_encoded(pa.int32(), pa.string())])
def test_columns_that_are_no_strings_are_no_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"text": pa.array([None] * 3, kind)}))
    assert [row.reason for row in read(path)[1]] == ["text_not_string"]


@pytest.mark.parametrize("checksum", [False, True])
def test_a_corrupt_dictionary_page_costs_its_row_group_and_no_more(tmp_path: Path, checksum: bool) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=250, write_page_checksum=checksum, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    assert chunk.has_dictionary_page
    overwrite(path, chunk.dictionary_page_offset + 60, b"\xff" * 400)
    texts, (row,), reader = read(path)
    assert texts == TEXTS[:500] + TEXTS[750:] and not reader.failed
    assert (row.reason, row.row, row.records) == ("truncated_stream", 500, 250)
    assert row.detail.startswith("rows from 500 on cannot be read")


def test_a_corrupt_page_of_an_unneeded_column_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, write_page_checksum=True)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    overwrite(path, chunk.data_page_offset + 40, b"\xff" * 100)
    assert [row.reason for row in read(path)[1]] == ["truncated_stream"]
    texts, bad, _ = read(path, FieldMap(metadata=("kind",)))
    assert texts == TEXTS and not bad


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_corrupt_record_batch_costs_its_own_rows(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.arrow", compression=compression)
    places = batch_places(io.BytesIO(path.read_bytes()))
    body = places[4].offset + places[4].metadata_bytes
    overwrite(path, body + 16, b"\xff" * (places[4].body_bytes - 16))
    texts, (row,), reader = read(path)
    assert texts == TEXTS[:400] + TEXTS[500:] and not reader.failed
    assert (row.reason, row.row, row.records) == ("truncated_stream", 400, 100)


def test_offsets_and_indices_beyond_their_buffers_are_found_before_they_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow")
    places = batch_places(io.BytesIO(path.read_bytes()))
    overwrite(path, places[3].offset + places[3].metadata_bytes + 64, (2**30).to_bytes(4, "little") * 30)
    texts, (row,), _ = read(path)
    assert texts == TEXTS[:300] + TEXTS[400:] and (row.row, row.records) == (300, 100)
    path = write(tmp_path / "b.arrow")
    codes = TABLE["kind"].chunk(0).indices.buffers()[1].to_pybytes()[:40]
    start = path.read_bytes().index(codes, places[5].offset)
    overwrite(path, start, (2**20).to_bytes(4, "little") * 10)
    texts, (row,), _ = read(path)
    assert texts == TEXTS[:500] + TEXTS[600:] and (row.row, row.records) == (500, 100)


@pytest.mark.parametrize("stream", [False, True])
def test_an_arrow_file_that_was_cut_short_keeps_its_whole_record_batches(tmp_path: Path, stream: bool) -> None:
    whole = write(tmp_path / "a.arrow", stream=stream).read_bytes()
    path = tmp_path / "cut.arrow"
    for length in range(700, len(whole) - 20, 4999):
        path.write_bytes(whole[:length])
        texts, bad, reader = read(path)
        if reader.failed:
            assert length < 1000
            continue
        assert texts == TEXTS[: len(texts)] and len(texts) % 100 == 0
        assert [(row.reason, row.row, row.records) for row in bad] in ([("truncated_stream", len(texts), 1)], [])
        assert bad or stream


def test_a_corrupt_footer_is_read_as_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow")
    size = int.from_bytes(path.read_bytes()[-10:-6], "little")
    overwrite(path, path.stat().st_size - 10 - size, b"\xff" * size)
    texts, (row,), reader = read(path)
    assert texts == TEXTS and not reader.failed
    assert (row.reason, row.row, row.records) == ("truncated_stream", 1000, 1) and "footer" in row.detail
    assert Arrow().cut(io.BytesIO(path.read_bytes()), 1, Reading()).spans == [WHOLE]


def test_a_stream_whose_body_breaks_keeps_what_came_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", stream=True, compression="zstd")
    overwrite(path, path.stat().st_size // 2, b"\xff" * 3000)
    texts, (row,), _ = read(path)
    assert texts == TEXTS[: len(texts)] and 100 <= len(texts) < 600
    assert (row.reason, row.row, row.records) == ("truncated_stream", len(texts), 1)


@pytest.mark.parametrize("make", ["file", "stream", "zstd", "parquet"])
def test_no_corruption_escapes_as_an_exception_and_pieces_are_the_whole(tmp_path: Path, make: str) -> None:
    nested = pa.table({"text": TEXTS[:120], "n": [{"a": [1, 2], "b": "x"}] * 120, "k": TABLE["kind"][:120]})
    if make == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(nested, path, row_group_size=40)
    else:
        compression = "zstd" if make == "zstd" else None
        path = write(tmp_path / "a.arrow", nested, 40, stream=make == "stream", compression=compression)
    kind: Format = Parquet() if make == "parquet" else Arrow()
    whole = path.read_bytes()
    chosen = random.Random(make)
    for _ in range(80):
        data = bytearray(whole)
        start = chosen.randrange(len(data))
        for place in range(start, min(len(data), start + chosen.randrange(1, 30))):
            data[place] = chosen.randrange(256)
        path.write_bytes(data)
        texts, bad, reader = read(path)
        assert reader.failed or texts or bad
        cut = kind.cut(io.BytesIO(data), 1, Reading())
        if len(cut.spans) > 1 and not reader.failed:
            pieces = [ShardReader(path, limits=LENIENT, span=span) for span in cut.spans]
            kept = [text for piece in pieces for batch in piece for text in batch.documents["text"].to_pylist()]
            assert sum(piece.records for piece in pieces) == reader.records and kept == texts


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "zstd.arrow", "a.parquet"])
def test_a_file_whose_bytes_stop_coming_is_unavailable_and_not_corrupt(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(TABLE, path, row_group_size=200)
    else:
        write(path, stream=name.startswith("stream"), compression="zstd" if name.startswith("zstd") else None)
    data = path.read_bytes()

    class Failing(io.BytesIO):
        left = 0

        def read(self, size: int | None = -1) -> bytes:
            part = super().read(size)
            self.left -= len(part)
            if self.left < 0:
                raise OSError("connection reset by peer")
            return part

    kind: Format = Parquet() if name == "a.parquet" else Arrow()
    failures = 0
    for budget in range(0, 2 * len(data), len(data) // 12):
        file = Failing(data)
        file.left = budget
        try:
            items = list(kind.read(Watched(file, path.name), "a", None, WHOLE, Reading(), FieldTypes()))
        except UnavailableError as error:
            failures += 1
            assert "connection reset" in str(error)
        else:
            assert all(isinstance(item, Block) for item in items)
            assert sum(len(item.rows) for item in items if isinstance(item, Block)) == 1000
    assert failures >= 10


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
def test_cutting_a_file_on_this_machine_hashes_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind: Format = Parquet() if name == "a.parquet" else Arrow()
    if name == "a.parquet":
        pq.write_table(TABLE, path, row_group_size=200)
    else:
        write(path, rows=200)
    with path.open("rb") as file:
        cut = kind.cut(file, 1, Reading())
    assert [(span.start, span.end, span.first_row) for span in cut.spans] == [(i, i + 1, 200 * i) for i in range(5)]
    assert (cut.sha256, cut.bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    assert kind.cut(io.BytesIO(path.read_bytes()), 1, Reading()).sha256 is None


def test_counts_of_record_batches_are_told_by_metadata_alone(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 5000] * 90})
    data = write(tmp_path / "a.arrow", table, rows=40).read_bytes()

    class Counted(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            part = super().read(size)
            self.taken += len(part)
            return part

    file = Counted(data)
    assert [batch_rows(file, place) for place in batch_places(file)] == [40, 40, 10]
    assert file.taken < 2000 < len(data)


def test_no_footer_is_misread(tmp_path: Path) -> None:
    data = write(tmp_path / "a.arrow").read_bytes()
    chosen = random.Random(3)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(3):
            broken[-chosen.randrange(1, 800)] = chosen.randrange(256)
        file = io.BytesIO(broken)
        try:
            for place in batch_places(file):
                assert batch_rows(file, place) >= 0
        except BrokenFooterError:
            continue


def test_what_datasets_saves_to_disk_is_read(tmp_path: Path) -> None:
    schema = TABLE.schema.with_metadata({"huggingface": '{"info": {"features": {"text": {"dtype": "string"}}}}'})
    path = write(tmp_path / "data-00000-of-00001.arrow", TABLE.cast(schema), 1000, stream=True)
    texts, bad, reader = read(path)
    assert texts == TEXTS and not bad and reader.records == 1000


MIXED = pa.table(
    {
        "text": [f"doc {row} " * 9 for row in range(60)],
        "n": range(60),
        "l": [[{"a": row}] for row in range(60)],
        "t": pa.array([row * 10**9 for row in range(60)], pa.timestamp("ns", "Europe/Berlin")),
        "d": pa.array(["a", "b"] * 30).dictionary_encode(),
    }
)


@pytest.mark.parametrize("make", ["file", "stream", "zstd", "parquet"])
def test_whatever_bits_are_flipped_only_an_unavailable_file_raises_and_counts_stay_sane(
    tmp_path: Path, make: str
) -> None:
    path = tmp_path / ("a.parquet" if make == "parquet" else "a.arrow")
    if make == "parquet":
        pq.write_table(MIXED, path, row_group_size=20)
    else:
        write(path, MIXED, 20, stream=make == "stream", compression="zstd" if make == "zstd" else None)
    whole = path.read_bytes()
    chosen = random.Random(make)
    for _ in range(50):
        data = bytearray(whole)
        for _ in range(chosen.choice([1, 1, 2, 8])):
            data[-chosen.randrange(1, len(data) if chosen.random() < 0.5 else 1500)] ^= 1 << chosen.randrange(8)
        path.write_bytes(data)
        reader = read(path)[2]
        assert reader.records <= 10_000


def test_an_offsets_buffer_of_odd_length_costs_its_batch_at_most(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"text": TEXTS[:300]}))
    data = path.read_bytes()
    places = batch_places(io.BytesIO(data))
    size = struct.pack("<qq", 0, 404)  # the offsets of 100 texts: buffers are (place, length)
    at = data.index(size, places[1].offset)
    overwrite(path, at + 8, struct.pack("<q", 405))
    assert read(path)[0] == TEXTS[:300]
    overwrite(path, at + 8, struct.pack("<q", 402))
    texts, (row,), _ = read(path)
    assert texts == TEXTS[:100] + TEXTS[200:300]
    assert (row.reason, row.row, row.records) == ("truncated_stream", 100, 100)


def test_what_goes_wrong_in_making_documents_of_a_batch_costs_the_rest_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.arrow")
    items = ColumnReader.items

    def failing(self: ColumnReader, batch: pa.RecordBatch, first_row: int) -> Iterator[Item]:
        yield from items(self, batch, first_row)
        if first_row == 200:
            raise ValueError("the buffer is too small")

    monkeypatch.setattr(ColumnReader, "items", failing)
    texts, (row,), _ = read(path)
    assert texts == TEXTS[:200] + TEXTS[300:]
    assert (row.reason, row.row, row.records) == ("truncated_stream", 200, 100) and "too small" in row.detail


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("rows", [2**62, 7 * 10**16, 101])
@pytest.mark.parametrize("columns_too", [False, True])
def test_a_record_batch_of_more_rows_than_it_can_hold_is_one_bad_record(
    tmp_path: Path, compression: str | None, rows: int, columns_too: bool
) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"text": TEXTS}), compression=compression)
    data = bytearray(path.read_bytes())
    places = batch_places(io.BytesIO(data))
    for place in places[2:5]:
        message = bytes(data[place.offset : place.offset + place.metadata_bytes])
        hundreds = [at for at in range(0, len(message) - 8, 4) if message[at : at + 8] == struct.pack("<q", 100)]
        assert len(hundreds) == 2  # of the batch, and of its column
        for at in hundreds if columns_too else hundreds[:1]:
            data[place.offset + at : place.offset + at + 8] = struct.pack("<q", rows)
    path.write_bytes(data)
    texts, bad, reader = read(path)
    assert texts == TEXTS[:200] + TEXTS[500:] and not reader.failed
    believed = 101 if rows == 101 and columns_too else 1
    assert [(row.reason, row.records) for row in bad] == [("truncated_stream", believed)] * 3
    cut = Arrow().cut(io.BytesIO(data), 1, Reading())
    assert cut.spans[-1].first_row == 600 + 3 * believed


def test_record_batches_that_lie_beyond_the_file_are_no_footer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow")
    data = path.read_bytes()
    place = batch_places(io.BytesIO(data))[7]
    at = data.rindex(struct.pack("<qi", place.offset, place.metadata_bytes))
    for offset, value in ((0, -8), (0, 2**61), (8, 2**30), (16, 2**60), (16, -1)):
        broken = bytearray(data)
        struct.pack_into("<i" if offset == 8 else "<q", broken, at + offset, value)
        with pytest.raises(BrokenFooterError):
            batch_places(io.BytesIO(broken))
        path.write_bytes(broken)
        texts, (row,), reader = read(path)  # as the stream that it is as well
        assert texts == TEXTS and not reader.failed and (row.row, row.records) == (1000, 1)


@pytest.mark.parametrize(
    ("number", "rows"), [(b"\xfe" + b"\xff" * 6 + b"\x0f", 2**51), (b"\xfe\xff\x01", 16383), (b"\xfe\x7d", 8063)]
)
def test_a_row_group_of_another_number_of_rows_than_it_says_costs_one_record_beyond_what_it_has(
    tmp_path: Path, number: bytes, rows: int
) -> None:
    path = tmp_path / "a.parquet"
    # 8191 rows a group: as an i64 of Thrift's compact protocol, a number that nothing else in the footer is.
    texts = [f"text {row}" for row in range(4 * 8191)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=8191)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    ends = [at for at in range(length) if footer.startswith(b"\x16\xfe\x7f", at)]
    third = ends[-3]  # each group has the number of values of its column, and that of its rows
    footer = footer[: third + 1] + number + footer[third + 3 :]
    changed = data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + data[-4:]
    path.write_bytes(changed)
    said = [pq.ParquetFile(path).metadata.row_group(group).num_rows for group in range(4)]
    assert [said[0], said[1], said[3]] == [8191] * 3 and rows <= said[2] < 2 * rows
    got, (first, *further), reader = read(path)
    assert first.reason == "truncated_stream" and "contradict each other" in first.detail
    assert got[: 2 * 8191] == texts[: 2 * 8191] and got[-8191:] == texts[-8191:] and not reader.failed
    assert [(row.reason, row.records) for row in further] == [("truncated_stream", 1)] * (rows > 8191)
    assert all(row.row is not None and row.row >= 2 * 8191 for row in further)
    assert reader.records <= len(texts) + 2
    spans = Parquet().cut(io.BytesIO(changed), 1, Reading()).spans
    pieces = [ShardReader(path, limits=LENIENT, span=span) for span in spans]
    kept = [text for piece in pieces for batch in piece for text in batch.documents["text"].to_pylist()]
    assert kept == got and sum(piece.records for piece in pieces) == reader.records


@pytest.mark.parametrize(("offset", "whence"), [(-1, 0), (-(2**40), 1), (-(2**40), 2), (2**62, 0), (2**200, 0)])
def test_a_seek_to_no_place_is_the_contents_fault_and_not_the_files(tmp_path: Path, offset: int, whence: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    with Watched(path.open("rb"), "a") as file:
        with pytest.raises(ValueError, match="no place in"):
            file.seek(offset, whence)
        file.check()
        assert file.seek(0) == 0 and file.read() == b"some bytes"


def test_a_negative_place_in_a_footer_is_corruption_that_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    assert place == 4
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    at = data.index(b"\x26\x08", footer)  # field data_page_offset, i64, zigzag 4
    data[at + 1] = 0x07  # -4
    path.write_bytes(data)
    texts, bad, reader = read(path)
    assert not texts and reader.failed | bool(bad)
