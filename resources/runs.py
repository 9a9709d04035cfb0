"""Runs whose process is gone: Dagster counts them as running, and keeps their place in the pool, until it is told.

A process holds a lock file for the run that it computes. Whatever ends the process (kill -9, the memory killer, a power
cut) lets the lock go, so a run that is under way by its status and whose lock is free is dead.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import dagster as dg

from winnow.home import Home

log = logging.getLogger(__name__)

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
SECONDS_TO_BEGIN = 120.0
"""A run that has no lock file so long after it was created never came to take one."""

_held: list[IO[str]] = []


def hold(home: Home, run_id: str) -> None:
    """Take the lock of a run for as long as this process lives, or until it computes another run."""
    folder = home.dagster / "alive"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{run_id}"
    file = temporary.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    temporary.replace(folder / run_id)  # nobody sees it without its lock
    _held[:] = [file]


def bury_dead_runs(instance: dg.DagsterInstance, home: Home) -> list[str]:
    """Report the runs whose process is gone as failed, give back their places in pools, and return their ids."""
    buried = []
    under_way = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        under_way.add(run.run_id)
        path = home.dagster / "alive" / run.run_id
        created = record.create_timestamp.timestamp()
        if _is_free(path) or (not path.exists() and time.time() - created > SECONDS_TO_BEGIN):
            instance.report_run_failed(run, "the process that computed this run is gone; what it committed stays")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            log.warning("run %s of %s is dead: its process is gone", run.run_id, run.job_name)
            buried.append(run.run_id)
    for path in (home.dagster / "alive").glob("*"):
        if path.name not in under_way and not path.name.startswith(".") and _is_free(path):
            path.unlink(missing_ok=True)
    return buried


@contextmanager
def burying(instance: dg.DagsterInstance, home: Home, seconds: float = 10.0) -> Iterator[None]:
    """Bury dead runs now and every so often while the block runs: it may be waiting for the place of one."""
    bury_dead_runs(instance, home)
    over = threading.Event()

    def look() -> None:
        while not over.wait(seconds):
            try:
                bury_dead_runs(instance, home)
            except Exception:  # a database that is busy now is looked at again
                log.debug("could not look for dead runs", exc_info=True)

    threading.Thread(target=look, name="burying", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _is_free(path: Path) -> bool:
    """Return whether there is a lock file that nobody holds."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True
