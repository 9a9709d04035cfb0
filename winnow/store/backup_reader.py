"""What a restore takes from a backup: every file is checked against the index while it is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.errors import UserError
from winnow.store.connections import quoted
from winnow.store.part_files import copy_file
from winnow.store.store import Store, get_meta, set_meta


class BackupReader:
    """Copies what a backup holds into the places of a new home.

    ``placed`` are the parts (kind, digest) that it has put into the storage so far, ``committing`` tells that what the
    catalog holds is its doing.
    """

    def __init__(self, target: Path, record: dict[str, Any]) -> None:
        self.target, self.record = target, record
        self.folder = target / "backups" / record["name"]
        self.files = self.bytes = 0
        self.placed: list[tuple[str, str]] = []
        self.committing = False

    def _copy(self, source: Path, place: Path, size: int, expected: str) -> None:
        """Copy a file whose SHA-256, cut to the length of ``expected``, has to be that."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = copy_file(source, place)
        except FileNotFoundError as error:
            raise UserError(f"{source} is missing: the backup {self.record['name']} is damaged") from error
        if found[: len(expected)] != expected:
            raise UserError(f"{source} was changed after it was written: the backup {self.record['name']} is damaged")
        self.files, self.bytes = self.files + 1, self.bytes + size

    def files_into(self, work: Path) -> None:
        for file in self.record["files"]:
            self._copy(self.target / "files" / file["sha256"], work / file["path"], file["bytes"], file["sha256"])

    def tables_into(self, copies: Path) -> None:
        """Copy the tables. Raises :class:`UserError` when they need a part that the backup lacks."""
        for name, file in self.record["tables"].items():
            source = self.folder / "tables" / f"{name}.parquet"
            self._copy(source, copies / f"{name}.parquet", file["bytes"], file["sha256"])
        try:
            live, kept = (pq.read_table(copies / f"{name}.parquet").to_pydict() for name in ("parts", "snapshots"))
            named = pq.read_table(copies / "manifests.parquet")["snapshot"].to_pylist()
            needed = {*zip(live["kind"], live["part"], strict=True), *zip(kept["kind"], kept["part"], strict=True)}
        except (pa.ArrowException, LookupError, OSError) as error:
            raise UserError(f"{self.folder / 'tables'}: the lists of parts cannot be read ({error})") from error
        held = {(part["kind"], part["digest"]) for part in self.record["parts"]}
        digests = {digest for _, digest in held}
        lacking = {digest for _, digest in needed - held}
        lacking |= {digest for listed in named for digest in listed or () if digest not in digests}
        if lacking:
            raise UserError(
                f"the backup {self.record['name']} lacks {len(lacking)} parts that its tables need, {min(lacking)} "
                "among them: restore another with --backup NAME"
            )

    def parts_into(self, store: Store) -> None:
        for part in self.record["parts"]:
            kind, digest = part["kind"], part["digest"]
            temporary = store.storage.temporary(kind)
            try:
                self._copy(self.target / "parts" / kind / f"{digest}.parquet", temporary, part["bytes"], digest)
                self.placed.append((kind, digest))
                store.storage.put(temporary, kind, digest)
            finally:
                temporary.unlink(missing_ok=True)

    def commit(self, store: Store, copies: Path) -> None:
        """Make every table as it was, in one transaction; the first read or write brings an older schema forward."""
        with store.backend.turn(store.settings.lock_wait_seconds):
            if store.backend.exists():
                raise UserError("another process made a store in the catalog that [store] names: name another catalog")
            self.committing = True
            connection = store.backend.open(False)
            try:
                connection.execute("BEGIN")
                for name in self.record["tables"]:
                    rows = quoted(str(copies / f"{name}.parquet"))
                    connection.execute(f"CREATE TABLE \"{name}\" AS FROM read_parquet('{rows}')")
                if (get_meta(connection, "data") or "") != store.settings.data:  # where its readers find the parts
                    set_meta(connection, "data", store.settings.data)
                connection.execute("COMMIT")
            finally:
                connection.close()
