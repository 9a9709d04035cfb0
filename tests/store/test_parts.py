"""Immutable Parquet parts: named by content, whole or not there, alive only once a transaction lists them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest_file, doc_ids
from winnow.store import Store, parts
from winnow.store.parts import Part, conform, part_writer, write_parts
from winnow.store.storage import LocalStorage
from winnow.store.store import add_parts, insert, live_parts


def vectors(*texts: str) -> pa.Table:
    count = len(texts)
    return pa.table(
        {
            "doc_id": doc_ids(texts),
            "model": ["m"] * count,
            "vector": pa.array([[float(index)] * 3 for index in range(count)], pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def file_store(tmp_path) -> Store:
    return Store(Home(tmp_path), StoreSettings())


def test_a_part_is_named_by_the_digest_of_its_bytes(tmp_path):
    (part,) = write_parts(LocalStorage(tmp_path), "embeddings", [vectors("a", "b")])
    path = tmp_path / "embeddings" / f"{part.digest}.parquet"
    assert digest_file(path).startswith(part.digest)
    assert (part.kind, part.rows, part.bytes) == ("embeddings", 2, path.stat().st_size)


def test_equal_rows_are_one_part_and_other_rows_another(tmp_path):
    (first,) = write_parts(LocalStorage(tmp_path), "embeddings", [vectors("a", "b")])
    (again,) = write_parts(LocalStorage(tmp_path), "embeddings", [vectors("a", "b")])
    (other,) = write_parts(LocalStorage(tmp_path), "embeddings", [vectors("a", "c")])
    assert first == again != other
    assert len(list((tmp_path / "embeddings").iterdir())) == 2


def test_no_rows_make_no_part(tmp_path):
    assert write_parts(LocalStorage(tmp_path), "embeddings", []) == []
    assert write_parts(LocalStorage(tmp_path), "embeddings", [vectors()]) == []
    assert list(tmp_path.iterdir()) == []


def test_many_rows_are_cut_into_several_parts_that_hold_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "TARGET_BYTES", 200)
    texts = [f"text {number}" for number in range(40)]
    written = write_parts(
        LocalStorage(tmp_path), "embeddings", (vectors(*texts[at : at + 5]) for at in range(0, 40, 5))
    )
    assert len(written) > 2
    rows = pa.concat_tables(pq.read_table(tmp_path / "embeddings" / f"{part.digest}.parquet") for part in written)
    assert rows["doc_id"].to_pylist() == doc_ids(texts).to_pylist()
    assert sum(part.rows for part in written) == 40


def test_an_unfinished_part_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), part_writer(LocalStorage(tmp_path), "embeddings") as writer:
        writer.add(vectors("a"))
        raise ZeroDivisionError
    assert list((tmp_path / "embeddings").iterdir()) == []


def test_rows_of_another_shape_are_refused():
    with pytest.raises(KeyError, match="no column"):
        conform("embeddings", vectors("a").append_column("more", pa.array([1])))
    assert conform("embeddings", vectors("a").drop_columns(["model"]))["model"].to_pylist() == [None]


def test_a_part_lives_once_a_transaction_lists_it_and_is_listed_once(file_store):
    written = file_store.write_parts("embeddings", [vectors("a")])
    with file_store.read() as connection:
        assert live_parts(connection) == {}
    with pytest.raises(ZeroDivisionError), file_store.write() as connection:
        add_parts(connection, written)
        raise ZeroDivisionError
    with file_store.read() as connection:
        assert live_parts(connection) == {}
    for _ in range(2):
        with file_store.write() as connection:
            add_parts(connection, written)
    assert file_store.query("SELECT part, kind, rows, bytes FROM parts") == [
        (written[0].digest, "embeddings", 1, written[0].bytes)
    ]


def test_rows_of_documents_that_are_gone_are_hidden_and_come_back_with_them(file_store):
    written = file_store.write_parts("embeddings", [vectors("a", "b")])
    with file_store.write() as connection:
        add_parts(connection, written)
        insert(connection, "documents", vectors("a").select(["doc_id"]))
    for present, expected in ((["b"], 2), ([], 0), (["b"], 1)):
        with file_store.write() as connection:
            connection.execute("DELETE FROM documents") if not present else None
            insert(connection, "documents", vectors(*present).select(["doc_id"]))
        with file_store.scratch("embeddings") as connection:
            assert connection.execute("SELECT count(*) FROM embeddings").fetchall() == [(expected,)]


def test_a_part_that_went_before_it_is_listed_stops_the_transaction(file_store):
    here, gone = file_store.write_parts("embeddings", [vectors("a")]) + file_store.write_parts(
        "embeddings", [vectors("b")]
    )
    file_store.storage.remove("embeddings", gone.digest)
    with pytest.raises(UserError, match=rf"1 parts went .*{gone.digest}.*run this again"), file_store.write() as opened:
        add_parts(opened, [here, gone])
    assert file_store.query("SELECT part FROM parts") == []


class Counting:
    """A connection that counts what it is asked to do."""

    def __init__(self, connection) -> None:
        self.connection, self.statements = connection, 0

    def execute(self, *arguments):
        self.statements += 1
        return self.connection.execute(*arguments)

    def __getattr__(self, name):
        return getattr(self.connection, name)


def test_listing_many_parts_takes_as_many_statements_as_listing_one(file_store):
    written = [Part(f"{number:032x}", "scores", 1, 1) for number in range(500)]
    with file_store.write() as connection:
        one, many = Counting(connection), Counting(connection)
        add_parts(one, written[:1], "first")
        add_parts(many, [*written, written[3]], "later")
    assert many.statements == one.statements
    assert file_store.query("SELECT owner, count(*) FROM parts GROUP BY owner ORDER BY owner") == [
        ("first", 1),
        ("later", 499),
    ]
