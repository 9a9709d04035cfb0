"""A Postgres database as the lake's catalog: its connection string, its errors, and the turn to write held in it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from winnow.errors import UserError
from winnow.store.connections import SETTINGS, quoted
from winnow.store.extensions import load_extension
from winnow.store.turns import is_busy, waiting

PREFIX = "postgres:"
PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s'\\]+))(?=\s|$)\s*")
TURN = 0x77696E6E6F77  # "winnow": the advisory lock that stands for the turn, one for each database
HOLDER = f"""
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND datname = current_database()
      AND database = datid AND classid = {TURN >> 32} AND objid = {TURN & 0xFFFFFFFF}
"""  # noqa: S608 - two numbers of our own


@dataclass(frozen=True)
class Postgres:
    """A database, as a libpq connection string of ``keyword=value`` pairs without a password."""

    dsn: str

    @classmethod
    def parse(cls, catalog: str) -> Postgres:
        """Take ``postgres:dbname=... host=...``. Raises :class:`UserError` for another form, or a password in it."""
        dsn = catalog.removeprefix(PREFIX).strip()
        keys, told, at = [], "", 0
        while at < len(dsn) and (pair := PAIR.match(dsn, at)):
            keys.append(pair[1])
            told += "" if pair[1] == "passfile" else pair[0]  # the name of a file is no secret
            at = pair.end()
        if re.search(r"passw|//[^\s/]*:[^\s/]*@", (told + dsn[at:]).lower()):
            raise UserError(
                "store.catalog holds a password, which does not belong in winnow.toml: "
                "set PGPASSWORD in the environment or write ~/.pgpass"
            )
        if at < len(dsn) or not keys or not dsn.isprintable():
            raise UserError(
                "store.catalog: after 'postgres:' write libpq's keyword=value pairs, such as "
                "'postgres:dbname=winnow host=/var/run/postgresql user=winnow'"
            )
        return cls(dsn)

    def explain(self, error: duckdb.Error) -> UserError | None:
        """Return the error to raise when the database cannot be reached or entered, else None."""
        _, found, reason = str(error).rpartition("Unable to connect to Postgres at ")
        if not found or is_busy(error):
            return None
        reason = " ".join(reason.removeprefix(f'"{self.dsn}": ').split())
        return UserError(
            f"store.catalog = 'postgres:{self.dsn}': {reason}. Check that the server runs at that host and port "
            "(pg_isready), that database and role exist, and that PGPASSWORD or ~/.pgpass has the password"
        )

    @contextmanager
    def attached(self, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the database under ``name`` to an empty connection. Raises :class:`UserError` when out of reach."""
        connection = duckdb.connect(":memory:", config=dict(SETTINGS))
        try:
            load_extension(connection, "postgres_scanner")
            who = f"winnow PID {os.getpid()} on {socket.gethostname()}"[:60].replace("'", "").replace("\\", "")
            text = f"{self.dsn} application_name='{who}'"
            try:
                connection.execute(f"ATTACH '{quoted(text)}' AS {name} (TYPE postgres)")
            except duckdb.IOException as error:
                raise Postgres(text).explain(error) or error from error
            yield connection
        finally:
            connection.close()

    def has_lake(self) -> bool:
        """Return whether a lake's catalog was made in the database; makes nothing."""
        query = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'ducklake_metadata'"
        with self.attached("catalog_database") as connection:
            return _ask(connection, "catalog_database", query) != [(0,)]

    @contextmanager
    def turn(self, deadline_seconds: float) -> Iterator[None]:
        """Hold the turn to write for all machines. Raises :class:`UserError` naming the holder at the deadline.

        It is an advisory lock of a transaction on a connection of its own: it ends with the connection, so that a
        killed process lets go at once, and a machine that vanished after a minute (TCP keepalive).
        """
        with self.attached("turn") as connection:
            waiting(lambda: _take(connection), deadline_seconds)
            yield


def _take(connection: duckdb.DuckDBPyConnection) -> None:
    """Take the lock or raise ``BlockingIOError``; DuckDB would spin while Postgres makes it wait."""
    settings = {
        "idle_in_transaction_session_timeout": "0",
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    calls = ", ".join(f"set_config('{name}', '{value}', true) AS {name}" for name, value in settings.items())
    connection.execute("BEGIN")
    if _ask(connection, "turn", f"SELECT pg_try_advisory_xact_lock({TURN}) AS taken, {calls}")[0][0]:
        return
    holder = _ask(connection, "turn", HOLDER)
    connection.execute("ROLLBACK")
    raise BlockingIOError(f"it is being written by {holder[0][0] if holder else 'another process'}")


def _ask(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> list[tuple[object, ...]]:
    """Run a query in Postgres itself, in the connection's transaction."""
    return connection.execute("SELECT * FROM postgres_query($name, $query)", {"name": name, "query": query}).fetchall()
