"""The inbox sensor: closed files are delivered once, in one partition; nothing happens twice."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import dagster as dg
import pytest
from worlds import write_records

from resources.workspace import Workspace
from sensors.inbox import inbox
from sensors.jobs import MOST_ATTEMPTS
from winnow.config import Config, save_config
from winnow.errors import UserError
from winnow.home import Home
from winnow.stages.corpus import deliver
from winnow.store.stage import Stage
from winnow.store.store import open_store
from winnow.text.deliveries import Delivery, scan


class Watched:
    """A home whose inbox is looked at tick by tick, as the daemon does."""

    def __init__(self, root: Path) -> None:
        self.home = Home.from_environment(root)
        self.home.inbox.mkdir(parents=True)
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None

    def write(self, name: str, *texts: str) -> Path:
        return write_records(self.home.inbox / name, [{"id": text[:8], "text": text} for text in texts])

    def tick(self) -> dg.SensorResult:
        resources = {"workspace": Workspace(home=str(self.home.root))}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources) as context:
            result = inbox(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions("shards", list(request.partition_keys))
        return result

    def requested(self) -> list[str]:
        """Return the partitions that a tick asks to run."""
        return [request.partition_key or "" for request in self.tick().run_requests or ()]

    def execute(self, key: str) -> None:
        """Do what the ingest run of a partition does to the corpus."""
        config = Config().corpus
        delivery = Delivery.load(self.home, key).as_of_now(scan(self.home, config))
        store = open_store(self.home)
        deliver(store, config, delivery, Stage(store, "corpus", "run", partition=key))
        store.publish()

    def running(
        self, job: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED, tags: dict[str, str] | None = None
    ) -> str:
        run = dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), status=status, tags=tags or {})
        self.instance.add_run(run)
        return run.run_id


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "home")


def reason(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None and not result.run_requests
    return result.skip_reason.skip_message or ""


def test_an_empty_inbox_is_skipped_with_a_reason(watched: Watched) -> None:
    assert "0 files" in reason(watched.tick())


def test_a_file_that_still_grows_is_not_taken(watched: Watched) -> None:
    watched.write("news/a.jsonl", "the first line of a file")
    assert "1 not closed yet" in reason(watched.tick())
    watched.write("news/a.jsonl", "the first line of a file", "and a second one came")
    assert "1 not closed yet" in reason(watched.tick())
    assert len(watched.requested()) == 1


def test_a_file_under_a_temporary_name_does_not_exist_yet(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a text").rename(watched.home.inbox / "news/a.jsonl.part")
    assert "0 files" in reason(watched.tick())
    assert "0 files" in reason(watched.tick())


def test_a_closed_file_is_delivered_once(watched: Watched) -> None:
    watched.write("news/a.jsonl", "the only line of a file")
    watched.tick()
    [key] = watched.requested()
    assert [file.shard for file in Delivery.load(watched.home, key).files] == ["news/a.jsonl"]
    assert "requested before" in reason(watched.tick())
    watched.execute(key)
    assert "1 files, none to read" in reason(watched.tick())
    assert watched.requested() == []


def test_files_that_come_together_are_one_partition(watched: Watched) -> None:
    for number in range(5):
        watched.write(f"news/{number}.jsonl", f"the text of file number {number}")
    watched.tick()
    [key] = watched.requested()
    assert len(Delivery.load(watched.home, key).files) == 5
    assert watched.instance.get_dynamic_partitions("shards") == [key]


def test_a_closed_file_does_not_wait_for_one_that_still_grows(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a file that is complete")
    watched.tick()
    watched.write("news/b.jsonl", "a file that has just begun")
    [key] = watched.requested()
    assert [file.shard for file in Delivery.load(watched.home, key).files] == ["news/a.jsonl"]
    watched.execute(key)
    [key] = watched.requested()
    assert [file.shard for file in Delivery.load(watched.home, key).files] == ["news/b.jsonl"]


def test_a_changed_file_is_delivered_again(watched: Watched) -> None:
    watched.write("news/a.jsonl", "the first version")
    watched.tick()
    [first] = watched.requested()
    watched.execute(first)
    watched.write("news/a.jsonl", "the second version, which is longer")
    watched.tick()
    [second] = watched.requested()
    assert second != first


def test_a_file_that_returns_to_an_earlier_state_is_delivered_again(watched: Watched) -> None:
    path = watched.write("news/a.jsonl", "the first version")
    watched.write("news/b.jsonl", "another file, which stays")
    stamp = path.stat().st_mtime_ns
    watched.tick()
    keys = watched.requested()
    watched.execute(keys[0])
    path.unlink()
    keys += watched.requested()
    watched.execute(keys[1])
    os.utime(watched.write("news/a.jsonl", "the first version"), ns=(stamp, stamp))
    watched.tick()
    keys += watched.requested()
    assert len(set(keys)) == 3


def test_a_deleted_file_is_withdrawn(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a text that stays")
    path = watched.write("news/b.jsonl", "a text that goes")
    watched.tick()
    watched.execute(watched.requested()[0])
    path.unlink()
    [key] = watched.requested()
    delivery = Delivery.load(watched.home, key)
    assert (delivery.files, delivery.withdrawn) == ((), ("news/b.jsonl",))
    watched.execute(key)
    assert open_store(watched.home).query("SELECT shard FROM shards") == [("news/a.jsonl",)]
    assert watched.requested() == []


def test_a_corpus_root_that_vanished_is_an_error_and_withdraws_nothing(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a text that stays")
    watched.tick()
    watched.execute(watched.requested()[0])
    watched.home.inbox.rename(watched.home.root / "not-mounted")
    with pytest.raises(UserError, match="cannot be listed"):
        watched.tick()


def test_a_delivery_whose_run_failed_is_asked_for_three_times_and_no_more(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a text that no run manages to read")
    asked = []
    watched.tick()
    for _ in range(MOST_ATTEMPTS):
        [request] = watched.tick().run_requests or ()
        asked.append(request.run_key)
        key = str(request.partition_key)
        watched.running("ingest", dg.DagsterRunStatus.FAILURE, tags=request.tags)
    assert asked == [f"{key}:0", f"{key}:1", f"{key}:2"]
    assert f"{key} failed 3 times" in reason(watched.tick())
    watched.write("news/b.jsonl", "another file")
    watched.tick()
    [later] = watched.requested()
    assert [file.shard for file in Delivery.load(watched.home, later).files] == ["news/a.jsonl", "news/b.jsonl"]


@pytest.mark.parametrize("job", ["ingest", "curate"])
def test_files_wait_while_a_run_reads_the_corpus(watched: Watched, job: str) -> None:
    watched.write("news/a.jsonl", "a text that comes in the middle of a run")
    run = watched.running(job)
    watched.tick()
    assert "waiting for runs in progress" in reason(watched.tick())
    watched.instance.delete_run(run)
    assert len(watched.requested()) == 1


def test_the_cursor_holds_what_was_seen(watched: Watched) -> None:
    path = watched.write("news/a.jsonl", "a text")
    watched.tick()
    status = path.stat()
    assert json.loads(watched.cursor or "") == {"news/a.jsonl": [status.st_size, status.st_mtime_ns]}


def test_a_mistake_in_the_configuration_surfaces_in_the_tick(watched: Watched) -> None:
    save_config(Config(), watched.home.config)
    watched.home.config.write_text("[corpuss]\nroot = 'x'\n")
    with pytest.raises(UserError, match="unknown key 'corpuss'"):
        watched.tick()


def test_a_look_publishes_nothing_and_waits_for_no_lock(watched: Watched) -> None:
    watched.write("news/a.jsonl", "a text that a run is writing just now")
    store = open_store(watched.home)
    with store.write():
        pass
    assert store.publish()
    before = watched.home.published.stat().st_ino
    with store.write() as connection:
        connection.execute("INSERT INTO meta (key, value) VALUES ('a run', 'writes')")
        watched.tick()
    watched.tick()
    assert watched.home.published.stat().st_ino == before  # publishing swaps in another file


def test_locations_without_any_file_withdraw_nothing_by_themselves(watched: Watched) -> None:
    path = watched.write("news/a.jsonl", "the only file")
    watched.tick()
    [key] = watched.requested()
    watched.execute(key)
    path.unlink()
    assert watched.requested() == []
