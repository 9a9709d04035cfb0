"""Where parts lie: the same promises from a folder, from S3 and from any file system that fsspec knows."""

from __future__ import annotations

import datetime
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.store import Store
from winnow.store.faults import StorageError
from winnow.store.parts import write_parts
from winnow.store.published import open_published
from winnow.store.storage import LocalStorage, part_storage
from winnow.store.store import add_parts, insert

DIGEST = "0123456789abcdef0123456789abcdef"


@pytest.fixture(params=["folder", "elsewhere", "s3", "memory"])
def storage(request, tmp_path):
    place = {"folder": "", "elsewhere": "../it's [another]/place", "memory": f"memory://{tmp_path.name}/parts of mine"}
    data = request.getfixturevalue("data") if request.param == "s3" else place[request.param]
    return part_storage(Home(tmp_path / "home"), StoreSettings(data=data))


def written(storage, value: int = 1) -> Path:
    path = storage.temporary("texts")
    pq.write_table(pa.table({"a": [value]}), path)
    return path


def test_a_part_that_is_put_is_there_whole_and_its_temporary_is_gone(storage):
    assert not storage.exists("texts", DIGEST)
    assert list(storage.list()) == []
    temporary = written(storage)
    size = temporary.stat().st_size
    assert list(storage.list()) == []  # what is being written is no part
    storage.put(temporary, "texts", DIGEST)
    assert not temporary.exists()
    assert storage.exists("texts", DIGEST)
    with storage.open("texts", DIGEST) as file:
        assert file.read()["a"].to_pylist() == [1]
    (found,) = storage.list()
    assert (found.kind, found.digest, found.bytes) == ("texts", DIGEST, size)
    age = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - found.modified
    assert abs(age) < datetime.timedelta(minutes=5)


def test_a_part_can_be_put_twice_and_removed_twice(storage):
    for _ in range(2):
        storage.put(written(storage), "texts", DIGEST)
    assert len(list(storage.list())) == 1
    for _ in range(2):
        storage.remove("texts", DIGEST)
    assert not storage.exists("texts", DIGEST)
    assert list(storage.list()) == []


def test_opening_a_part_that_is_not_there_is_an_os_error_that_names_it(storage):
    with pytest.raises(OSError, match=DIGEST):
        storage.open("texts", DIGEST)


def test_a_storage_travels_to_another_process(storage):
    storage.put(written(storage), "texts", DIGEST)
    assert pickle.loads(pickle.dumps(storage)).exists("texts", DIGEST)


def test_parts_lie_by_kind_and_digest_and_only_those_are_listed(storage):
    for kind, digest in (("texts", DIGEST), ("scores", DIGEST[::-1])):
        storage.put(written(storage), kind, digest)
    assert storage.uri("scores", DIGEST).endswith(f"/parts/scores/{DIGEST}.parquet")
    assert {(part.kind, part.digest) for part in storage.list()} == {("texts", DIGEST), ("scores", DIGEST[::-1])}


def test_a_local_part_goes_where_the_setting_says(tmp_path):
    home = Home(tmp_path / "home")
    assert part_storage(home, StoreSettings()) == LocalStorage(home.store / "parts")
    assert part_storage(home, StoreSettings(data="bulk")) == LocalStorage(home.root / "bulk" / "parts")
    assert part_storage(home, StoreSettings(data="/bulk")) == LocalStorage(Path("/bulk/parts"))


def vectors(*texts: str) -> pa.Table:
    values = pa.array([[1.0, 2.0]] * len(texts), pa.list_(pa.float32()))
    return pa.table({"doc_id": doc_ids(texts), "model": ["m"] * len(texts), "vector": values})


def fill(store: Store, *texts: str) -> None:
    parts = store.write_parts("embeddings", [vectors(*texts)])
    with store.write() as connection:
        add_parts(connection, parts)
        insert(connection, "documents", vectors(*texts).select(["doc_id"]))


@pytest.mark.parametrize(
    ("backend", "place"), [("file", "s3"), ("file", "memory"), ("lake", "s3")], indirect=["backend"]
)
def test_a_store_whose_data_is_remote_is_written_read_and_published(tmp_path, settings, place, request):
    data = request.getfixturevalue("data") if place == "s3" else f"memory://{tmp_path.name}"
    store = Store(Home(tmp_path), settings.model_copy(update={"data": data}))
    fill(store, "a", "b")
    fill(store, "c")
    assert store.query("SELECT count(*) FROM documents") == [(3,)]
    with store.scratch("embeddings") as connection:
        assert connection.execute("SELECT count(*), sum(vector[2]) FROM embeddings").fetchall() == [(3, 6.0)]
    assert store.publish()
    with open_published(store.home) as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchall() == [(3,)]
    assert not [path for path in store.home.root.rglob("*") if path.suffix in (".parquet", ".tmp")]


def test_a_server_that_fails_twice_and_then_works_is_asked_again(tmp_path, s3, data):
    storage = part_storage(Home(tmp_path), StoreSettings(data=data))
    s3.faults, s3.only = [500, 503], "PUT"
    (part,) = write_parts(storage, "embeddings", [vectors("a")])
    assert [method for method, _ in s3.requests].count("PUT") == 3
    assert [(found.kind, found.digest, found.bytes) for found in storage.list()] == [
        ("embeddings", part.digest, part.bytes)
    ]


def test_a_server_that_always_fails_stops_the_writer_with_place_and_mend_and_leaves_nothing(
    tmp_path, s3, data, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store = Store(Home(tmp_path), StoreSettings(data=data))
    fill(store, "a")
    s3.always = 500
    with pytest.raises(StorageError) as error:
        store.write_parts("embeddings", [vectors("b")])
    for told in (data, "embeddings/", s3.endpoint, "HTTP 500", "every attempt", "run again"):
        assert told in str(error.value)
    assert isinstance(error.value, UserError)
    assert not list(store.home.scratch.glob("part-*"))
    s3.heal()
    assert len(list(store.storage.list())) == 1
    assert store.query("SELECT count(*) FROM parts") == [(1,)]


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "check AWS_ACCESS_KEY_ID"), (404, "there is no bucket 'data'; create it"), (None, "no connection")],
)
def test_a_refusal_is_told_by_its_cause(tmp_path, s3, data, monkeypatch, status, told):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if status is None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = part_storage(Home(tmp_path), StoreSettings(data=data))
    s3.always = status
    with pytest.raises(StorageError, match=told) as error:
        write_parts(storage, "embeddings", [vectors("a")])
    assert data in str(error.value)
    with pytest.raises(StorageError, match=told):
        list(storage.list())
    with pytest.raises(StorageError, match=told):
        storage.open("embeddings", DIGEST)


def test_a_reader_is_told_what_is_wrong_with_the_server(tmp_path, s3, data, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store = Store(Home(tmp_path), StoreSettings(data=data))
    fill(store, "a")
    for status, told in ((403, "access refused"), (404, "not found"), (500, "HTTP 500")):
        s3.always = status
        with pytest.raises(StorageError, match=told), store.scratch("embeddings") as connection:
            connection.execute("SELECT count(*) FROM embeddings").fetchall()
        s3.heal()


def test_without_credentials_in_the_environment_one_is_told_which(tmp_path, s3, data, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = Store(Home(tmp_path), StoreSettings(data=data))
    with pytest.raises(UserError, match=r"set AWS_SECRET_ACCESS_KEY in the environment"):
        store.write_parts("embeddings", [vectors("a")])


def test_data_that_was_moved_is_taken_up_once_all_parts_are_there(tmp_path, s3, data):
    before = Store(Home(tmp_path), StoreSettings())
    fill(before, "a")
    after = Store(Home(tmp_path), StoreSettings(data=data))
    with pytest.raises(UserError, match=r"lacks 1 of 1 parts .*set store\.data back"), after.write():
        pass
    (part,) = before.storage.list()
    copy = after.storage.temporary(part.kind)
    copy.write_bytes(before.storage.path(part.kind, part.digest).read_bytes())
    after.storage.put(copy, part.kind, part.digest)
    fill(after, "b")
    with after.scratch("embeddings") as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchall() == [(2,)]


@pytest.mark.parametrize("backend", ["lake"], indirect=True)
def test_a_lake_whose_server_fails_at_the_commit_keeps_its_old_state(tmp_path, settings, s3, data, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = Store(Home(tmp_path), settings.model_copy(update={"data": data}))
    many = pa.table({"doc_id": doc_ids(map(str, range(500)))})  # too many rows to stay in the catalog
    with pytest.raises(StorageError, match=r"s3://data/.*HTTP 500.*run again"), store.write() as connection:
        s3.always = 500
        insert(connection, "documents", many)
    s3.heal()
    assert store.query("SELECT count(*) FROM documents") == [(0,)]
    with store.write() as connection:
        insert(connection, "documents", many)
    assert store.query("SELECT count(*) FROM documents") == [(500,)]
