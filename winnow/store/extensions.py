"""DuckDB's extensions, from wheels of the Python package index: nothing is fetched while Winnow runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import duckdb

from winnow.errors import UserError

NEEDED_BY = {
    "ducklake": "store.backend = 'lake'",
    "sqlite_scanner": "store.backend = 'lake'",
    "postgres_scanner": "store.catalog = 'postgres:...'",
    "httpfs": "store.data on S3",
}


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load a DuckDB extension from its wheel. Raises :class:`UserError` when the extra is not installed."""
    try:
        package = importlib.import_module(f"duckdb_extension_{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"{NEEDED_BY[name]} needs the DuckDB extension {name}: install it with pip install 'winnow[lake]'"
        ) from error
    folder = Path(str(package.__file__)).parent / "extensions" / f"v{duckdb.__version__}"
    path = folder / f"{name}.duckdb_extension"
    if not path.exists():
        raise UserError(f"{package.__name__} has no {name} for DuckDB {duckdb.__version__}; install duckdb==1.5.5")
    connection.execute(f"LOAD '{str(path).replace(chr(39), chr(39) * 2)}'")
