"""Tables, rows and transactions of the working store, on both backends."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pyarrow as pa
import pytest

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.store import Store, open_store
from winnow.store.parts import ARROW_TYPES
from winnow.store.schema import SCHEMA_VERSION, tables
from winnow.store.store import get_meta, insert, insert_row, load, replace_rows, set_meta

VALUES: dict[str, list[Any]] = {
    "UUID": [uuid.UUID(int=2**127 + 5), uuid.UUID(int=1)],
    "VARCHAR": ['it\'s "quoted" \N{GREEK SMALL LETTER OMEGA} \U0001f600\nnext', ""],
    "BLOB": [b"\x00\xff'\"", b""],
    "DOUBLE": [0.1 + 0.2, -1e-300],
    "BIGINT": [2**63 - 1, -(2**63)],
    "INTEGER": [2**31 - 1, -(2**31)],
    "SMALLINT": [2**15 - 1, -(2**15)],
    "UBIGINT": [2**64 - 1, 0],
    "BOOLEAN": [True, False],
    "TIMESTAMP": [datetime.datetime(2026, 1, 2, 3, 4, 5, 678901), datetime.datetime(1999, 12, 31)],
    "FLOAT[]": [[0.5, -1.25, 3e38], []],
    "UBIGINT[]": [[0, 2**64 - 1], []],
    "VARCHAR[]": [["a", "it's"], []],
}
IN_TABLES = [table.name for table in tables().values() if not table.parts]
IN_PARTS = [table.name for table in tables().values() if table.parts]


def full_rows(name: str) -> pa.Table:
    """Return two rows of extreme values and one of nulls."""
    columns = {column: pa.array([*VALUES[kind], None], ARROW_TYPES[kind]) for column, kind, _ in tables()[name].columns}
    return pa.table(columns)


def test_every_type_of_the_schema_has_values_here():
    assert {kind for table in tables().values() for _, kind, _ in table.columns} <= set(VALUES) == set(ARROW_TYPES)


def test_a_row_of_every_table_comes_back_as_it_was(store):
    with store.write() as connection:
        for name in IN_TABLES:
            insert(connection, name, full_rows(name))
    with store.read() as connection:
        for name in IN_TABLES:
            where = " WHERE key IS NULL OR key = '' OR key LIKE 'it%'" if name == "meta" else ""
            found = connection.execute(f"SELECT * FROM {name}{where} ORDER BY ALL").to_arrow_table()
            expected = full_rows(name)
            assert found.column_names == expected.column_names, name
            assert sorted(found.to_pylist(), key=repr) == sorted(expected.to_pylist(), key=repr), name
            ids = [column for column, kind, _ in tables()[name].columns if kind == "UUID"]
            assert all(found[column].type == pa.uuid() for column in ids), name


def test_a_row_of_every_part_comes_back_as_it_was(tmp_path):
    """Without a document to hide them by: straight from the view's own query."""
    from winnow.home import Home
    from winnow.store.store import add_parts

    store = Store(Home(tmp_path), StoreSettings())
    for name in IN_PARTS:
        rows = full_rows(name)
        document = tables()[name].document
        parts = store.write_parts(name, [rows])
        with store.write() as connection:
            add_parts(connection, parts)
            connection.execute("DELETE FROM documents")
            if document:
                keys = rows.select([key for key in ("doc_id", "shard", "row") if key in rows.column_names])
                insert(connection, "documents", keys.filter(keys["doc_id"].is_valid()))
        with store.scratch(name) as connection:
            found = connection.execute(f"SELECT * FROM {name}").to_arrow_table()
        expected = rows.filter(rows[document].is_valid()) if document else rows
        assert sorted(found.to_pylist(), key=repr) == sorted(expected.to_pylist(), key=repr), name


def test_a_failed_transaction_leaves_nothing(store):
    with store.write() as connection:
        insert_row(connection, "costs", stage="kept")
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        insert_row(connection, "costs", stage="lost")
        connection.execute("DELETE FROM costs WHERE stage = 'kept'")
        raise ZeroDivisionError
    assert store.query("SELECT stage FROM costs") == [("kept",)]
    assert store.query("SELECT value FROM meta WHERE key = 'generation'") == [("1",)]


def test_an_error_of_the_database_is_the_one_that_is_raised(store):
    import duckdb

    with pytest.raises(duckdb.CatalogException, match="no_such_table"), store.write() as connection:
        insert_row(connection, "costs", stage="lost")
        connection.execute("SELECT * FROM no_such_table")
    assert store.query("SELECT count(*) FROM costs") == [(0,)]


def test_reading_a_store_that_is_not_there_gives_empty_tables(store):
    assert store.query("SELECT count(*) FROM documents") == [(0,)]
    with store.scratch("texts", "documents", "bands") as connection:
        assert connection.execute("SELECT count(*) FROM texts").fetchall() == [(0,)]


def test_a_reader_sees_one_state(store):
    with store.write() as connection:
        insert_row(connection, "costs", stage="one")
    with store.read() as connection:
        assert connection.execute("SELECT count(*) FROM costs").fetchall() == [(1,)]
        if store.settings.backend == "lake":  # on the file backend the writer would wait for this reader
            with store.write() as writing:
                insert_row(writing, "costs", stage="two")
        assert connection.execute("SELECT count(*) FROM costs").fetchall() == [(1,)]


def test_a_store_of_a_newer_winnow_is_refused_for_reading_and_writing(store):
    with store.write() as connection:
        set_meta(connection, "schema_version", str(SCHEMA_VERSION + 1))
    for attempt in (store.read, store.write):
        with pytest.raises(UserError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade winnow"), attempt():
            pass
    with pytest.raises(UserError, match="upgrade winnow"):
        store.publish()


def test_every_write_is_a_new_generation(store):
    for expected in ("1", "2", "3"):
        with store.write():
            pass
        with store.read() as connection:
            assert get_meta(connection, "generation") == expected


def test_an_unknown_column_is_refused_and_an_absent_one_is_null(store):
    with pytest.raises(KeyError, match="no_such_column"), store.write() as connection:
        insert(connection, "costs", pa.table({"stage": ["a"], "no_such_column": [1]}))
    with store.write() as connection:
        insert(connection, "costs", pa.table({"processed": pa.array([3], pa.int32()), "stage": ["a"]}))
    assert store.query("SELECT stage, processed, run_id FROM costs") == [("a", 3, None)]


def test_a_value_that_does_not_fit_its_column_is_refused(store):
    with pytest.raises(pa.ArrowInvalid), store.write() as connection:
        insert(connection, "costs", pa.table({"stage": ["a"], "processed": ["three"]}))


def test_rows_are_replaced_by_key_and_a_null_is_a_key_too(store):
    def quarantine(reason: str | None, detail: str) -> pa.Table:
        return pa.table({"shard": ["a"], "reason": pa.array([reason], pa.string()), "detail": [detail]})

    with store.write() as connection:
        for row in (("x", "old"), (None, "old"), ("y", "old")):
            insert(connection, "quarantine", quarantine(*row))
        for row in (("x", "new"), (None, "new")):
            replace_rows(connection, "quarantine", quarantine(*row), ("shard", "reason"))
    assert sorted(store.query("SELECT reason, detail FROM quarantine"), key=repr) == [
        ("x", "new"), ("y", "old"), (None, "new"),
    ]  # fmt: skip


def test_scratch_copies_the_named_tables_and_filters_by_the_columns_that_they_have(store):
    rows = pa.table({"doc_id": pa.array([uuid.UUID(int=1).bytes] * 2, pa.uuid()), "version": ["it's one", "two"]})
    with store.write() as connection:
        insert(connection, "signals", rows)
        insert(connection, "documents", rows.select(["doc_id"]).slice(0, 1))
    with store.scratch("signals", "documents", only={"version": "it's one"}) as connection:
        assert connection.execute("SELECT version FROM signals").fetchall() == [("it's one",)]
        assert connection.execute("SELECT count(*) FROM documents").fetchall() == [(1,)]
        names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert names == {"signals", "documents"}
        connection.execute("DELETE FROM signals")
    assert store.query("SELECT count(*) FROM signals") == [(2,)]


def test_scratch_without_tables_does_not_open_the_store(store, monkeypatch):
    monkeypatch.setattr(type(store), "read", None)
    with store.scratch() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_scratch_holds_no_lock(store):
    with store.scratch("documents"), store.write() as connection:
        insert_row(connection, "costs", stage="meanwhile")
    assert store.query("SELECT stage FROM costs") == [("meanwhile",)]


def test_a_uuid_is_found_by_its_value(store):
    wanted = uuid.UUID("ffffffff-ffff-4fff-bfff-ffffffffffff")
    ids = pa.array([wanted.bytes, uuid.UUID(int=3).bytes], pa.uuid())
    with store.write() as connection:
        insert(connection, "documents", pa.table({"doc_id": ids, "source": ["last", "first"]}))
        load(connection, "wanted", pa.table({"doc_id": ids.slice(0, 1)}))
        assert connection.execute("SELECT source FROM documents SEMI JOIN wanted USING (doc_id)").fetchall() == [
            ("last",)
        ]
    assert store.query("SELECT source FROM documents WHERE doc_id = $id", {"id": wanted}) == [("last",)]
    assert store.query("SELECT source FROM documents ORDER BY doc_id") == [("first",), ("last",)]


def test_the_configuration_names_the_backend(tmp_path):
    from winnow.config import Config, save_config
    from winnow.home import Home

    home = Home(tmp_path)
    assert open_store(home).backend.name == "file"
    save_config(Config(store=StoreSettings(backend="lake")), home.config)
    assert open_store(home).backend.name == "lake"
    assert list(home.root.iterdir()) == [home.config]  # opening a store writes nothing
