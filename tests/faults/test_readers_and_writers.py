"""Several processes write and others query the published file, and nobody notices anybody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fork_server import PROJECT
from tiny_world import ASKED, deliver_all, make_tiny_home, only_when_asked, tiny_config
from wholeness import problems

from winnow.store.store import open_store

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("WINNOW_SOAK_SECONDS", "4"))
WRITERS, READERS, KEEPERS = (4, 8, 2) if ASKED else (2, 4, 1)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=ENVIRONMENT
    )


def start_writers(home: Path, count: int, seconds: float) -> subprocess.Popen[str]:
    """Start writers and return when they have begun."""
    process = start("concurrent_runs.py", home, count, seconds)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def answers(process: subprocess.Popen[str], seconds: float) -> list[dict[str, Any]]:
    printed, _ = process.communicate(timeout=seconds)
    return [json.loads(line) for line in printed.splitlines()]


def soak(root: Path, backend: str, seconds: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what writers and readers say after writing and reading side by side."""
    config = tiny_config(backend)
    home = make_tiny_home(root / "home", config)
    deliver_all(home, config)
    open_store(home).publish()  # so that there is a file to open
    writers = start_writers(home.root, WRITERS, seconds)
    readers = [start("published_reader.py", home.root, "again") for _ in range(READERS - KEEPERS)]
    readers += [start("published_reader.py", home.root, "once") for _ in range(KEEPERS)]
    try:
        written = answers(writers, seconds + 300)
        read = [found for reader in readers for found in answers(reader, 60)]  # which ends their input
    finally:
        for process in (writers, *readers):
            process.kill()
            process.wait()
    assert problems(home) == []
    generation = int(open_store(home).query("SELECT value FROM meta WHERE key = 'generation'")[0][0])
    assert generation >= max(found["last"] for found in read)
    return written, read


def agreed(root: Path, backend: str, seconds: float) -> str:
    written, read = soak(root, backend, seconds)
    assert [found["errors"] for found in written] == [[]] * WRITERS
    assert [found["problems"] for found in read] == [[]] * READERS
    assert all(found["runs"] >= 3 for found in written)
    assert all(found["reads"] > 1 for found in read)
    assert max(found["states"] for found in read[:-KEEPERS]) > 1  # the file changed under the readers
    assert all(found["states"] == 1 for found in read[-KEEPERS:])
    return (
        f"{backend}: {WRITERS} writers made {sum(found['runs'] for found in written)} runs and {READERS} readers "
        f"{sum(found['reads'] for found in read)} reads of up to {max(found['states'] for found in read)} states in "
        f"{seconds:g} s; the slowest read took {max(found['slowest'] for found in read):.2f} s"
    )


@pytest.mark.slow
def test_readers_see_whole_states_that_only_go_forward_while_others_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = agreed(tmp_path, "file", SECONDS)
    with capsys.disabled():
        print(f"\n{said}")


@only_when_asked
@pytest.mark.parametrize("backend", ["file", "lake"])
def test_five_minutes_of_readers_and_writers(tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = agreed(tmp_path, backend, float(os.environ.get("WINNOW_SOAK_SECONDS", "300")))
    with capsys.disabled():
        print(f"\n{said}")
