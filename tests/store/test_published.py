"""The published file: whole states, swapped in at once, that no reader disturbs or is disturbed by."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from other_process import wait_until_ready

import winnow.store.published as module
from winnow.errors import UserError
from winnow.identity import doc_ids
from winnow.store.published import open_published
from winnow.store.schema import tables
from winnow.store.store import Store, add_parts, get_meta, insert, insert_row, set_meta

FILE = pytest.mark.parametrize("backend", ["file"], indirect=True)


def add_documents(store, *texts: str) -> None:
    """Add documents with their texts, in a part of their own."""
    rows = pa.table({"doc_id": doc_ids(texts), "shard": ["s"] * len(texts), "row": range(len(texts)), "text": texts})
    parts = store.write_parts("texts", [rows])
    with store.write() as connection:
        add_parts(connection, parts)
        insert(connection, "documents", rows.drop_columns(["text"]))


def published(store, query: str) -> list[tuple]:
    with open_published(store.home) as connection:
        return connection.execute(query).fetchall()


def test_without_a_store_there_is_nothing_to_publish(store):
    assert not store.publish()
    assert not store.home.root.exists()
    with pytest.raises(UserError, match="winnow demo"):
        open_published(store.home)


def test_publishing_swaps_in_the_present_state_and_does_nothing_when_there_is_none_newer(store):
    add_documents(store, "one")
    assert store.publish()
    before = store.home.published.stat()
    assert not store.publish()
    assert store.home.published.stat().st_ino == before.st_ino
    add_documents(store, "two")
    assert published(store, "SELECT text FROM texts") == [("one",)]
    assert store.publish()
    assert published(store, "SELECT text FROM texts ORDER BY text") == [("one",), ("two",)]
    assert sorted(path.name for path in store.home.root.iterdir()) == ["store", "winnow.duckdb"]


@FILE
def test_views_name_their_parts_one_by_one(store):
    add_documents(store, "one")
    store.publish()
    unlisted = store.write_parts("texts", [pa.table({"doc_id": doc_ids(["one"]), "text": ["unlisted"]})])
    assert store.storage.path("texts", unlisted[0].digest).exists()
    assert published(store, "SELECT text FROM texts") == [("one",)]
    ((definition,),) = published(store, "SELECT sql FROM duckdb_views() WHERE view_name = 'texts'")
    assert "*.parquet" not in definition
    assert definition.count(".parquet") == 1


def test_every_column_of_every_table_has_a_comment(store):
    add_documents(store, "one")
    store.publish()
    rows = published(store, "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal")
    assert not [(table, column) for table, column, comment in rows if not comment]
    assert {table for table, _, _ in rows} == {
        *(table.name for table in tables().values() if not table.internal),
        "scores_wide",
        "lineage",
    }
    described = {(table, column) for table, column, _ in rows}
    for table in tables().values():
        for column, _, _ in () if table.internal else table.columns:
            assert (table.name, column) in described
    without = published(
        store,
        "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL"
        " UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL",
    )
    assert without == []


@FILE
def test_one_whole_state_is_published_while_others_are_written(store):
    """All rows of a state carry its number: no published file mixes two."""
    for number in range(3):
        with store.write() as connection:
            connection.execute("DELETE FROM costs")
            for stage in ("a", "b"):
                insert_row(connection, "costs", stage=stage, processed=number)
        store.publish()
        assert published(store, "SELECT DISTINCT processed FROM costs") == [(number,)]


READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=READ_ONLY)
def show():
    print(connection.execute("SELECT string_agg(text, ' ' ORDER BY text) FROM texts").fetchone()[0], flush=True)
show()
for line in sys.stdin:
    show()
    if not READ_ONLY:
        connection.execute("CREATE OR REPLACE TABLE mine AS SELECT 1 AS x")
connection.close()
"""


@pytest.fixture
def shell(store):
    """Hold the published file open in another process, as a user's shell does; ``ask`` returns what it sees."""
    started = []

    def open_shell(read_only: bool = True):
        if not read_only:  # somebody insists, or is root
            store.home.published.chmod(0o644)
        code = READER.replace("READ_ONLY", str(read_only))
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(store.home.published)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(other)
        assert other.stdin and other.stdout
        first = other.stdout.readline().strip()

        def ask() -> str:
            assert other.stdin and other.stdout
            other.stdin.write("\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        return first, ask, other

    yield open_shell
    for other in started:
        other.kill()
        other.wait()


@pytest.mark.parametrize(("backend", "read_only"), [("file", True), ("file", False)], indirect=["backend"])
def test_an_open_shell_keeps_its_state_and_disturbs_nothing(store, shell, read_only):
    add_documents(store, "one")
    store.publish()
    first, ask, other = shell(read_only)
    assert first == ask() == "one"
    assert not store.publish()  # nothing is newer, and the shell does not hide that
    for text, expected in (("two", "one two"), ("zwei", "one two zwei")):
        add_documents(store, text)
        assert store.publish()
        assert ask() == "one"
        assert published(store, "SELECT string_agg(text, ' ' ORDER BY text) FROM texts") == [(expected,)]
    other.stdin.close()
    assert other.wait() == 0
    assert published(store, "SELECT count(*) FROM texts") == [(3,)]
    assert published(store, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'") == [(0,)]


@FILE
def test_a_killed_publisher_leaves_the_old_file_and_the_next_one_tidies_up(store, process):
    add_documents(store, "one")
    store.publish()
    other = process(
        """
import winnow.store.publish as module
def hang(*arguments):
    ready()
    time.sleep(60)
module._finish = hang
store.publish()
"""
    )
    with store.write() as connection:
        insert_row(connection, "costs", stage="new")
    wait_until_ready(other)
    other.kill()
    other.wait()
    assert published(store, "SELECT count(*) FROM costs") == [(0,)]
    assert list(store.home.root.glob(".winnow-*"))
    assert store.publish()
    assert published(store, "SELECT count(*) FROM costs") == [(1,)]
    assert not list(store.home.root.glob(".winnow-*"))


@FILE
def test_the_published_file_cannot_be_written_through_winnow(store):
    add_documents(store, "one")
    store.publish()
    with open_published(store.home) as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("DELETE FROM documents")


@FILE
def test_the_log_of_a_shell_on_an_older_file_is_never_played_back(store, shell):
    """The shell makes its log by name, so beside the newest file, once that is in place."""
    log = store.home.published.with_name("winnow.duckdb.wal")
    add_documents(store, "one")
    store.publish()
    _, ask, other = shell(read_only=False)
    add_documents(store, "two")
    store.publish()
    ask()
    ask()  # the table that the first one made is in the log now
    other.kill()
    other.wait()
    with duckdb.connect(store.home.published, read_only=True) as plain:  # what would be read by its name
        assert plain.execute("SELECT x FROM mine").fetchall() == [(1,)]
    assert published(store, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'") == [(0,)]
    assert published(store, "SELECT string_agg(text, ' ' ORDER BY text) FROM texts") == [("one two",)]
    assert not log.exists()  # so that nobody else plays it back either
    assert not list(store.home.scratch.glob("published-*"))


@FILE
def test_where_no_link_can_be_made_a_log_is_not_played_back_either(store, shell, monkeypatch):
    add_documents(store, "one")
    store.publish()
    _, ask, other = shell(read_only=False)
    add_documents(store, "two")
    store.publish()
    ask()
    ask()

    def no_link(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    assert published(store, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'") == [(0,)]
    other.kill()
    other.wait()
    store.home.published.with_name("winnow.duckdb.wal").unlink()
    assert published(store, "SELECT count(*) FROM texts") == [(2,)]


@FILE
def test_a_file_that_a_shell_writes_to_is_read_as_of_one_of_its_checkpoints(store, shell, monkeypatch):
    add_documents(store, "one")
    store.publish()
    shell(read_only=False)
    copied, copy = [], shutil.copyfile

    def copy_while_a_checkpoint_ends(source, target):
        copy(source, target)
        copied.append(target)
        if len(copied) < 3:
            with target.open("r+b") as file:
                file.seek(4096)
                file.write(bytes([len(copied)]) * 4096)

    monkeypatch.setattr(shutil, "copyfile", copy_while_a_checkpoint_ends)
    assert published(store, "SELECT text FROM texts") == [("one",)]
    assert len(copied) == 3
    copied[:] = []
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with pytest.raises(UserError, match="being written by a DuckDB shell"):
        published(store, "SELECT 1")


@FILE
def test_nobody_may_write_to_the_published_file(store):
    add_documents(store, "one")
    store.publish()
    assert stat.S_IMODE(store.home.published.stat().st_mode) & 0o222 == 0
    add_documents(store, "two")
    assert store.publish()


@FILE
def test_a_publisher_that_hangs_is_named_at_the_deadline(store, process):
    add_documents(store, "one")
    other = process(
        """
import winnow.store.publish as module
def hang(*arguments):
    ready()
    time.sleep(60)
module._finish = hang
store.publish()
"""
    )
    wait_until_ready(other)
    impatient = Store(store.home, store.settings.model_copy(update={"lock_wait_seconds": 0.2}))
    with pytest.raises(UserError, match=f"being published by PID {other.pid}"):
        impatient.publish()


@FILE
def test_another_store_in_the_same_place_is_published_at_the_same_number_of_writes(store):
    add_documents(store, "one")
    store.publish()
    store.backend.path.unlink()
    add_documents(store, "another")
    assert published(store, "SELECT text FROM texts") == [("one",)]
    assert store.publish()
    assert published(store, "SELECT text FROM texts") == [("another",)]


@FILE
def test_a_newer_state_is_not_replaced_by_an_older_one(store, tmp_path):
    add_documents(store, "one")
    shutil.copyfile(store.backend.path, tmp_path / "older")
    add_documents(store, "two")
    store.publish()
    shutil.copyfile(tmp_path / "older", store.backend.path)
    with pytest.raises(UserError, match=r"shows write 2 of this store, which is only at 1.*move that file away"):
        store.publish()
    assert published(store, "SELECT count(*) FROM texts") == [(2,)]
    store.home.published.unlink()
    assert store.publish()


@FILE
def test_footers_are_opened_one_by_one_only_where_parts_may_lack_a_column(store):
    add_documents(store, "one")
    add_documents(store, "two")
    store.publish()
    query = "SELECT sql LIKE '%union_by_name%' FROM duckdb_views() WHERE view_name = 'texts'"
    assert published(store, query) == [(False,)]
    old = store.storage.path("texts", store.query("SELECT min(part) FROM parts")[0][0])
    pq.write_table(pq.read_table(old).drop_columns(["original"]), old)  # as an older Winnow wrote it
    with store.write() as connection:
        known = json.loads(get_meta(connection, "part_columns"))
        set_meta(connection, "part_columns", json.dumps(known | {"texts": "those of before"}))
        set_meta(connection, "schema", "that of before")
    store.publish()
    assert published(store, query) == [(True,)]
    assert published(store, "SELECT text, original FROM texts ORDER BY text") == [("one", None), ("two", None)]
    assert len(store.query("SELECT original FROM texts")) == 2
    with store.scratch("texts") as connection:
        assert connection.execute("SELECT count(original), count(*) FROM texts").fetchone() == (0, 2)
