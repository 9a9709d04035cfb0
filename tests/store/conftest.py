"""Stores on every backend, and other processes that use them, for the tests of the store itself."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import AbsentError, cluster, psql
from s3_server import S3Server, s3_server

from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store import Store


def _absent(*names: str) -> pytest.MarkDecorator:
    wheels = all(importlib.util.find_spec(f"duckdb_extension_{name}") for name in names)
    return pytest.mark.skipif(not wheels, reason=f"the DuckDB extension wheels {', '.join(names)} are absent")


ROOT = Path(__file__).parents[2]
LAKE = _absent("ducklake", "sqlite_scanner")
POSTGRES = _absent("ducklake", "postgres_scanner")
S3 = _absent("ducklake", "sqlite_scanner", "httpfs")
ONE_LAKE = pytest.mark.parametrize(
    "backend",
    ["file", pytest.param("lake", marks=LAKE)]
    + ([pytest.param("postgres", marks=POSTGRES)] if "WINNOW_FAULTS" in os.environ else []),
    indirect=True,
)
"""For what takes long in a lake and asks no more of a catalog in Postgres than other tests do."""
PREAMBLE = """
import sys, time
from pathlib import Path
import duckdb, pyarrow as pa
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.store.parts import PartWriter
from winnow.store.store import Store, add_parts, insert, insert_row
store = Store(Home(Path(sys.argv[1])), StoreSettings.model_validate_json(sys.argv[2]))
def ready():
    print("ready", flush=True)
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The socket's folder of a Postgres cluster; skips where there can be none."""
    try:
        with cluster() as socket:
            yield socket
    except AbsentError as why:
        pytest.skip(str(why))


_numbers = itertools.count()


@pytest.fixture
def catalog(postgres: Path) -> str:
    """The cluster's database, empty, as ``store.catalog`` names it."""
    psql(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL",
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
    )
    return f"postgres:dbname=postgres host='{postgres}' user=winnow"


@pytest.fixture(scope="session")
def _s3() -> Iterator[S3Server]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_server() as server:
        server.make_bucket("data")
        yield server


@pytest.fixture
def s3(_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A healthy S3 server with a bucket ``data``; the environment leads to it, other processes' too."""
    _s3.heal()
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "it's a key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "and/a+secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3.endpoint)
    return _s3


@pytest.fixture
def data(s3: S3Server) -> str:
    """A new prefix of the bucket, as ``store.data`` names it."""
    return f"s3://data/it's (no.{next(_numbers)})"


@pytest.fixture(
    params=["file", pytest.param("lake", marks=LAKE), pytest.param("postgres", marks=POSTGRES)],
)
def backend(request: pytest.FixtureRequest) -> str:
    """``file``, ``lake`` (its catalog in SQLite) or ``postgres`` (a lake whose catalog is there)."""
    return request.param


@pytest.fixture
def settings(request: pytest.FixtureRequest, backend: str) -> StoreSettings:
    if backend == "file":
        return StoreSettings(lock_wait_seconds=20)
    catalog = request.getfixturevalue("catalog") if backend == "postgres" else "sqlite"
    return StoreSettings(backend="lake", catalog=catalog, lock_wait_seconds=20)


@pytest.fixture
def store(tmp_path: Path, settings: StoreSettings) -> Store:
    """A store in a folder whose name needs quoting."""
    return Store(Home(tmp_path / 'it\'s a "home" [of], mine*'), settings)


@pytest.fixture
def process(store: Store) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a Python process that has the same ``store``; it lives no longer than the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        settings = store.settings.model_copy(update={"lock_wait_seconds": 60.0}).model_dump_json()
        command = [sys.executable, "-c", PREAMBLE + code, str(store.home.root), settings]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT))
        return started[-1]

    yield start
    for other in started:
        if other.poll() is None:
            other.kill()
        other.communicate()
