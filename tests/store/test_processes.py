"""Several processes on one store: they wait for each other, lose nothing, and a killed one leaves the store whole."""

from __future__ import annotations

import threading
import time

import pyarrow.parquet as pq
import pytest
from other_process import wait_until_ready

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
    impatient = Store(store.home, store.settings.model_copy(update={"lock_wait_seconds": 0.2}))
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


@pytest.mark.slow
def test_processes_that_write_at_the_same_time_lose_nothing(store, process):
    times = 20 if store.settings.backend == "file" else 6  # each is some hundred statements in a lake
    writers = [process(WRITE_MANY.replace("TIMES", str(times)).replace("NAME", f"'{name}'")) for name in "abcd"]
    assert [other.wait() for other in writers] == [0] * 4
    found = store.query("SELECT stage, count(DISTINCT processed), count(*) FROM costs GROUP BY ALL ORDER BY ALL")
    assert found == [(name, times, times) for name in "abcd"]
    assert store.query("SELECT value FROM meta WHERE key = 'generation'") == [(str(4 * times),)]


LOOK_UNTIL_TOLD = """
import select
looks = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with store.read() as connection:
        count = "SELECT count(*), count(DISTINCT stage) FROM costs"
        first = connection.execute(count).fetchone()
        assert first[0] == 2 * first[1], first  # whole states only: each write adds two rows of a stage
        assert connection.execute(count).fetchone() == first
    looks += 1
    if looks == 1:
        ready()
print(looks, flush=True)
"""


@pytest.mark.parametrize("backend", ["lake", "postgres"], indirect=True)
def test_readers_of_a_lake_do_not_wait_for_a_writer_and_see_whole_states(store, process):
    with store.write():
        pass
    reader = process(LOOK_UNTIL_TOLD)
    wait_until_ready(reader)
    for stage in "abc":
        with store.write() as connection:
            insert_row(connection, "costs", stage=stage, processed=1)
            assert store.query("SELECT count(*) FROM costs WHERE stage = $stage", {"stage": stage}) == [(0,)]
            insert_row(connection, "costs", stage=stage, processed=2)
    reader.stdin.write("\n")
    reader.stdin.flush()
    assert int(reader.stdout.readline()) > 1
    assert reader.wait() == 0


def test_a_reader_that_began_before_a_write_sees_the_old_state_to_its_end(store, process):
    with store.write() as connection:
        insert_row(connection, "costs", stage="old")
    if store.settings.backend == "lake":  # on the file backend the writer waits for the reader instead
        with store.read() as connection:
            assert connection.execute("SELECT stage FROM costs").fetchall() == [("old",)]
            other = process("with store.write() as connection:\n    connection.execute('DELETE FROM costs')\n")
            assert other.wait() == 0
            assert connection.execute("SELECT stage FROM costs").fetchall() == [("old",)]
        assert store.query("SELECT stage FROM costs") == []
    else:
        with store.scratch("costs") as connection:
            other = process("with store.write() as connection:\n    connection.execute('DELETE FROM costs')\n")
            assert other.wait() == 0
            assert connection.execute("SELECT stage FROM costs").fetchall() == [("old",)]
        assert store.query("SELECT stage FROM costs") == []


def test_a_killed_writer_leaves_the_turn_free_at_once(store, process):
    other = process(HOLD)
    wait_until_ready(other)
    other.kill()
    other.wait()
    began = time.monotonic()
    with store.write() as connection:
        insert_row(connection, "costs", stage="ours")
    assert time.monotonic() - began < 10
    assert store.query("SELECT stage FROM costs") == [("ours",)]


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
writer = PartWriter(store.storage, "embeddings")
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
