"""The published file: whole states, swapped in at once, that no reader disturbs or is disturbed by."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest
from other_process import wait_until_ready

from winnow.errors import UserError
from winnow.identity import doc_ids
from winnow.store.schema import tables
from winnow.store.store import add_parts, insert, insert_row, open_published


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


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_views_name_their_parts_one_by_one(store):
    add_documents(store, "one")
    store.publish()
    unlisted = store.write_parts("texts", [pa.table({"doc_id": doc_ids(["one"]), "text": ["unlisted"]})])
    assert store.part_path("texts", unlisted[0].digest).exists()
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


@pytest.mark.parametrize("backend", ["file"], indirect=True)
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


@pytest.mark.parametrize("backend", ["file"], indirect=True)
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


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_the_published_file_cannot_be_written_through_winnow(store):
    add_documents(store, "one")
    store.publish()
    with open_published(store.home) as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("DELETE FROM documents")
