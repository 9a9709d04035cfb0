"""One state of the store to work on for as long as it takes, keeping nobody from writing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import duckdb

from winnow.store.backends import FileBackend
from winnow.store.connections import SETTINGS, configure
from winnow.store.publish import copy_state
from winnow.store.store import Connection, Store


@contextmanager
def frozen(store: Store, writable: bool = False) -> Iterator[Connection]:
    """Open one state of the store: every table that lives in it, no part.

    A file is copied, since whoever reads it keeps writers out; a lake is read in one transaction. ``writable``: a copy
    in any case, to make views and tables in.
    """
    if not writable and not isinstance(store.backend, FileBackend):
        with store.read() as connection:
            yield connection
        return
    store.home.scratch.mkdir(parents=True, exist_ok=True)
    path = store.home.scratch / f"state-{uuid.uuid4().hex}.duckdb"
    try:
        with store.read() as connection:
            copy_state(store, connection, path)
        with closing(duckdb.connect(path, config=dict(SETTINGS))) as connection:
            configure(connection, store.settings, store.home.scratch)
            yield connection
    finally:
        for left in (path, path.with_name(path.name + ".wal")):
            left.unlink(missing_ok=True)
