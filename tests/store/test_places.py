"""What ``[store]`` may name, and what a user is told when a place cannot be reached."""

from __future__ import annotations

import importlib

import pytest

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store import Store
from winnow.store.store import insert_row


@pytest.mark.parametrize(
    ("catalog", "told"),
    [
        ("postgres:dbname=winnow password=hunter2", "set PGPASSWORD"),
        ("postgres:dbname=winnow password = 'hunter2'", "set PGPASSWORD"),
        ("postgres:dbname=winnow password=hunter2 passfile=/pgpass", "set PGPASSWORD"),
        ("postgres:passfile=/pgpass sslpassword=hunter2", "set PGPASSWORD"),
        ("postgres://winnow:hunter2@host/db", "set PGPASSWORD"),
        ("postgres:postgresql://winnow:hunter2@host/db", "set PGPASSWORD"),
        ("postgres:host=a dbname='it\\'s' PASSWORD='hunter2", "set PGPASSWORD"),
        ("postgres:", "keyword=value"),
        ("postgres:winnow", "keyword=value"),
        ("postgres:dbname='winnow", "keyword=value"),
        ("postgres:dbname=win\x00now", "keyword=value"),
        ("mysql:password=hunter2", "write 'sqlite' or 'postgres:"),
        ("catalog.sqlite", "write 'sqlite' or 'postgres:"),
    ],
)
def test_a_catalog_that_is_not_taken_is_refused_without_telling_its_password(tmp_path, catalog, told):
    with pytest.raises(UserError, match=r"store\.catalog") as error:
        Store(Home(tmp_path), StoreSettings(backend="lake", catalog=catalog))
    assert told in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("s3://key:hunter2@bucket/prefix", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/pre?fix", "write scheme://bucket/prefix"),
        ("s3://bucket/*", "write scheme://bucket/prefix"),
        ("s3://bucket/a/../b", "write scheme://bucket/prefix"),
        ("s3:///prefix", "write scheme://bucket/prefix"),
        ("why?", "no '\\?' and no control characters"),
        ("line\nbreak", "no '\\?' and no control characters"),
    ],
)
def test_a_place_that_is_not_taken_is_refused_without_telling_its_password(tmp_path, data, told):
    with pytest.raises(UserError, match=told) as error:
        Store(Home(tmp_path), StoreSettings(data=data))
    assert "hunter2" not in str(error.value)


def test_a_lake_does_not_take_a_place_that_it_cannot_write(tmp_path):
    with pytest.raises(UserError, match="in a folder or on S3"):
        Store(Home(tmp_path), StoreSettings(backend="lake", data="gs://bucket/prefix"))


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({"backend": "lake"}, "store.backend = 'lake' needs the DuckDB extension ducklake"),
        ({"data": "s3://bucket/prefix"}, "store.data on S3 needs the DuckDB extension httpfs"),
        (
            {"backend": "lake", "catalog": "postgres:dbname=winnow"},
            "store.catalog = 'postgres:...' needs the DuckDB extension postgres_scanner",
        ),
    ],
)
def test_a_missing_extension_is_told_with_the_extra_that_has_it(tmp_path, monkeypatch, settings, needs):
    def absent(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    store = Store(Home(tmp_path), StoreSettings(**settings))
    with pytest.raises(UserError) as error, store.write():
        pass
    assert str(error.value).startswith(needs)
    assert "pip install 'winnow[lake]'" in str(error.value)


@pytest.mark.parametrize("action", ["exists", "read", "write"])
def test_a_postgres_out_of_reach_is_told_with_host_port_and_mend(tmp_path, action):
    pytest.importorskip("duckdb_extension_postgres_scanner")
    catalog = f"postgres:dbname=winnow host='{tmp_path}' port=5999 user=winnow"
    store = Store(Home(tmp_path), StoreSettings(backend="lake", catalog=catalog, lock_wait_seconds=1))
    with pytest.raises(UserError) as error:
        if action == "exists":
            store.backend.exists()
        else:
            with getattr(store, action)():
                pass
    for told in (str(tmp_path), "5999", "No such file", "pg_isready", "PGPASSWORD"):
        assert told in str(error.value)


@pytest.mark.parametrize("wrong", ["dbname", "user"])
def test_a_postgres_that_lacks_the_database_or_role_is_told(tmp_path, catalog, wrong):
    changed = " ".join(
        f"{wrong}=nobody_s" if pair.startswith(f"{wrong}=") else pair
        for pair in catalog.removeprefix("postgres:").split(" ")
    )
    store = Store(Home(tmp_path), StoreSettings(backend="lake", catalog=f"postgres:{changed}"))
    with pytest.raises(UserError, match=r'"nobody_s" does not exist.*database and role exist'), store.write():
        pass


def test_asking_whether_a_store_exists_makes_nothing(store):
    assert not store.backend.exists()
    assert not store.home.root.exists()
    assert not store.backend.exists()
    with store.write():
        pass
    assert store.backend.exists()
    assert Store(store.home, store.settings).backend.exists()


@pytest.mark.parametrize("backend", ["file", "lake"], indirect=True)
def test_a_home_can_be_moved(store, tmp_path):
    with store.write() as connection:
        for number in range(100):
            insert_row(connection, "costs", stage=f"{number}")
    store.home.root.rename(tmp_path / "moved")
    moved = Store(Home(tmp_path / "moved"), store.settings)
    assert moved.query("SELECT count(*) FROM costs") == [(100,)]
    with moved.write() as connection:
        insert_row(connection, "costs", stage="later")
    assert moved.query("SELECT count(*) FROM costs") == [(101,)]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
def test_homes_of_several_machines_share_a_lake(store, tmp_path):
    with store.write() as connection:
        insert_row(connection, "costs", stage="here")
    shared = store.settings.model_copy(update={"data": store.data})
    there = Store(Home(tmp_path / "another machine"), shared)
    with there.write() as connection:
        insert_row(connection, "costs", stage="there")
    assert store.query("SELECT stage FROM costs ORDER BY stage") == [("here",), ("there",)]
