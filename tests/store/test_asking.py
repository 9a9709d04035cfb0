"""A user's SQL reads the parts of the store and changes nothing, neither there nor elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
from contextlib import closing

import pyarrow as pa
import pytest
from conftest import S3
from test_snapshots import deliver, make_manifest
from worlds import tree

from winnow.cli.show import show_stream
from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store import Store
from winnow.store.asking import ask, open_for_questions
from winnow.store.published import open_published
from winnow.store.remote import filesystem

FILE = pytest.mark.parametrize("backend", ["file"], indirect=True)


@pytest.fixture(params=["the present", "a manifest"])
def asked(store, request):
    """A connection to ask, of the published store or of a manifest's."""
    deliver(store, "web/a", ["it's one", "two"])
    version = make_manifest(store)
    store.publish()
    connection = open_for_questions(store.home, version if request.param == "a manifest" else None)
    yield connection
    connection.close()


def rows(connection, sql: str) -> list[tuple]:
    return ask(connection, sql)[1](1_000)


@FILE
def test_tables_views_over_parts_and_wide_scores_can_be_read(asked):
    assert rows(asked, "SELECT text FROM texts ORDER BY text") == [("it's one",), ("two",)]
    assert rows(asked, "FROM manifests SELECT version") == [("v0001",)]
    assert len(rows(asked, "SELECT * FROM scores_wide")) == 2
    for query in (
        "SHOW TABLES",
        "DESCRIBE documents",
        "SUMMARIZE documents",
        "EXPLAIN SELECT 1",
        "explain analyze FROM documents",
        "PIVOT documents ON source USING count(*)",
        "PIVOT documents ON source USING count(*); ",
        "FROM documents PIVOT (count(*) FOR source IN ('web'))",
        "WITH a AS (PIVOT documents ON source USING count(*)) FROM a",
        "WITH a AS (SELECT 1) FROM a",
    ):
        assert rows(asked, query), query


@FILE
def test_nothing_can_be_written_attached_or_loaded(asked, store, tmp_path):
    part = store.query("SELECT part FROM parts WHERE kind = 'texts'")[0][0]
    path = str(store.storage.path("texts", part)).replace("'", "''")
    elsewhere = str(tmp_path / "elsewhere").replace("'", "''")
    before = tree(tmp_path)
    for statement in (
        f"COPY (SELECT 1) TO '{elsewhere}.parquet'",
        f"COPY (SELECT 1) TO '{path}' (USE_TMP_FILE false)",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}' (USE_TMP_FILE false)",
        f"EXPLAIN /* */ ANALYZE COPY (SELECT 1) TO '{path}' (USE_TMP_FILE false)",
        f"SELECT 1; COPY (SELECT 1) TO '{path}' (USE_TMP_FILE false)",
        "CREATE TEMP TABLE mine AS SELECT 1; SELECT 'PIVOT'",
        "CREATE TEMP TABLE mine AS SELECT 1; PIVOT documents ON source USING count(*);",
        "CREATE PERSISTENT SECRET mine (TYPE s3); SELECT 'PIVOT'",
        f"CREATE TEMP TABLE pivot AS SELECT 1; COPY (SELECT 'PIVOT') TO '{path}'",
        f"ATTACH '{elsewhere}.duckdb'",
        f"ATTACH '{str(store.backend.path).replace(chr(39), chr(39) * 2)}' AS working",
        f"EXPORT DATABASE '{elsewhere}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "DELETE FROM documents",
        "CREATE TABLE mine AS SELECT 1",
        "BEGIN",
        "",
    ):
        with pytest.raises(UserError, match=r"read-only and takes one query|the query failed"):
            rows(asked, statement)
    assert tree(tmp_path) == before


@FILE
def test_files_that_are_no_parts_are_closed(asked, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for query in (f"FROM '{tmp_path}/secret.csv'", "FROM read_text('/etc/hostname')", "FROM glob('/etc/*')"):
        with pytest.raises(UserError, match="the query failed"):
            rows(asked, query)


@S3
def test_on_remote_storage_only_the_parts_can_be_read(tmp_path, s3, data):
    store = Store(Home(tmp_path / "home"), StoreSettings(data=data))
    deliver(store, "web/a", ["it's one", "two"])
    store.publish()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    part = store.query("SELECT part FROM parts WHERE kind = 'texts'")[0][0]
    uri = store.storage.uri("texts", part)
    other = f"{data}/other.parquet"
    filesystem(data).cp_file(uri, other)
    with closing(open_for_questions(store.home)) as connection:
        assert rows(connection, "SELECT text FROM texts ORDER BY text") == [("it's one",), ("two",)]
        for path in (f"{tmp_path}/secret.csv", other, f"{s3.endpoint}/data/other.parquet", f"{data}/*.parquet"):
            with pytest.raises(UserError, match=r"the query failed.*Cannot access"):
                rows(connection, f"FROM '{path.replace(chr(39), chr(39) * 2)}'")


@FILE
def test_memory_and_threads_are_the_settings_and_cannot_be_changed(store):
    deliver(store, "web/a", ["one"])
    store.publish()
    store.home.config.write_text('[store]\nmemory_limit = "300MiB"\nthreads = 1\n')
    query = "SELECT current_setting('memory_limit'), current_setting('threads'), current_setting('temp_directory')"
    with closing(open_for_questions(store.home)) as connection:
        assert rows(connection, query) == [("300.0 MiB", 1, str(store.home.scratch))]
        for name in ("allow_persistent_secrets", "allow_unsigned_extensions", "enable_external_access"):
            assert rows(connection, f"SELECT current_setting('{name}')") == [(False,)]


@FILE
def test_rows_are_computed_as_they_are_fetched(asked):
    columns, fetch = ask(asked, "SELECT i, 1 // (i - 5000) AS x FROM range(100000000000) t(i)")
    assert columns == ["i", "x"]
    assert [i for i, _ in fetch(3)] == [0, 1, 2]


def printed(columns, fetch, form: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show_stream(columns, fetch, form)
    return out.getvalue()


@FILE
def test_a_table_stops_and_csv_and_json_go_on(asked):
    query = "SELECT i FROM range({}) t(i)"
    table = printed(*ask(asked, query.format(10**12)), "table").splitlines()
    assert len(table) == 1_003 and "more rows than 1,000" in table[-1]
    assert len(printed(*ask(asked, query.format(1_000)), "table").splitlines()) == 1_002
    for count in (0, 1, 1_000, 2_500):
        assert printed(*ask(asked, query.format(count)), "csv").splitlines() == ["i", *map(str, range(count))]
        found = printed(*ask(asked, query.format(count)), "json")
        assert json.loads(found) == [{"i": i} for i in range(count)]
        assert found == json.dumps(json.loads(found), indent=2) + "\n"


@FILE
def test_the_published_file_itself_is_read_only(asked, store):
    with open_published(store.home) as connection, pytest.raises(Exception, match="read-only"):
        connection.register("x", pa.table({"a": [1]}))
        connection.execute("INSERT INTO costs (stage) SELECT 'x'")
