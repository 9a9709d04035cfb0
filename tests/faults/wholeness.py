"""Is a store whole, and is it the same as another? Asked with the store's own tables, not with the stages' code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from winnow.config import load_config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest_file
from winnow.mixture.manifest_files import manifest_versions, verify_manifest
from winnow.stages.examining import examine
from winnow.store.parts import SNAPSHOT
from winnow.store.published import open_published
from winnow.store.schema import Table, tables
from winnow.store.store import Store, live_parts
from winnow.train.checkpoint import problem

Connection = duckdb.DuckDBPyConnection

WHEN_AND_WHO = {
    "run_id", "delivered_at", "finished_at", "registered_at", "made_at", "added_at", "withdrawn_at", "environment",
    "snapshot",
}  # fmt: skip
"""Columns that say when, by which run and where, not what; a snapshot holds such columns of all tables."""

NOT_COMPARED = {"costs", "meta"}
"""What a run costs depends on how often it is killed.

``meta`` is compared without the number of writes and what tells two stores apart.
"""


# -- whole ------------------------------------------------------------------------------------------------------------


def problems(home: Home, doctor: bool = True) -> list[str]:
    """Return a sentence for everything that is wrong with a home: none after any fault, whatever was under way.

    ``doctor`` asks the product's own examination too.
    """
    found = [*_working_store(home), *_published(home), *_folders(home)]
    store = store_of(home)
    if doctor and store.backend.exists():
        found += [f"doctor, {one.name}: {one.examples}" for one in examine(store, deep=True) if not one.ok]
    return found


def _working_store(home: Home) -> list[str]:
    store = store_of(home)
    if not store.backend.exists():
        return []
    found: list[str] = []
    with store.read() as connection:
        for table in tables().values():
            if not table.parts and table.name != "costs":  # a stage may note its costs several times in a run
                found += _repeated(connection, table)
        found += _corpus(connection)
        live = live_parts(connection)
        listed = connection.execute("SELECT part, kind, rows, bytes FROM parts").fetchall()
        versions = connection.execute("SELECT version, digest, path, snapshot FROM manifests").fetchall()
    for part, kind, rows, size in listed:
        path = store.storage.path(kind, part)
        try:
            if digest_file(path)[: len(part)] != part or path.stat().st_size != size:
                found.append(f"part {kind}/{part}: its bytes are not those that name it")
            if pq.read_table(path).num_rows != rows:
                found.append(f"part {kind}/{part}: the list says {rows} rows")
        except (OSError, ValueError) as error:
            found.append(f"part {kind}/{part}: {error}")
    memory = [table.name for table in tables().values() if table.parts]
    with store.scratch("documents", *memory) as connection:
        for name in memory:
            if live.get(name):
                found += _repeated(connection, tables()[name])
        textless = connection.execute("SELECT count(*) FROM documents ANTI JOIN texts USING (doc_id)").fetchall()[0][0]
        if textless:
            found.append(f"{textless} documents have no text")
    for version, digest, path, snapshot in versions:
        check = verify_manifest(home.resolve(path))
        found += [f"manifest {version}: {problem}" for problem in check.problems]
        if check.ok:
            record = json.loads((home.resolve(path) / "manifest.json").read_text())
            if record["digest"] != digest:
                found.append(f"manifest {version}: its folder holds another digest")
            if record["snapshot"] != snapshot:
                found.append(f"manifest {version}: its folder names another snapshot than the store")
    return found


def _repeated(connection: Connection, table: Table) -> list[str]:
    keys = ", ".join(f'"{key}"' for key in table.key)
    query = f"SELECT count(*) FROM (SELECT 1 FROM {table.name} GROUP BY {keys} HAVING count(*) > 1)"
    count = connection.execute(query).fetchall()[0][0]
    return [f"{table.name}: {count} keys occur more than once"] if count else []


def _corpus(connection: Connection) -> list[str]:
    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query).fetchall()

    found = [
        f"shard {shard}: {records} records, {occurrences} occurrences (counted {counted}), {quarantined} quarantined "
        f"(counted {bad})"
        for shard, records, occurrences, quarantined, counted, bad in rows(
            """
            SELECT shard, records, occurrences, quarantined,
                   (SELECT count(*) FROM occurrences o WHERE o.shard = s.shard) AS counted,
                   (SELECT coalesce(sum(q.records), 0) FROM quarantine q WHERE q.shard = s.shard) AS bad
            FROM shards s
            WHERE records <> counted + bad OR records <> occurrences + quarantined
            """
        )
    ]
    wrong = rows(
        """
        SELECT count(*) FROM (SELECT doc_id, count(*) AS dup_count FROM occurrences GROUP BY doc_id) o
        FULL JOIN documents d USING (doc_id) WHERE o.dup_count IS DISTINCT FROM d.dup_count
        """
    )[0][0]
    if wrong:
        found.append(f"{wrong} documents do not fit the occurrences")
    for table, column in (("occurrences", "shard"), ("quarantine", "shard")):
        lost = rows(f"SELECT count(*) FROM {table} ANTI JOIN shards USING ({column})")[0][0]
        if lost:
            found.append(f"{lost} rows of {table} are of no shard")
    for table in tables().values():
        if table.document and not table.parts and table.name not in ("probes", "judged", "documents", "decisions"):
            lost = rows(f"SELECT count(*) FROM {table.name} ANTI JOIN documents USING ({table.document})")[0][0]
            if lost and table.name != "withdrawn":
                found.append(f"{lost} rows of {table.name} are of no document")
    return found


def _published(home: Home) -> list[str]:
    if not home.published.exists():
        return []
    try:
        with open_published(home) as connection:
            return published_problems(connection)
    except (duckdb.Error, UserError) as error:
        return [f"the published file: {error}"]


def published_problems(connection: Connection) -> list[str]:
    """Return what is wrong with one state of the published file, as a reader sees it."""

    def one(query: str) -> Any:
        return connection.execute(query).fetchall()[0][0]

    found = _corpus_of_reader(connection)
    documents = one("SELECT count(*) FROM documents")
    for what, count in (
        ("texts", one("SELECT count(*) FROM texts")),
        ("rows of scores_wide", one("SELECT count(*) FROM scores_wide")),
        ("distinct texts among the occurrences", one("SELECT count(DISTINCT doc_id) FROM occurrences")),
    ):
        if count != documents:
            found.append(f"published: {documents} documents, {count} {what}")
    for table in tables().values():
        if table.parts:
            one(f"SELECT count(*) FROM {table.name}")  # every file that a view names is there
    return found


def _corpus_of_reader(connection: Connection) -> list[str]:
    wrong = connection.execute(
        """
        SELECT shard FROM shards
        LEFT JOIN (SELECT shard, count(*) AS found FROM occurrences GROUP BY shard) USING (shard)
        LEFT JOIN (SELECT shard, sum(records) AS bad FROM quarantine GROUP BY shard) USING (shard)
        WHERE records <> coalesce(found, 0) + coalesce(bad, 0)
        """
    ).fetchall()
    return [f"published: the records of {shard} are not its occurrences and quarantined" for (shard,) in wrong]


def _folders(home: Home) -> list[str]:
    """Return what is half written under a name that is looked at; hidden names are nobody's until they are renamed."""
    found = []
    for version in manifest_versions(home.manifests):
        found += [f"folder {version}: {text}" for text in verify_manifest(home.manifests / version).problems]
    if home.checkpoints.is_dir():
        for folder in home.checkpoints.iterdir():
            if not folder.name.startswith(".") and (why := problem(folder)):
                found.append(f"checkpoint {folder.name}: {why}")
    for path in home.parts.rglob("*.parquet"):
        if not path.name.startswith(".") and digest_file(path)[: len(path.stem)] != path.stem:
            found.append(f"part {path.stem}: its bytes are not those that name it")
    return found


# -- the same ---------------------------------------------------------------------------------------------------------


def state(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of every table of the published file, sorted, without what says when and by whom."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with open_published(home) as connection:
        for name, table in tables().items():
            if table.internal or name in NOT_COMPARED:
                continue
            columns = ", ".join(f'"{column}"' for column, _, _ in table.columns if column not in WHEN_AND_WHO)
            rows = f"SELECT * FROM {name}"
            if any(column == "kind" for column, _, _ in table.columns):
                rows += f" WHERE NOT starts_with(kind, '{SNAPSHOT}')"
            found[name] = connection.execute(f"SELECT {columns} FROM ({rows}) ORDER BY ALL").fetchall()
        found["scores_wide"] = connection.execute("SELECT * FROM scores_wide ORDER BY ALL").fetchall()
        found["meta"] = connection.execute(
            "SELECT key, value FROM meta WHERE key NOT IN ('generation', 'home', 'store') ORDER BY ALL"
        ).fetchall()
    return found


def files(home: Home) -> dict[str, str]:
    """Return the digest of every file that a user or a later run relies on, by its place in the home."""
    store = store_of(home)
    with store.read() as connection:
        live = live_parts(connection)
    wanted = [
        store.storage.path(kind, part)
        for kind, parts in live.items()
        for part in parts
        if not kind.startswith(SNAPSHOT)
    ]
    for folder in (home.manifests, home.artifacts, home.checkpoints):
        wanted += [path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)]
    return {path.relative_to(home.root).as_posix(): _digest(path) for path in sorted(wanted)}


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _digest(path: Path) -> str:
    if path.name != "manifest.json":
        return digest_file(path)
    record = json.loads(path.read_text())
    for recorded in ("environment", "snapshot", "made_at", "checksum"):
        record.pop(recorded, None)
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return a sentence for every table or file that differs."""
    found = []
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            mine, other = ours.get(name), theirs.get(name)
            if isinstance(mine, list) and isinstance(other, list):  # only the rows that the other has not
                mine, other = [row for row in mine if row not in other], [row for row in other if row not in mine]
            found.append(f"{name}: {_short(mine)} <> {_short(other)}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:600]}..."


def store_of(home: Home) -> Store:
    return Store(home, load_config(home.config).store)
