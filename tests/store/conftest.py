"""Both backends of the store for the tests of the store itself."""

from __future__ import annotations

import importlib.util

import pytest

LAKE = all(importlib.util.find_spec(f"duckdb_extension_{name}") for name in ("ducklake", "sqlite_scanner"))


@pytest.fixture(
    params=[
        "file",
        pytest.param("lake", marks=pytest.mark.skipif(not LAKE, reason="the DuckDB extension wheels are absent")),
    ]
)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param
