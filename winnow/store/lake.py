"""The working store as DuckLake: a catalog in SQLite or Postgres, data as Parquet in a folder or on S3."""

from __future__ import annotations

from contextlib import AbstractContextManager

import duckdb

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.connections import SETTINGS, configure, quoted
from winnow.store.extensions import load_extension
from winnow.store.faults import explained
from winnow.store.postgres import Postgres
from winnow.store.remote import is_remote
from winnow.store.storage import data_root
from winnow.store.turns import file_turn


class LakeBackend:
    """What both catalogs share: readers never wait, and each sees one snapshot.

    ``catalog`` is what DuckLake attaches, ``scanner`` the extension that opens it.
    """

    name = "lake"
    catalog: str
    scanner: str
    options = ""

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        self.home, self.settings = home, settings
        self.data = f"{data_root(home, settings)}/lake"
        if is_remote(self.data) and not self.data.startswith("s3://"):
            raise UserError(
                f"store.data = {settings.data!r}: a lake's data lies in a folder or on S3 (s3://bucket/prefix)"
            )

    def open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        self.home.store.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(":memory:", config=dict(SETTINGS))
        try:
            configure(connection, self.settings, self.home.scratch)
            for extension in ("ducklake", self.scanner):
                load_extension(connection, extension)
            with explained(self.data):
                self.attach(connection, read_only)
            connection.execute("SET ducklake_max_retry_count = 100")
            connection.execute("USE lake")
        except BaseException:
            connection.close()
            raise
        return connection

    def attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        # ATTACH takes no parameters. Files are listed relative to the data path, so that data can be moved: the path
        # that counts is the configured one.
        options = f"DATA_PATH '{quoted(self.data)}', OVERRIDE_DATA_PATH true{self.options}"
        if read_only:
            options += ", READ_ONLY"
        connection.execute(f"ATTACH 'ducklake:{quoted(self.catalog)}' AS lake ({options})")


class SqliteLake(LakeBackend):
    """The catalog is a SQLite file in the home: for the processes of one machine."""

    scanner = "sqlite_scanner"
    # The journal mode stays with the catalog: with WAL a reader's snapshot does not stop a writer's commit.
    options = ", META_JOURNAL_MODE 'WAL', META_BUSY_TIMEOUT 5000"

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        super().__init__(home, settings)
        self.path = home.store / "catalog.sqlite"
        self.catalog = f"sqlite:{self.path}"

    def exists(self) -> bool:
        return self.path.exists()

    def turn(self, deadline_seconds: float) -> AbstractContextManager[None]:
        return file_turn(self.home.store, deadline_seconds)


class PostgresLake(LakeBackend):
    """The catalog is a Postgres database: for processes of several machines, which share ``store.data`` too."""

    scanner = "postgres_scanner"

    def __init__(self, home: Home, settings: StoreSettings) -> None:
        super().__init__(home, settings)
        self.database = Postgres.parse(settings.catalog)
        self.catalog = f"postgres:{self.database.dsn}"
        self._exists = False

    def exists(self) -> bool:
        self._exists = self._exists or self.database.has_lake()
        return self._exists

    def turn(self, deadline_seconds: float) -> AbstractContextManager[None]:
        return self.database.turn(deadline_seconds)

    def attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        try:
            super().attach(connection, read_only)
        except duckdb.IOException as error:
            raise self.database.explain(error) or error from error
