"""A run whose process is gone is found out, and gives its place to the next; one that is at work is left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import definitions
from resources import runs
from resources.runs import bury_dead_runs, burying
from sensors.jobs import active_runs
from winnow.home import Home

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from resources.runs import hold
from winnow.home import Home
hold(Home(Path(sys.argv[1])), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


class Case:
    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = Home(root / "home"), instance
        instance.event_log_storage.set_concurrency_slots("store", 1)

    def begin(self) -> str:
        """Have a run under way that has taken the pool's only place; return its id."""
        run = self.instance.create_run_for_job(
            definitions.defs.resolve_job_def("train"), status=dg.DagsterRunStatus.STARTED
        )
        self.claim(run.run_id)
        return run.run_id

    def claim(self, run_id: str) -> bool:
        """Ask for the pool's place as a step does."""
        return self.instance.event_log_storage.claim_concurrency_slot("store", run_id, "train_stage").is_claimed

    def process(self, run_id: str) -> subprocess.Popen[str]:
        """Start a process that computes the run."""
        command = [sys.executable, "-c", HOLD, str(self.home.root), run_id]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert started.stdout is not None and started.stdout.readline() == "held\n"
        return started

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.from_config(str(tmp_path / "instance")) as instance:
        yield Case(tmp_path, instance)


def test_a_killed_run_fails_and_its_place_in_the_pool_is_free_at_once(case: Case) -> None:
    run = case.begin()
    process = case.process(run)
    waiting = case.instance.create_run_for_job(definitions.defs.resolve_job_def("train")).run_id
    assert not case.claim(waiting)
    assert bury_dead_runs(case.instance, case.home) == []
    assert case.status(run) == dg.DagsterRunStatus.STARTED
    process.kill()
    process.communicate()
    assert not case.claim(waiting)  # Dagster by itself would wait for ever
    assert bury_dead_runs(case.instance, case.home) == [run]
    assert case.status(run) == dg.DagsterRunStatus.FAILURE
    assert case.claim(waiting)
    assert bury_dead_runs(case.instance, case.home) == []


def test_a_run_that_never_came_to_begin_is_dead_after_a_while(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    run = case.begin()
    assert bury_dead_runs(case.instance, case.home) == [] and active_runs(case.instance, "train") == 1
    monkeypatch.setattr(runs, "SECONDS_TO_BEGIN", 0.0)
    assert bury_dead_runs(case.instance, case.home) == [run]
    assert active_runs(case.instance, "train") == 0  # the sensors wait for nobody any more


def test_the_locks_of_ended_runs_are_cleared_away(case: Case) -> None:
    run = case.begin()
    case.process(run).communicate("")
    assert (case.home.dagster / "alive" / run).exists()
    bury_dead_runs(case.instance, case.home)
    bury_dead_runs(case.instance, case.home)
    assert not (case.home.dagster / "alive" / run).exists()


def test_a_run_that_waits_for_the_place_of_one_that_dies_gets_it(case: Case) -> None:
    run = case.begin()
    process = case.process(run)
    waiting = case.instance.create_run_for_job(definitions.defs.resolve_job_def("train")).run_id
    with burying(case.instance, case.home, seconds=0.05):
        assert not case.claim(waiting)
        process.kill()
        process.communicate()
        for _ in range(200):
            if case.claim(waiting):
                break
            runs.time.sleep(0.05)
        assert case.status(run) == dg.DagsterRunStatus.FAILURE
        assert case.claim(waiting)
