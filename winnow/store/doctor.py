"""Is everything true of the store that ought to be? What checks are, and how they are made.

A check is a small function that yields a sentence for every thing that is wrong. Checks look at one consistent copy of
the tables, so they hold no lock, stream what they read and may take their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from winnow.config import Config
from winnow.errors import UserError
from winnow.store.frozen import frozen
from winnow.store.storage import StoredPart
from winnow.store.store import Connection, Store, live_parts

EXAMPLES = 5
BATCH_ROWS = 1_000


class Patient:
    """What the checks look at: a copy of the store's tables, the parts that lie in the storage, the configuration."""

    def __init__(self, store: Store, config: Config, connection: Connection) -> None:
        self.store, self.config, self.connection = store, config, connection

    @cached_property
    def live(self) -> dict[str, list[str]]:
        """The live parts' digests by kind."""
        return live_parts(self.connection)

    @cached_property
    def stored(self) -> dict[tuple[str, str], StoredPart]:
        """Every part that lies in the storage, by kind and digest."""
        return {(part.kind, part.digest): part for part in self.store.storage.list()}

    def rows(self, query: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """Yield a query's rows, a few at a time; parts-backed tables are there after :meth:`see`."""
        cursor = self.connection.cursor()  # several queries may be read at once
        try:
            cursor.execute(query, parameters)
            while found := cursor.fetchmany(BATCH_ROWS):
                yield from found
        finally:
            cursor.close()

    def see(self, *names: str) -> None:
        """Make views of parts-backed tables."""
        for name in names:
            self.connection.execute(f"CREATE OR REPLACE VIEW {name} AS {self.store.view(name, self.live)}")


@dataclass(frozen=True)
class Check:
    """One check: what it finds ``what``, and the ``mend``. ``note``: what it finds is worth saying and no failure."""

    name: str
    what: str
    mend: str
    find: Callable[[Patient], Iterable[str]]
    deep: bool
    note: bool


@dataclass(frozen=True)
class Examined:
    """What a check found: how many things, the first few as sentences, and how to mend them."""

    name: str
    what: str
    found: int
    examples: list[str]
    mend: str
    note: bool = False

    @property
    def ok(self) -> bool:
        return not self.found or self.note


CHECKS: dict[str, Check] = {}


def check(mend: str, *, deep: bool = False, note: bool = False) -> Callable[..., Callable[[Patient], Iterable[str]]]:
    """Register a check under its function's name; its docstring says what holds of a healthy store."""

    def register(find: Callable[[Patient], Iterable[str]]) -> Callable[[Patient], Iterable[str]]:
        what = (find.__doc__ or "").strip().rstrip(".")
        CHECKS[find.__name__] = Check(find.__name__, what, mend, find, deep, note)
        return find

    return register


def examine(store: Store, config: Config, checks: Iterable[Check]) -> list[Examined]:
    """Make these checks.

    Raises :class:`UserError` when there is no store, or it stays locked.
    """
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: run `winnow run` first, or set WINNOW_HOME")
    try:
        with frozen(store, writable=True) as connection:
            patient = Patient(store, config, connection)
            return [_made(one, patient) for one in checks]
    except duckdb.Error as error:
        told = " ".join(str(error).split())
        mend = "restore the newest backup into a new home: winnow restore DIR --home NEW"
        return [Examined("store_opens", "The store can be opened and read", 1, [told], mend)]


def _made(one: Check, patient: Patient) -> Examined:
    try:
        findings = iter(one.find(patient))
        examples = list(islice(findings, EXAMPLES))
        found = len(examples) + sum(1 for _ in findings)
    except (duckdb.Error, pa.ArrowException, OSError, LookupError, ValueError) as error:
        return Examined(one.name, one.what, 1, [f"could not be checked: {' '.join(str(error).split())}"], one.mend)
    return Examined(one.name, one.what, found, examples, one.mend, one.note)
