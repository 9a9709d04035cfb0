"""Several processes on one store: they wait for each other, lose nothing, and a killed one leaves the store whole."""

from __future__ import annotations

import threading
import time

import pyarrow.parquet as pq
import pytest
from other_process import wait_until_ready

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.store import Store
from winnow.store.store import insert_row

HOLD = """
with store.write() as connection:
    insert_row(connection, "costs", stage="theirs")
    ready()
    sys.stdin.readline()
"""


def test_a_writer_waits_for_another_process(store, process):
    with store.write() as connection:
        insert_row(connection, "costs", stage="before")
    other = process(HOLD)
    wait_until_ready(other)

    def release() -> None:
        other.stdin.write("\n")
        other.stdin.flush()

    timer = threading.Timer(0.5, release)
    timer.start()
    began = time.monotonic()
    with store.write() as connection:
        waited = time.monotonic() - began
        insert_row(connection, "costs", stage="ours")
    timer.join()
    assert waited > 0.4
    assert store.query("SELECT stage FROM costs ORDER BY stage") == [("before",), ("ours",), ("theirs",)]


def test_a_writer_that_waited_too_long_is_told_who_holds_the_store_and_what_to_do(store, process):
    other = process(HOLD)
    wait_until_ready(other)
    impatient = Store(store.home, StoreSettings(backend=store.settings.backend, lock_wait_seconds=0.2))
    with (
        pytest.raises(UserError, match=r"stayed locked for 0\.2 s .*raise store\.lock_wait_seconds") as error,
        impatient.write(),
    ):
        pass
    assert f"PID {other.pid}" in str(error.value)


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_threads_of_one_process_take_turns(store):
    def write(name: str) -> None:
        for number in range(4):
            with store.write() as connection:
                insert_row(connection, "costs", stage=name, processed=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.query("SELECT stage, count(*) FROM costs GROUP BY ALL ORDER BY ALL") == [("a", 4), ("b", 4)]


WRITE_MANY = """
for number in range(TIMES):
    with store.write() as connection:
        insert_row(connection, "costs", stage=NAME, processed=number)
"""


def test_processes_that_write_at_the_same_time_lose_nothing(store, process):
    times = 20 if store.settings.backend == "file" else 3
    writers = [process(WRITE_MANY.replace("TIMES", str(times)).replace("NAME", f"'{name}'")) for name in "ab"]
    assert [other.wait() for other in writers] == [0, 0]
    found = store.query("SELECT stage, count(DISTINCT processed), count(*) FROM costs GROUP BY ALL ORDER BY ALL")
    assert found == [("a", times, times), ("b", times, times)]
    assert store.query("SELECT value FROM meta WHERE key = 'generation'") == [(str(2 * times),)]


KILLED_IN_TRANSACTION = """
with store.write() as connection:
    connection.execute("INSERT INTO judged (stage) SELECT 'x' || i FROM range(300000) t(i)")
    connection.execute("DELETE FROM costs")
    ready()
    time.sleep(60)
"""


def test_a_process_killed_in_a_transaction_leaves_the_store_as_it_was(store, process):
    with store.write() as connection:
        insert_row(connection, "costs", stage="kept")
    other = process(KILLED_IN_TRANSACTION)
    wait_until_ready(other)
    other.kill()
    other.wait()
    assert store.query("SELECT stage FROM costs") == [("kept",)]
    assert store.query("SELECT count(*) FROM judged") == [(0,)]
    with store.write() as connection:
        insert_row(connection, "costs", stage="later")
    assert store.query("SELECT count(*) FROM costs") == [(2,)]
    assert store.publish()


def test_a_process_killed_in_the_very_first_transaction_leaves_a_store_that_opens(store, process):
    other = process(KILLED_IN_TRANSACTION)
    wait_until_ready(other)
    assert store.backend.exists()
    other.kill()
    other.wait()
    assert store.query("SELECT count(*) FROM judged") == [(0,)]
    assert store.publish()


KILLED_IN_PART = """
rows = pa.table({"doc_id": doc_ids(["kept"]), "model": ["m"], "vector": pa.array([[1.0]], pa.list_(pa.float32()))})
whole = store.write_parts("embeddings", [rows])
with store.write() as connection:
    add_parts(connection, whole)
    insert(connection, "documents", rows.select(["doc_id"]))
writer = PartWriter(store.home.parts, "embeddings")
for _ in range(50):
    writer.add(rows)
unlisted = store.write_parts("embeddings", [rows, rows])
ready()
time.sleep(60)
"""


def test_a_process_killed_in_a_part_leaves_only_whole_parts_in_sight(store, process):
    other = process(KILLED_IN_PART)
    wait_until_ready(other)
    other.kill()
    other.wait()
    folder = store.home.parts / "embeddings"
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert len(list(folder.glob("*.parquet"))) == 2  # one of them no transaction lists
    for whole in folder.glob("*.parquet"):
        assert pq.read_table(whole).num_rows in (1, 2)
    with store.scratch("embeddings") as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchall() == [(1,)]
