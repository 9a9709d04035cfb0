"""The thread that compresses parts: same bytes as ever, its errors told, nothing left of what was cut short."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.identity import doc_ids
from winnow.store import parts
from winnow.store.faults import StorageError
from winnow.store.parts import PartWriter, part_writer, write_parts
from winnow.store.storage import LocalStorage

ROOT = Path(__file__).parents[2]


def texts(*values: str) -> pa.Table:
    count = len(values)
    return pa.table({"doc_id": doc_ids(values), "shard": ["s"] * count, "row": range(count), "text": list(values)})


def noise(megabytes: int) -> pa.Table:
    """Return one text that does not compress away."""
    letters = np.random.default_rng(0).integers(33, 126, megabytes * 2**20, dtype=np.uint8)
    return texts(letters.tobytes().decode())


@given(st.lists(st.lists(st.text(max_size=20), max_size=5), max_size=6), st.integers(50, 2000))
@settings(max_examples=25, deadline=None)
def test_the_same_tables_give_the_same_parts_and_the_parts_hold_the_rows(tmp_path_factory, tables, target):
    written = []
    for _ in range(2):
        storage = LocalStorage(tmp_path_factory.mktemp("parts"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "TARGET_BYTES", target)
            written.append(write_parts(storage, "texts", (texts(*values) for values in tables)))
    assert written[0] == written[1]
    held = []
    for part in written[0]:
        with storage.open("texts", part.digest) as file:
            assert file.metadata.num_rows == part.rows
            held += file.read()["text"].to_pylist()
    assert held == [text for values in tables for text in values]


def test_long_text_has_no_dictionary_and_columns_that_repeat_have_one(tmp_path):
    storage = LocalStorage(tmp_path)
    (part,) = write_parts(storage, "texts", [texts("a", "b", "c")])
    with storage.open("texts", part.digest) as file:
        group = file.metadata.row_group(0)
        columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    assert {name for name, column in columns.items() if column.has_dictionary_page} == {"shard", "row"}
    assert {column.compression for column in columns.values()} == {"ZSTD"}


class Broken(LocalStorage):
    """Fails when a part is to be put in place."""

    def put(self, temporary, kind, digest):
        raise ZeroDivisionError("put")


def test_an_error_of_the_thread_is_raised_by_cut_and_nothing_is_left(tmp_path):
    writer = PartWriter(Broken(tmp_path), "texts")
    writer.add(texts("a"))
    with pytest.raises(ZeroDivisionError, match="put"):
        writer.cut()
    writer.abandon()
    assert writer.parts == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_error_of_the_thread_is_raised_by_a_later_add_and_does_not_block_it(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "TARGET_BYTES", 1)
    with pytest.raises(ZeroDivisionError, match="put"), part_writer(Broken(tmp_path), "texts") as writer:
        for number in range(10_000):
            writer.add(texts(str(number)))
    assert number < 100
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_writer_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    for broken in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "TARGET_BYTES", 1)
            try:
                with part_writer((Broken if broken else LocalStorage)(tmp_path), "texts") as writer:
                    writer.add(texts("a"))
            except ZeroDivisionError:
                pass
    assert threading.active_count() == before


def test_abandoning_keeps_the_parts_that_were_cut(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path)
    writer = PartWriter(storage, "texts")
    writer.add(texts("a"))
    writer.cut()
    writer.add(texts("b"))
    writer.abandon()
    assert [part.digest for part in storage.list()] == [part.digest for part in writer.parts]
    assert len(writer.parts) == 1
    writer.add(texts("c"))
    writer.cut()
    assert len(writer.parts) == 2


def test_the_caller_goes_on_while_a_part_is_compressed_and_holds_few_tables(tmp_path, monkeypatch):
    released = threading.Event()
    finish = parts._Unfinished.finish
    monkeypatch.setattr(parts._Unfinished, "finish", lambda part: (released.wait(20), finish(part))[1])
    monkeypatch.setattr(parts, "TARGET_BYTES", 1)
    writer = PartWriter(LocalStorage(tmp_path), "texts")
    writer.add(texts("a"))  # its part is being finished from now on
    writer.add(texts("b"))
    blocked = threading.Thread(target=lambda: [writer.add(texts(name)) for name in "cde"])
    blocked.start()
    blocked.join(0.2)
    assert blocked.is_alive()  # until there is room, so that memory is bounded
    released.set()
    blocked.join()
    writer.cut()
    assert [part.rows for part in writer.parts] == [1] * 5


FULL_DISK = """
import json, resource, sys, warnings
from pathlib import Path
sys.path.insert(0, "tests/store")
import test_part_writing as here
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store import Store
store = Store(Home(Path(sys.argv[1])), StoreSettings())
kept = store.write_parts("texts", [here.texts("kept")])
rows = here.noise(3)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, 2 * 2**20))
try:
    store.write_parts("texts", [rows])
except Exception as error:
    names = [kind.__name__ for kind in type(error).__mro__]
    print(json.dumps([names, str(error), error.errno, [part.digest for part in store.storage.list()], kept[0].digest]))
"""


def test_a_full_disk_stops_the_writer_with_place_and_mend_and_leaves_nothing_half_written(tmp_path):
    """A limit on the size of files stands for the disk: the error comes from the same write."""
    other = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert other.returncode == 0, other.stderr
    assert other.stderr == ""  # not from a destructor either
    names, text, number, listed, kept = json.loads(other.stdout)
    assert {"StorageError", "OSError", "UserError"} <= set(names)
    assert f"{tmp_path / 'store' / 'parts' / 'texts'}: no space left" in text
    assert "Free some space" in text
    assert number
    assert listed == [kept]
    assert [path.stem for path in (tmp_path / "store" / "parts").rglob("*") if path.is_file()] == [kept]


def test_a_full_disk_is_told_whatever_step_it_stops(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("winnow.store.storage.sync", full)
    (tmp_path / "texts").mkdir()
    with pytest.raises(StorageError, match="no space left while writing a part of texts"):
        write_parts(LocalStorage(tmp_path), "texts", [texts("a")])
    assert list((tmp_path / "texts").iterdir()) == []


def test_rows_are_written_as_their_tables_came(tmp_path):
    storage = LocalStorage(tmp_path)
    (part,) = write_parts(storage, "texts", [texts("a", "b"), texts(), texts("c")])
    assert pq.ParquetFile(storage.path("texts", part.digest)).metadata.num_row_groups == 2
