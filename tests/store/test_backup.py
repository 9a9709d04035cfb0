"""A backup holds the whole of a store, and a restore gives it back in any backend, or nothing."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kept import TEXTS, add_manifest, failing, filled, manifests_verify, small
from small_corpus import SmallCorpus

from winnow.config import Store as StoreSettings
from winnow.config import load_config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest
from winnow.store.backup import make_backup
from winnow.store.backup_index import backup_names, read_index
from winnow.store.garbage import collect_garbage
from winnow.store.remote import filesystem
from winnow.store.restore import restore_backup
from winnow.store.schema import tables
from winnow.store.snapshots import open_at
from winnow.store.store import Connection, Store, get_meta, insert_row

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in one file, with a manifest of documents that were replaced since, and a backup beside it."""
    root = tmp_path_factory.mktemp("base")
    corpus = filled(root / "home")
    add_manifest(corpus, "v0001")
    corpus.write("web/a.jsonl", [{"text": TEXTS[6]}])
    corpus.deliver()
    make_backup(corpus.store, root / "backups")
    return root


@pytest.fixture
def home(base: Path) -> SmallCorpus:
    return small(base / "home", StoreSettings(lock_wait_seconds=20))


@pytest.fixture
def backups(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base / "backups", tmp_path / "backups")


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table, the internal ones and those in parts too."""
    found = {}
    with store.read(*(table.name for table in tables().values() if table.parts)) as connection:
        for table in tables().values():
            columns = ", ".join(f'"{name}"' for name, _, _ in table.columns)
            rows = connection.execute(f"SELECT {columns} FROM {table.name} ORDER BY ALL")
            found[table.name] = rows.fetchall()
    found["meta"] = [row for row in found["meta"] if row[0] != "data"]  # where the parts lie
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def restored_like(found: SmallCorpus, before: SmallCorpus) -> None:
    expected, got = everything(before.store), everything(found.store)
    for table, rows in expected.items():
        assert got[table] == rows, table
    for folder in ("manifests", "artifacts", "checkpoints"):
        assert files(found.home.root / folder) == files(before.home.root / folder) != {}
    assert failing(found, deep=True) == {}
    assert manifests_verify(found)
    assert found.home.published.exists()
    with open_at(found.home, "v0001") as then:
        assert (TEXTS[0],) in then.execute("SELECT text FROM texts").fetchall()


def test_a_store_in_one_file_comes_back_as_it_was(home, backups, tmp_path):
    done = restore_backup(backups, Home(tmp_path / "new" / "home"))
    assert (done.backend, done.name) == ("file", backup_names(backups)[0])
    restored_like(small(tmp_path / "new" / "home", home.config.store), home)
    assert (tmp_path / "new" / "home" / "winnow.toml").read_text() == home.home.config.read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["home"]


def test_a_store_goes_to_a_lake_and_back(home, store, tmp_path):
    """The home's own winnow.toml says where to; ``file`` is a lake's way back."""
    if store.settings.backend == "file":
        pytest.skip("this is about the lakes")
    lake = store.home
    lake.root.mkdir(parents=True)
    lake.config.write_text(f'[store]\nbackend = "lake"\ncatalog = "{store.settings.catalog}"\n')
    make_backup(home.store, tmp_path / "first")
    assert restore_backup(tmp_path / "first", lake).backend == "lake"
    there = small(lake.root, load_config(lake.config).store)
    assert there.store.backend.name == "lake"
    restored_like(there, home)
    make_backup(there.store, tmp_path / "second")
    back = restore_backup(tmp_path / "second", Home(tmp_path / "back"), backend="file")
    assert back.backend == "file"
    restored_like(small(tmp_path / "back", StoreSettings(lock_wait_seconds=20)), home)
    if store.settings.catalog != "sqlite":
        lake.root.rename(tmp_path / "aside")
        lake.root.mkdir()
        shutil.copy(tmp_path / "aside" / "winnow.toml", lake.config)
        with pytest.raises(UserError, match="holds a store already"):
            restore_backup(tmp_path / "first", lake)


def test_parts_on_s3_are_kept_in_order_too(home, data, tmp_path):
    """Backed up from a folder, restored to S3, examined, cleaned, and backed up from there."""
    make_backup(home.store, tmp_path / "first")
    there = Home(tmp_path / "there")
    there.root.mkdir()
    there.config.write_text(f'[store]\ndata = "{data}"\n')
    restore_backup(tmp_path / "first", there)
    corpus = small(there.root, load_config(there.config).store)
    assert not there.parts.exists()
    restored_like(corpus, home)
    (stray,) = corpus.store.write_parts("texts", [pa.table({"text": ["of nobody"]})])
    assert [one.place for one in collect_garbage(corpus.store, 0)] == [corpus.store.storage.uri("texts", stray.digest)]
    make_backup(corpus.store, tmp_path / "second")
    assert files(tmp_path / "second" / "parts") == files(tmp_path / "first" / "parts")
    with pytest.raises(UserError, match=r"the place that store\.data names is in use"):
        other = Home(tmp_path / "other")
        other.root.mkdir()
        shutil.copy(there.config, other.config)
        restore_backup(tmp_path / "first", other)
    assert failing(corpus) == {}


def test_a_second_backup_copies_only_what_is_new(backups, home):
    before = files(backups)
    second = make_backup(home.store, backups)
    assert len(backup_names(backups)) == 2
    now = files(backups)
    assert {path: now[path] for path in before} == before
    assert {path.split("/")[0] for path in set(now) - set(before)} == {"backups"}
    assert second.copied_bytes < second.bytes
    assert read_index(backups)["name"] == second.name
    assert read_index(backups, backup_names(backups)[0])["tables"].keys() == read_index(backups)["tables"].keys()


def test_an_older_backup_is_restored_by_its_name(backups, tmp_path, base):
    corpus = small(shutil.copytree(base / "home", tmp_path / "home"), StoreSettings())
    corpus.write("books/b.jsonl", [{"text": TEXTS[7]}])
    corpus.deliver()
    newer = make_backup(corpus.store, backups)
    for name, documents in ((backup_names(backups)[0], False), (newer.name, True)):
        done = restore_backup(backups, Home(tmp_path / name), name)
        assert bool(done.store.query("SELECT 1 FROM shards WHERE shard = 'books/b.jsonl'")) is documents
    with pytest.raises(UserError, match=r"no backup 'x' in .*; there is: "):
        restore_backup(backups, Home(tmp_path / "third"), "x")


def damages(backups: Path) -> Iterator[tuple[Path, bytes | None]]:
    """Yield a file of every kind that a backup has, with what is to become of it (None: it goes)."""
    (name,) = backup_names(backups)
    for path in (
        next(backups.glob("parts/texts/*.parquet")), next(backups.glob("files/*")),
        backups / "backups" / name / "tables" / "documents.parquet",
    ):  # fmt: skip
        data = path.read_bytes()
        yield path, data[:-1] + bytes([data[-1] ^ 1])
        yield path, None
    index = backups / "backups" / name / "index.json"
    yield index, index.read_bytes().replace(b'"rows"', b'"sowr"').replace(b'"bytes": 1', b'"bytes": 2')
    yield index, index.read_bytes()[:-20]


def test_a_damaged_backup_is_one_error_that_names_the_file_and_leaves_no_home(backups, tmp_path):
    for path, data in list(damages(backups)):
        before = path.read_bytes()
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(UserError, match=path.name):
            restore_backup(backups, Home(tmp_path / "new"))
        assert [found.name for found in tmp_path.iterdir()] == ["backups"]
        path.write_bytes(before)
    restore_backup(backups, Home(tmp_path / "new"))


def test_a_damaged_store_is_not_backed_up(base, tmp_path):
    corpus = small(shutil.copytree(base / "home", tmp_path / "home"), StoreSettings())
    path = next(corpus.home.parts.glob("texts/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        make_backup(corpus.store, tmp_path / "backups")
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        make_backup(corpus.store, tmp_path / "backups")
    assert backup_names(tmp_path / "backups") == []
    path.write_bytes(data)
    make_backup(corpus.store, tmp_path / "backups")
    assert len(list((tmp_path / "backups" / "backups").iterdir())) == 1, "the halves of the earlier ones are gone"
    assert not list((tmp_path / "backups").rglob(".*"))


def test_a_home_that_holds_anything_is_left_alone(backups, home, tmp_path):
    for name, told in (("inbox/x", r"is not empty \(it holds inbox\)"), ("winnow.toml", "takes all but .store. from")):
        root = tmp_path / name.replace("/", "-")
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("[selection]\nbudget_tokens = 5\n")
        with pytest.raises(UserError, match=told):
            restore_backup(backups, Home(root))
        assert files(root) == {name: b"[selection]\nbudget_tokens = 5\n"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        restore_backup(backups, Home(tmp_path / "file"))
    with pytest.raises(UserError, match="there is no backup in"):
        restore_backup(tmp_path / "none", Home(tmp_path / "new"))
    with pytest.raises(UserError, match="back up to another place"):
        make_backup(home.store, home.home.root / "backups")


def test_a_backup_of_a_newer_winnow_is_refused(backups, tmp_path, monkeypatch):
    monkeypatch.setattr("winnow.store.restore.SCHEMA_VERSION", 1)
    with pytest.raises(UserError, match="upgrade winnow"):
        restore_backup(backups, Home(tmp_path / "new"))


KILLED = """
import os, sys
from pathlib import Path
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store import backup, backup_reader, restore
from winnow.store.store import Store
left, pour = int(sys.argv[4]), backup.pour
def dying(source, write=lambda chunk: None):
    global left
    if left == 0:
        write(b"half")
        os.kill(os.getpid(), 9)
    left -= 1
    return pour(source, write)
backup.pour = dying
backup_reader.copy_file = lambda source, target: dying(source.open("rb"), target.open("wb", buffering=0).write)
home, folder = Home(Path(sys.argv[2])), Path(sys.argv[3])
if sys.argv[1] == "backup":
    backup.make_backup(Store(home, StoreSettings()), folder)
else:
    restore.restore_backup(folder, home)
"""


def killed(what: str, home: Path, folder: Path, after: int) -> None:
    command = [sys.executable, "-c", KILLED, what, str(home), str(folder), str(after)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9


def test_a_killed_backup_or_restore_leaves_nothing_that_looks_whole(home, tmp_path):
    killed("backup", home.home.root, tmp_path / "backups", 3)
    assert backup_names(tmp_path / "backups") == []
    with pytest.raises(UserError, match="there is no backup"):
        restore_backup(tmp_path / "backups", Home(tmp_path / "new"))
    make_backup(home.store, tmp_path / "backups")
    assert not list((tmp_path / "backups").rglob(".*"))
    killed("restore", tmp_path / "new", tmp_path / "backups", 20)
    assert not (tmp_path / "new").exists()
    restore_backup(tmp_path / "backups", Home(tmp_path / "new"))
    restored_like(small(tmp_path / "new", home.config.store), home)


def test_the_index_lists_every_file_with_its_digest(backups):
    (name,) = backup_names(backups)
    record = json.loads((backups / "backups" / name / "index.json").read_text())
    assert {"schema_version", "winnow", "duckdb", "backend", "generation", "made_at"} <= set(record)
    listed = {f"parts/{part['kind']}/{part['digest']}.parquet": part["bytes"] for part in record["parts"]}
    listed |= {f"files/{file['sha256']}": file["bytes"] for file in record["files"]}
    listed |= {f"backups/{name}/tables/{table}.parquet": file["bytes"] for table, file in record["tables"].items()}
    there = {path: len(data) for path, data in files(backups).items() if not path.endswith(("index.json", ".lock"))}
    assert there == listed


# -- a backup that may come from anywhere ------------------------------------------------------------------------------


def rewritten(backups: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a backup's index so that its checksum holds."""
    path = backups / "backups" / backup_names(backups)[-1] / "index.json"
    record = json.loads(path.read_text())
    del record["checksum"]
    change(record)
    path.write_text(json.dumps(record | {"checksum": digest(record)}))


STRANGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a kind that climbs": lambda index: index["parts"][0].update(kind="../../../escape"),
    "a part without a digest": lambda index: index["parts"][0].update(digest=""),
    "a part's digest in short": lambda index: index["parts"][0].update(digest=index["parts"][0]["digest"][:8]),
    "a table that is a statement": lambda index: index["tables"].update(
        {'x" AS SELECT 1; --': index["tables"]["meta"]}
    ),
    "a table that climbs": lambda index: index["tables"].update({"../meta": index["tables"]["meta"]}),
    "a table without a digest": lambda index: index["tables"]["meta"].update(sha256=""),
    "no table of parts": lambda index: index["tables"].pop("parts"),
    "a file that climbs": lambda index: index["files"][0].update(path="manifests/../../escape"),
    "a file at the root": lambda index: index["files"][0].update(path="/tmp/escape"),
    "a file of the store": lambda index: index["files"][0].update(path="store/store.duckdb"),
    "a file with a digest that climbs": lambda index: index["files"][0].update(sha256="../../../etc/passwd"),
    "another folder's name": lambda index: index.update(name="../../elsewhere"),
    "no size": lambda index: index["parts"][0].pop("bytes"),
    "parts that are none": lambda index: index.update(parts=[1]),
    "no schema version": lambda index: index.update(schema_version=None),
}


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE)
def test_an_index_that_no_backup_writes_is_refused_before_anything_is_written(change, backups, tmp_path):
    rewritten(backups, change)
    with pytest.raises(UserError, match=r"index\.json: .*Winnow writes no such index"):
        restore_backup(backups, Home(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["backups"]


@pytest.mark.parametrize("kind", ["texts", "snapshot_shards"])
def test_a_backup_that_lacks_a_part_of_its_tables_is_refused(kind, backups, tmp_path):
    lost = next(part for part in read_index(backups)["parts"] if part["kind"] == kind)
    rewritten(backups, lambda index: index["parts"].remove(lost))
    with pytest.raises(UserError, match=f"lacks 1 parts that its tables need, {lost['digest']}"):
        restore_backup(backups, Home(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["backups"]


# -- faults on the way -------------------------------------------------------------------------------------------------


def unpublished(self: Store) -> bool:
    raise OSError("no space left")


def test_a_restore_that_cannot_publish_leaves_what_was_there(backups, tmp_path, monkeypatch):
    new = Home(tmp_path / "new")
    new.root.mkdir()
    new.config.write_text('[store]\ndata = "elsewhere"\n')
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Store, "publish", unpublished)
        restore_backup(backups, new)
    assert files(new.root) == {"winnow.toml": b'[store]\ndata = "elsewhere"\n'}
    assert {path.name for path in tmp_path.iterdir()} == {"backups", "new"}
    restore_backup(backups, new)
    assert failing(small(new.root, load_config(new.config).store)) == {}


def test_a_restore_that_fails_takes_its_tables_out_of_postgres(backups, catalog, tmp_path, monkeypatch):
    """The commit into the catalog comes before the home is in place."""
    for extension in ("ducklake", "postgres_scanner"):
        pytest.importorskip(f"duckdb_extension_{extension}")
    new, data = Home(tmp_path / "new"), tmp_path / "data"
    new.root.mkdir()
    new.config.write_text(f'[store]\nbackend = "lake"\ncatalog = "{catalog}"\ndata = "{data}"\n')
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Store, "publish", unpublished)
        restore_backup(backups, new)
    assert [path.name for path in new.root.iterdir()] == ["winnow.toml"]
    assert not [path for path in data.rglob("*") if path.is_file()]
    corpus = small(restore_backup(backups, new).store.home.root, load_config(new.config).store)
    assert failing(corpus) == {}


def test_a_restore_that_fails_takes_its_files_out_of_s3(backups, data, tmp_path, monkeypatch):
    """Parts and the lake's own files."""
    new = Home(tmp_path / "new")
    new.root.mkdir()
    new.config.write_text(f'[store]\nbackend = "lake"\ncatalog = "sqlite"\ndata = "{data}"\n')
    for extension in ("ducklake", "sqlite_scanner", "httpfs"):
        pytest.importorskip(f"duckdb_extension_{extension}")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Store, "publish", unpublished)
        restore_backup(backups, new)
    assert filesystem(data).find(data) == []


def test_the_leavings_of_a_killed_restore_go_with_the_next(backups, base, tmp_path):
    killed("restore", tmp_path / "new", backups, 20)
    (left,) = tmp_path.glob(".new.restoring-*")
    aside = tmp_path / ".new.before"  # killed between the two renames
    aside.mkdir()
    (aside / "winnow.toml").write_text('[store]\ndata = "elsewhere"\n')
    done = restore_backup(backups, Home(tmp_path / "new"))
    assert done.store.settings.data == "elsewhere"
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"backups", "new"}
    assert not list((tmp_path / "new").glob(".*"))


def test_a_restore_that_is_at_work_is_left_alone(backups, tmp_path):
    work = tmp_path / ".new.restoring-of-another"
    work.mkdir()
    with (work / ".restoring.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another restore of .* is at work"):
            restore_backup(backups, Home(tmp_path / "new"))
    assert work.exists()
    restore_backup(backups, Home(tmp_path / "new"))
    assert not work.exists()


def test_others_write_while_a_backup_exports(base, tmp_path, monkeypatch):
    """It exports a copy of a store in one file, and the backup is of the state before."""
    corpus = small(shutil.copytree(base / "home", tmp_path / "home"), StoreSettings(lock_wait_seconds=1))

    def writing(connection: Connection, key: str) -> str | None:
        with corpus.store.write() as other:
            insert_row(other, "checkpoints", checkpoint="of another", sequence=9, path="", tokenizer="t")
        return get_meta(connection, key)

    monkeypatch.setattr("winnow.store.backup.get_meta", writing)
    make_backup(corpus.store, tmp_path / "backups")
    restored = restore_backup(tmp_path / "backups", Home(tmp_path / "new")).store
    assert corpus.store.query("SELECT count(*) FROM checkpoints") == [(3,)]
    assert restored.query("SELECT checkpoint FROM checkpoints") == [("c",)]


# -- what is in the backup already -------------------------------------------------------------------------------------


def test_verify_copies_anew_what_is_damaged_in_the_backup(backups, home, tmp_path):
    damaged = [next(backups.glob("parts/texts/*.parquet")), next(backups.glob("files/*"))]
    whole = [path.read_bytes() for path in damaged]
    for path, data in zip(damaged, whole, strict=True):
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert make_backup(home.store, backups).replaced_files == 0, "the size is right"
    assert make_backup(home.store, backups, verify=True).replaced_files == 2
    assert [path.read_bytes() for path in damaged] == whole
    restore_backup(backups, Home(tmp_path / "new"))
    assert make_backup(home.store, backups, verify=True).replaced_files == 0


def test_a_part_of_an_old_manifest_only_is_copied_anew_when_it_was_cut(backups, home):
    """No list of the store's own says how long it is; the storage does."""
    live = {part for (part,) in home.store.query("SELECT part FROM parts")}
    cut = next(path for path in sorted(backups.glob("parts/*/*.parquet")) if path.stem not in live)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-1])
    assert make_backup(home.store, backups).replaced_files == 1
    assert cut.read_bytes() == whole


def test_a_part_that_only_an_older_manifest_names_is_not_left_out(base, tmp_path):
    """Manifests that are older than the table of snapshots give digests and no kinds."""
    corpus = small(shutil.copytree(base / "home", tmp_path / "home"), StoreSettings())
    with corpus.store.write() as connection:
        connection.execute("DELETE FROM snapshots")
    first = make_backup(corpus.store, tmp_path / "first")
    live = {part for (part,) in corpus.store.query("SELECT part FROM parts")}
    path = next(path for path in sorted(corpus.home.parts.glob("*/*.parquet")) if path.stem not in live)
    path.unlink()
    with pytest.raises(UserError, match=f"1 parts that manifests need are missing, {path.stem}"):
        make_backup(corpus.store, tmp_path / "second")
    assert make_backup(corpus.store, tmp_path / "first").files == first.files, "the backup has it"
    restore_backup(tmp_path / "first", Home(tmp_path / "new"))
    assert (tmp_path / "new/store/parts" / path.parent.name / path.name).exists()
