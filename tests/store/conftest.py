"""Stores on both backends, and other processes that use them, for the tests of the store itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store import Store

LAKE = all(importlib.util.find_spec(f"duckdb_extension_{name}") for name in ("ducklake", "sqlite_scanner"))
ROOT = Path(__file__).parents[2]
PREAMBLE = """
import sys, time
from pathlib import Path
from typing import Literal
import duckdb, pyarrow as pa
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.store.parts import PartWriter
from winnow.store.store import Store, add_parts, insert, insert_row
store = Store(Home(Path(sys.argv[1])), StoreSettings(backend=sys.argv[2], lock_wait_seconds=60))
def ready():
    print("ready", flush=True)
"""


@pytest.fixture(
    params=[
        "file",
        pytest.param("lake", marks=pytest.mark.skipif(not LAKE, reason="the DuckDB extension wheels are absent")),
    ]
)
def backend(request: pytest.FixtureRequest) -> Literal["file", "lake"]:
    return request.param


@pytest.fixture
def store(tmp_path: Path, backend: Literal["file", "lake"]) -> Store:
    """A store in a folder whose name needs quoting."""
    return Store(Home(tmp_path / 'it\'s a "home" of, mine'), StoreSettings(backend=backend, lock_wait_seconds=20))


@pytest.fixture
def process(store: Store) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a Python process that has the same ``store``; it lives no longer than the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PREAMBLE + code, str(store.home.root), store.settings.backend]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT))
        return started[-1]

    yield start
    for other in started:
        if other.poll() is None:
            other.kill()
        other.communicate()
