"""Dolma's attributes are joined by id: no order, batch or memory bound changes what a document gets."""

from __future__ import annotations

import gzip
import json
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.identity import canonical_json
from winnow.text import Limits, Quarantined, ShardReader
from winnow.text.formats import Reading
from winnow.text.watched import UnavailableError

LENIENT = Limits(max_bad_fraction=1.0)


def write(path: Path, lines: Iterable[Any]) -> Path:
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(
    path: Path, attributes: dict[str, Path], limits: Limits = LENIENT
) -> tuple[list[dict[str, Any]], list[Quarantined], ShardReader]:
    pairs = tuple((tagger, str(file)) for tagger, file in attributes.items())
    reader = ShardReader(path, reading=Reading(limits=limits, attributes=pairs))
    rows: list[dict[str, Any]] = []
    quarantined: list[Quarantined] = []
    for batch in reader:
        rows += batch.documents.select(["row", "original_id", "metadata"]).to_pylist()
        quarantined += batch.quarantined
    assert reader.records == reader.occurrences + reader.quarantined
    assert reader.quarantined == sum(row.records for row in quarantined)
    for row in rows:
        assert row["metadata"] == canonical_json(json.loads(row["metadata"]))
        row["metadata"] = json.loads(row["metadata"])
    return rows, quarantined, reader


def documents(count: int) -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "text": f"text {i}", "source": "s", "added": "2020", "n": i} for i in range(count)]


def tags(count: int, name: str = "t__q") -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "source": "s", "attributes": {name: [[0, 6, i / 7]]}} for i in range(count)]


def test_attributes_are_joined_by_id_and_not_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", documents(5))
    quality = write(tmp_path / "quality.jsonl.gz", reversed(tags(5)))
    language = write(tmp_path / "language.jsonl", tags(5, "l__en"))
    rows, quarantined, reader = read(path, {"quality": quality, "language": language})
    assert not quarantined and reader.occurrences == 5
    assert [row["metadata"] for row in rows] == [
        {
            "source": "s",
            "added": "2020",
            "n": i,
            "attributes": {"quality": {"t__q": [[0, 6, i / 7]]}, "language": {"l__en": [[0, 6, i / 7]]}},
        }
        for i in range(5)
    ]
    assert reader.fields.types["attributes"] == {"object"}


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 30),
    seed=st.integers(0, 1000),
    batch_bytes=st.integers(1, 5000),
    missing=st.sets(st.integers(0, 29)),
)
def test_neither_order_nor_batches_change_what_a_document_gets(
    count: int, seed: int, batch_bytes: int, missing: set[int]
) -> None:
    kept = [line for i, line in enumerate(tags(count)) if i not in missing]
    shuffled = random.Random(seed).sample(kept, len(kept))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.jsonl", documents(count))
        expected = read(path, {"t": write(Path(folder) / "in_order.jsonl", kept)})[0]
        limits = Limits(batch_bytes=batch_bytes, max_bad_fraction=1.0)
        assert read(path, {"t": write(Path(folder) / "shuffled.jsonl.gz", shuffled)}, limits)[0] == expected
    assert [("attributes" in row["metadata"]) for row in expected] == [i not in missing for i in range(count)]


def test_documents_and_attributes_without_counterpart_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.jsonl", [*documents(4), {"text": "no id"}])
    one = write(tmp_path / "one.jsonl", tags(9)[2:])
    two = write(tmp_path / "two.jsonl", tags(5)[:4])
    caplog.set_level(logging.WARNING, logger="winnow.text.dolma")
    rows, quarantined, _ = read(path, {"one": one, "two": two})
    assert not quarantined
    assert [sorted(row["metadata"].get("attributes", {})) for row in rows] == [
        *[["two"]] * 2,
        *[["one", "two"]] * 2,
        [],
    ]
    assert "one.jsonl: 5 attributes of 'one' are of no document and left out; 3 documents have none" in caplog.text
    assert "two.jsonl: 0 attributes of 'two' are of no document and left out; 1 documents have none" in caplog.text


def test_nothing_is_logged_where_everything_has_its_counterpart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="winnow.text.dolma")
    read(write(tmp_path / "a.jsonl", documents(3)), {"t": write(tmp_path / "t.jsonl", tags(3))})
    assert not caplog.records


def test_documents_that_share_an_id_all_get_its_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*documents(2), *documents(2)])
    rows, _, _ = read(path, {"t": write(tmp_path / "t.jsonl", tags(2))})
    assert [row["metadata"]["attributes"]["t"]["t__q"][0][2] for row in rows] == [0, 1 / 7, 0, 1 / 7]


def test_a_repeated_id_is_a_bad_record_and_the_first_line_holds(tmp_path: Path) -> None:
    lines = [*tags(3), {"id": "d1", "attributes": {"t__q": "later"}}, {"id": "d1", "attributes": {}}]
    rows, quarantined, reader = read(
        write(tmp_path / "a.jsonl", documents(3)),
        {"t": write(tmp_path / "t.jsonl", lines), "u": write(tmp_path / "u.jsonl", tags(3))},
    )
    assert [row["metadata"]["attributes"]["t"]["t__q"] for row in rows] == [[[0, 6, i / 7]] for i in range(3)]
    assert [(row.reason, row.row, row.records) for row in quarantined] == [("duplicate_attributes", None, 1)] * 2
    assert [row.detail.split("t.jsonl, ")[1] for row in quarantined] == [
        f"line {number}: a line before has the same id; the first one holds" for number in (4, 5)
    ]
    assert (reader.records, reader.occurrences) == (5, 3)


BAD = {
    b"nonsense": ("invalid_json", "line 2: "),
    b'{"id": "d1"': ("invalid_json", "line 2"),
    b'{"id": "d1"}': ("invalid_attributes", "'id' is a string and 'attributes' null; expected a string and an object"),
    b'{"id": null, "attributes": {}}': ("invalid_attributes", "'id' is null"),
    b'{"id": "d1", "attributes": [1]}': ("invalid_attributes", "'attributes' an array"),
    b'{"attributes": {"a": 1}}': ("invalid_attributes", "'id' is null"),
    b'{"id": true, "attributes": {"a": 1}}': ("invalid_attributes", "'id' is a boolean"),
    b'{"id": "d1", "attributes": {"a": "\xff"}}': ("invalid_utf8", "0xff"),
    b'{"id": "d1", "attributes": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}": ("invalid_json", "100 levels deep"),
    b'{"id": "d1", "attributes": {"a": "' + b"x" * 2000 + b'"}}': ("record_too_large", "1,000 bytes"),
}


@pytest.mark.parametrize(("line", "reason", "detail"), [(line, *expected) for line, expected in BAD.items()])
def test_a_bad_line_is_quarantined_and_its_document_stays(
    tmp_path: Path, line: bytes, reason: str, detail: str
) -> None:
    first, _, last = tags(3)
    attributes = write(tmp_path / "t.jsonl", [first, line, b"", last])
    limits = Limits(max_bad_fraction=1.0, max_record_bytes=1000)
    rows, (row,), reader = read(write(tmp_path / "a.jsonl", documents(3)), {"t": attributes}, limits)
    assert (row.reason, row.row, row.offset) == (reason, None, None)
    assert detail in row.detail and f"attributes of 't' in {attributes}, line 2: " in row.detail
    assert ["attributes" in one["metadata"] for one in rows] == [True, False, True]
    assert (reader.records, reader.occurrences, reader.quarantined) == (4, 3, 1)


def test_odd_but_valid_values_are_read_as_those_of_documents_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"id": 7, "text": "a"}', b'{"id": "x\\u0000\\ud800", "text": "b"}'])
    lines = [
        b'{"id": "7", "attributes": {"nan": NaN, "big": 123456789012345678901234567890, "tiny": 1e-9, "s": "\\udfff"}}',
        b'{"id": "x\\u0000\\ud800", "attributes": {"text": 1, "id": 2, "": {"b": 1, "a": []}}}',
    ]
    rows, quarantined, _ = read(path, {"t": write(tmp_path / "t.jsonl", lines)})
    assert not quarantined
    assert [row["metadata"]["attributes"]["t"] for row in rows] == [
        {"nan": None, "big": 123456789012345678901234567890, "tiny": 1e-9, "s": "\ufffd"},
        {"text": 1, "id": 2, "": {"b": 1, "a": []}},
    ]


@pytest.mark.parametrize("own", ["x", {"t": 1}, None])
def test_a_document_with_such_attributes_of_its_own_is_quarantined(tmp_path: Path, own: Any) -> None:
    lines = documents(3)
    lines[1]["attributes"] = own
    rows, (row,), _ = read(write(tmp_path / "a.jsonl", lines), {"t": write(tmp_path / "t.jsonl", tags(3))})
    assert (row.row, row.reason) == (1, "duplicate_attributes") and [one["row"] for one in rows] == [0, 2]
    assert row.excerpt == "text 1"


def test_other_attributes_of_a_documents_own_are_kept_beside(tmp_path: Path) -> None:
    lines = documents(2)
    lines[1]["attributes"] = {"inline": 1}
    rows, quarantined, _ = read(write(tmp_path / "a.jsonl", lines), {"t": write(tmp_path / "t.jsonl", tags(2))})
    assert not quarantined
    assert rows[1]["metadata"]["attributes"] == {"inline": 1, "t": {"t__q": [[0, 6, 1 / 7]]}}


@pytest.mark.parametrize("keep", [0, 30, 60, 100])
def test_a_cut_file_of_attributes_fails_the_file_of_documents(tmp_path: Path, keep: int) -> None:
    attributes = write(tmp_path / "t.jsonl.gz", tags(500))
    attributes.write_bytes(attributes.read_bytes()[: attributes.stat().st_size * keep // 101])
    path = write(tmp_path / "a.jsonl", documents(3))
    rows, (row,), reader = read(path, {"t": attributes})
    assert reader.failed and not rows and row.reason == "invalid_attributes"
    assert "attributes of 't' in " in row.detail and "deliver the file anew" in row.detail
    assert reader.bytes == path.stat().st_size and reader.sha256


def test_attributes_that_are_no_json_lines_by_their_name_fail_the_file(tmp_path: Path) -> None:
    _, (row,), reader = read(write(tmp_path / "a.jsonl", documents(3)), {"t": tmp_path / "t.csv"})
    assert reader.failed and row.reason == "invalid_attributes" and "t.csv" in row.detail


def test_many_bad_lines_fail_the_file(tmp_path: Path) -> None:
    attributes = write(tmp_path / "t.jsonl", [b"bad"] * 20)
    _, quarantined, reader = read(write(tmp_path / "a.jsonl", documents(30)), {"t": attributes}, Limits())
    assert reader.failed and reader.occurrences == 0 and quarantined[-1].reason == "file_failed"
    assert (reader.records, reader.quarantined) == (50, 50)


def test_other_formats_are_joined_too(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(documents(4)), path)
    rows, _, _ = read(path, {"t": write(tmp_path / "t.jsonl", reversed(tags(4)))})
    assert [row["metadata"]["attributes"]["t"]["t__q"][0][2] for row in rows] == [i / 7 for i in range(4)]


def test_attributes_beyond_the_memory_bound_lie_on_disk(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl.gz", ({"id": f"d{i}", "attributes": {"a": "x" * 20_000}} for i in range(2000)))
    code = f"""
import resource
from winnow.text.dolma import AttributeJoin
from winnow.text.limits import Limits
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with AttributeJoin((("t", {str(path)!r}),), Limits(batch_bytes=2**20)) as join:
    assert not list(join.load())
    assert all(len(join.take(f"d{{i}}")["t"]) == 20_008 for i in reversed(range(2000)))
    assert join.take("other") == {{}} and join.unmatched() == [("t", 0, 1)]
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14  # KiB; 40 MiB were read
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_attributes_that_cannot_be_opened_make_their_documents_unavailable_and_not_failed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", documents(2))
    late = tmp_path / "late.jsonl"
    with pytest.raises(UnavailableError, match=r"late\.jsonl"):
        read(path, {"late": late})
    write(late, tags(2))
    rows, quarantined, reader = read(path, {"late": late})
    assert len(rows) == 2 and not quarantined and not reader.failed
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(late.read_bytes())[:-20])
    assert read(path, {"broken": broken})[2].failed
