"""Steps of two processes in one home wait for each other, even where both claimed the pool's only place."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resources.turns import one_at_a_time
from resources.workspace import Workspace


@one_at_a_time
def returning(context: Any, workspace: Workspace) -> str:
    return context.step()


@one_at_a_time
def yielding(context: Any, workspace: Workspace) -> Any:
    yield context.step()


STEPS = {"returning": returning, "yielding": lambda *given: next(iter(yielding(*given)))}


def compute(kind: str, home: str, entered: Event, go_on: Event) -> None:
    def step() -> str:
        entered.set()
        go_on.wait(60)
        return "done"

    STEPS[kind](SimpleNamespace(step=step), Workspace(home=home))


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("second", STEPS)
def test_a_step_of_another_process_begins_when_the_first_has_ended(tmp_path: Path, first: str, second: str) -> None:
    forked = multiprocessing.get_context("fork")
    began, go_on, began_too, at_once = (forked.Event() for _ in range(4))
    at_once.set()
    here = forked.Process(target=compute, args=(first, str(tmp_path), began, go_on))
    there = forked.Process(target=compute, args=(second, str(tmp_path), began_too, at_once))
    here.start()
    assert began.wait(60)
    there.start()
    assert not began_too.wait(0.5)
    go_on.set()
    assert began_too.wait(60)
    for process in (here, there):
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_that_fails_or_is_killed_lets_its_turn_go(tmp_path: Path, kind: str) -> None:
    def failing() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        STEPS[kind](SimpleNamespace(step=failing), Workspace(home=str(tmp_path)))
    forked = multiprocessing.get_context("fork")
    began, never = forked.Event(), forked.Event()
    killed = forked.Process(target=compute, args=(kind, str(tmp_path), began, never))
    killed.start()
    assert began.wait(60)
    killed.kill()
    killed.join()
    started = time.monotonic()
    assert STEPS[kind](SimpleNamespace(step=lambda: "done"), Workspace(home=str(tmp_path))) == "done"
    assert time.monotonic() - started < 30


def test_steps_of_two_homes_do_not_wait_for_each_other(tmp_path: Path) -> None:
    found = []

    def step() -> str:
        found.append(returning(SimpleNamespace(step=lambda: "inner"), Workspace(home=str(tmp_path / "b"))))
        return "outer"

    found.append(returning(SimpleNamespace(step=step), Workspace(home=str(tmp_path / "a"))))
    assert found == ["inner", "outer"]
