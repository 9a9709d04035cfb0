"""The metadata store: the only package that opens DuckDB."""

from winnow.store.store import Store, open_store

__all__ = ["Store", "open_store"]
