"""Garbage collection takes what nobody needs, and never what the store or a manifest needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import ONE_LAKE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept import TEXTS, add_manifest, failing, filled, manifests_verify, small
from small_corpus import SmallCorpus

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.stages import corpus as corpus_stage
from winnow.stages.demands import make_demand
from winnow.stages.withdrawing import add_takedowns
from winnow.store import garbage
from winnow.store.garbage import collect_garbage, no_garbage_collection
from winnow.store.parts import Part
from winnow.store.published import open_published
from winnow.store.snapshots import open_at
from winnow.store.store import Store, add_parts, insert, insert_row, replace_owned

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def small_file(root: Path) -> SmallCorpus:
    return small(root, StoreSettings(lock_wait_seconds=20))


def stored(corpus: SmallCorpus) -> set[str]:
    return {part.digest for part in corpus.store.storage.list()}


def needed(corpus: SmallCorpus) -> set[str]:
    found = corpus.store.query("SELECT part FROM parts UNION SELECT part FROM snapshots")
    return {part for (part,) in found}


@ONE_LAKE
def test_replaced_parts_go_and_those_of_a_manifest_stay(store):
    corpus = filled(store.home.root, store.settings)
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    corpus.deliver()
    add_manifest(corpus, "v0001")
    kept = {part for (part,) in corpus.store.query("SELECT part FROM parts WHERE kind = 'texts'")}
    corpus.write("web/a.jsonl", [{"text": TEXTS[1]}])
    corpus.deliver()
    before = stored(corpus)
    garbage_now = before - needed(corpus)
    assert garbage_now and not kept & garbage_now
    would = collect_garbage(corpus.store, 0, dry_run=True)
    assert stored(corpus) == before
    removed = collect_garbage(corpus.store, 0)
    assert removed == would
    assert sorted(one.place for one in removed) == sorted(
        corpus.store.storage.uri("texts", part) for part in garbage_now
    )
    assert stored(corpus) == needed(corpus)
    assert failing(corpus) == {}
    corpus.store.publish()
    with open_at(corpus.home, "v0001") as then:
        assert {text for (text,) in then.execute("SELECT text FROM texts").fetchall()} >= {TEXTS[0]}
    assert collect_garbage(corpus.store, 0) == []


def test_stored_gradients_go_when_nothing_was_added_for_as_long_as_the_grace_period(tmp_path):
    corpus = small_file(tmp_path)
    corpus.deliver()
    for name in ("old", "young"):
        folder = corpus.home.gradients / name
        folder.mkdir(parents=True)
        for file in ("index.json", "rows.tmp"):
            (folder / file).write_bytes(b"x")
            if (name, file) != ("young", "index.json"):
                os.utime(folder / file, (time.time() - 3 * 86_400,) * 2)
    os.utime(corpus.home.gradients / "old", (time.time() - 3 * 86_400,) * 2)
    gradients = [("stored gradients", "old"), ("temporary", "young/rows.tmp")]
    expected = {(what, str(corpus.home.gradients / place)) for what, place in gradients}
    assert expected <= {(one.what, one.place) for one in collect_garbage(corpus.store, 1, dry_run=True)}
    assert expected <= {(one.what, one.place) for one in collect_garbage(corpus.store, 1)}
    left = {path.relative_to(corpus.home.gradients).as_posix() for path in corpus.home.gradients.rglob("*")}
    assert left == {"young", "young/index.json"}


def test_what_is_young_stays(tmp_path):
    corpus = small_file(tmp_path)
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    corpus.deliver()
    corpus.store.write_parts("texts", [pa.table({"text": ["written and not yet listed"]})])
    assert collect_garbage(corpus.store) == []
    old = time.time() - 2 * 86_400
    for path in corpus.home.parts.glob("*/*.parquet"):
        os.utime(path, (old, old))
    (removed,) = collect_garbage(corpus.store)
    assert (removed.what, removed.bytes > 0) == ("part of texts", True)
    assert failing(corpus) == {}


FILES = ["web/a.jsonl", "books/a.jsonl"]
steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(FILES), st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)),
    st.tuples(st.just("remove"), st.sampled_from(FILES), st.just([])),
    st.tuples(st.just("takedown"), st.sampled_from(TEXTS[:3]), st.just([])),
    st.tuples(st.just("manifest"), st.just(""), st.just([])),
    st.tuples(st.just("gc"), st.just(""), st.just([])),
)  # fmt: skip


@settings(max_examples=3, derandomize=True, **QUIET)
@given(st.lists(steps, min_size=4, max_size=7))
def test_after_any_sequence_the_store_is_healthy_and_every_manifest_is_whole(steps):
    with tempfile.TemporaryDirectory() as root:
        corpus = small_file(Path(root))
        corpus.write("news/a.jsonl", [{"text": TEXTS[-1]}])
        corpus.deliver()
        made = play(corpus, [*steps, ("gc", "", [])])
        assert failing(corpus) == {}
        assert manifests_verify(corpus)
        corpus.store.publish()
        for version, texts in made.items():
            with open_at(corpus.home, version) as then:
                assert {text for (text,) in then.execute("SELECT text FROM texts").fetchall()} == texts
                assert then.execute("SELECT count(*) FROM manifest_rows WHERE version = $v", {"v": version}).fetchone()


def play(corpus: SmallCorpus, steps: Sequence[tuple[str, str, list[str]]]) -> dict[str, set[str]]:
    """Take the steps; return manifest -> texts that the store had then."""
    made: dict[str, set[str]] = {}
    for kind, what, texts in steps:
        if kind == "write":
            corpus.write(what, [{"text": text, "id": text[:20]} for text in texts])
            corpus.deliver()
        elif kind == "remove" and (corpus.home.inbox / what).exists():
            corpus.remove(what)
            corpus.deliver()
        elif kind == "takedown":
            add_takedowns(corpus.store, [make_demand("original_id", what[:20])])
        elif kind == "manifest":
            version = f"v{len(made) + 1:04d}"
            made[version] = {row[3] for row in corpus.rows("texts")}
            add_manifest(corpus, version)
        elif kind == "gc":
            collect_garbage(corpus.store, 0)
    return made


KILLED = """
import os, sys
from pathlib import Path
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.store.garbage import collect_garbage
from winnow.store.storage import LocalStorage
from winnow.store.store import Store
left, remove = int(sys.argv[2]), LocalStorage.remove
def dying(self, kind, digest):
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1
    remove(self, kind, digest)
LocalStorage.remove = dying
collect_garbage(Store(Home(Path(sys.argv[1])), StoreSettings(lock_wait_seconds=20)), 0)
"""


def test_a_killed_collection_leaves_a_whole_store_and_the_next_one_ends_it(tmp_path):
    corpus = small_file(tmp_path)
    for text in TEXTS[:4]:
        corpus.write("web/a.jsonl", [{"text": text}])
        corpus.deliver()
    before = stored(corpus) - needed(corpus)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "1"], cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == -9
    assert len(stored(corpus) - needed(corpus)) == len(before) - 1
    assert failing(corpus) == {}
    assert len(collect_garbage(corpus.store, 0)) == len(before) - 1


def test_what_killed_runs_left_goes_when_it_is_old_and_nobody_has_it_open(tmp_path):
    corpus = small_file(tmp_path)
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    corpus.deliver()
    home = corpus.home
    left = [
        home.parts / "texts" / ".0123.tmp", home.scratch / "delivery-1" / "0.parquet", home.scratch / "part-1.tmp",
        home.manifests / ".v0001-ab.partial" / "rows.parquet", home.root / ".winnow-12.duckdb",
        home.artifacts / ".influence-model-12.tmp", home.checkpoints / f".new.{'0' * 32}" / "model.safetensors",
        home.batches / "batch-1.12.tmp",
    ]  # fmt: skip
    stay = [
        home.checkpoints / f".only.{'0' * 32}" / "model.safetensors", home.checkpoints / ".gitignore",
        home.artifacts / ".keep", home.manifests / "v0001" / "rows.parquet",
    ]  # fmt: skip
    for path in (*left, *stay):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    with corpus.store.write() as connection:
        insert_row(connection, "checkpoints", checkpoint="only", sequence=1)
    assert collect_garbage(corpus.store) == []
    with left[1].open("rb"):
        held = [one for one in collect_garbage(corpus.store, 0) if one.what == "temporary"]
    assert {one.bytes >= 5 for one in held} == {True}
    assert [path for path in (*left, *stay) if path.exists()] == [left[1], *stay]
    assert [one.place for one in collect_garbage(corpus.store, 0)] == [str(left[1].parent)]
    assert all(path.exists() for path in stay)


def test_batches_that_no_shard_names_go_once_later_ones_came(tmp_path):
    corpus = small_file(tmp_path)
    for text in TEXTS[:2]:
        corpus.write("web/a.jsonl", [{"text": text}])
        corpus.waiting().save(corpus.home)
        corpus.deliver()
    corpus.write("web/a.jsonl", [{"text": TEXTS[2]}])
    waiting = corpus.waiting()
    waiting.save(corpus.home)
    (corpus.home.batches / "batch-odd.json").write_text("{}")
    removed = {Path(one.place).stem for one in collect_garbage(corpus.store, 0) if one.what == "batch"}
    left = {path.stem for path in corpus.home.batches.iterdir()}
    assert left == {waiting.key, corpus.store.query("SELECT batch FROM shards")[0][0]}
    assert len(removed) == 2 and "batch-odd" in removed


def scores(corpus: SmallCorpus, *checkpoints: str) -> str:
    rows = pa.table({"checkpoint": list(checkpoints), "version": ["m"] * len(checkpoints)})
    (part,) = corpus.store.write_parts("scores", [rows])
    with corpus.store.write() as connection:
        add_parts(connection, [part])
    return part.digest


def test_scores_of_old_checkpoints_go_unless_a_manifest_names_them(tmp_path):
    corpus = small_file(tmp_path)
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    corpus.deliver()
    with corpus.store.write() as connection:
        for number in range(garbage.SCORED_CHECKPOINTS + 3):
            insert_row(connection, "checkpoints", checkpoint=f"c{number}", sequence=number)
        insert_row(connection, "manifests", version="v0001", checkpoint="c1")
    parts = {name: scores(corpus, name) for name in ("c0", "c1", "c3", "c5")}
    parts["mixed"] = scores(corpus, "c0", "c2")
    listed = "SELECT part FROM parts WHERE kind = 'scores'"
    collect_garbage(corpus.store, 0, dry_run=True)
    assert len(corpus.store.query(listed)) == 5
    assert collect_garbage(corpus.store) == []  # they are young: of a backfill, say
    corpus.store.publish()
    old = corpus.store.storage.uri("scores", parts.pop("c0"))
    (removed,) = collect_garbage(corpus.store, 0)
    assert (removed.what, removed.place, removed.bytes) == ("listing of old scores", old, 0)
    assert {part for (part,) in corpus.store.query(listed)} == set(parts.values())
    with open_published(corpus.home) as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchone() == (0,)  # of documents that are not there
    (removed,) = collect_garbage(corpus.store, 0)
    assert (removed.what, removed.place, removed.bytes > 0) == ("part of scores", old, True)


def test_scores_that_are_missing_or_that_a_manifest_names_meanwhile_are_left_alone(tmp_path, monkeypatch):
    store = Store(Home(tmp_path), StoreSettings(lock_wait_seconds=20))
    with store.write() as connection:
        for number in range(garbage.SCORED_CHECKPOINTS + 2):
            insert_row(connection, "checkpoints", checkpoint=f"c{number}", sequence=number)
    for name in ("c0", "c1"):
        listed(store, "scores", pa.table({"checkpoint": [name], "version": ["m"]}))
    (gone,) = listed(store, "scores", pa.table({"checkpoint": ["c1"], "version": ["n"]}))
    store.storage.remove("scores", gone.digest)
    read = garbage._only_checkpoint

    def named_meanwhile(store: Store, part: str) -> str | None:
        if not store.query("SELECT 1 FROM manifests"):
            with store.write() as connection:
                insert_row(connection, "manifests", version="v0001", checkpoint="c0")
        return read(store, part)

    monkeypatch.setattr(garbage, "_only_checkpoint", named_meanwhile)
    assert [one.what for one in collect_garbage(store, 0)] == ["listing of old scores"]
    with store.storage.open("scores", next(part.digest for part in store.storage.list())) as file:
        assert file.metadata.num_rows == 1
    assert len(store.query("SELECT 1 FROM parts")) == 2


def listed(store: Store, kind: str, rows: pa.Table, owner: str | None = None) -> list[Part]:
    """List rows as parts whose files are two days old."""
    parts = store.write_parts(kind, [rows])
    with store.write() as connection:
        if owner is None:
            add_parts(connection, parts)
        else:
            replace_owned(connection, kind, owner, parts)
    age(store)
    return parts


def age(store: Store) -> None:
    old = time.time() - 2 * 86_400
    for path in store.home.parts.glob("*/*.parquet"):
        os.utime(path, (old, old))


def decided(*texts: str) -> pa.Table:
    return pa.table({"selection": ["s"] * len(texts), "doc_id": doc_ids(texts)})


def with_documents(root: Path) -> Store:
    store = Store(Home(root), StoreSettings(lock_wait_seconds=0.2))
    with store.write() as connection:
        insert(connection, "documents", pa.table({"doc_id": doc_ids(["a", "b"])}))
    return store


DECIDED = "SELECT count(*) FROM decisions"


def test_the_grace_of_a_replaced_part_begins_when_it_is_replaced(tmp_path):
    store = with_documents(tmp_path)
    (old,) = listed(store, "decisions", decided("a"), "s")
    store.publish()
    with open_published(store.home) as reader:
        listed(store, "decisions", decided("a", "b"), "s")
        store.publish()
        assert collect_garbage(store) == []
        assert reader.execute(DECIDED).fetchone() == (1,)
    with store.write() as connection:
        connection.execute("UPDATE unlisted SET unlisted_at = unlisted_at - INTERVAL 2 DAY")
    assert [one.place for one in collect_garbage(store)] == [store.storage.uri("decisions", old.digest)]
    assert store.query("SELECT part FROM unlisted") == []
    with open_published(store.home) as reader:
        assert reader.execute(DECIDED).fetchone() == (2,)


def test_a_part_that_is_listed_again_is_unlisted_no_more(tmp_path):
    store = with_documents(tmp_path)
    for texts in (("a",), ("a", "b"), ("a",)):
        (part,) = listed(store, "decisions", decided(*texts), "s")
    assert store.query("SELECT part FROM parts") == [(part.digest,)]
    ((other,),) = store.query("SELECT part FROM unlisted")
    assert other != part.digest


def test_what_the_published_file_names_stays_until_it_names_it_no_more(tmp_path):
    store = with_documents(tmp_path)
    (old,) = listed(store, "decisions", decided("a"), "s")
    store.publish()
    listed(store, "decisions", decided("a", "b"), "s")
    assert collect_garbage(store, 0) == collect_garbage(store, 0, dry_run=True) == []
    with open_published(store.home) as reader:
        assert reader.execute(DECIDED).fetchone() == (1,)
    store.publish()
    assert [one.place for one in collect_garbage(store, 0)] == [store.storage.uri("decisions", old.digest)]
    with open_published(store.home) as reader:
        assert reader.execute(DECIDED).fetchone() == (2,)


def test_a_part_that_is_written_again_while_gc_waits_for_its_turn_stays(tmp_path, monkeypatch):
    store = with_documents(tmp_path)
    (stray,) = store.write_parts("decisions", [decided("a")])
    age(store)
    publishing = garbage._publishing

    def overtaken(store: Store) -> Any:
        store.write_parts("decisions", [decided("a")])  # by a machine with another home, which no lock holds off
        return publishing(store)

    monkeypatch.setattr(garbage, "_publishing", overtaken)
    assert len(collect_garbage(store, dry_run=True)) == 1
    assert collect_garbage(store) == []
    assert store.storage.exists("decisions", stray.digest)


def test_a_delivery_and_gc_shut_each_other_out(tmp_path, monkeypatch):
    corpus = small(tmp_path, StoreSettings(lock_wait_seconds=0.2))
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    read = corpus_stage.read_all

    def meanwhile(*arguments: Any) -> Any:
        found = read(*arguments)
        with pytest.raises(UserError, match="a run, a backup or another `winnow gc` is at work"):
            collect_garbage(corpus.store, 0)
        return found

    monkeypatch.setattr(corpus_stage, "read_all", meanwhile)
    corpus.store.publish()
    with corpus.store.write():
        pass
    assert corpus.deliver().occurrences == 1
    with no_garbage_collection(corpus.store, exclusive=True), pytest.raises(UserError, match="`winnow gc` is at work"):
        corpus.deliver()


def lake_with_an_orphan(root: Path) -> tuple[Store, Path]:
    """Make a lake with a file in it that no transaction committed, two days old as all of its files."""
    pytest.importorskip("duckdb_extension_ducklake")
    store = Store(Home(root), StoreSettings(backend="lake", catalog="sqlite"))
    with store.write() as connection:
        connection.register("many", pa.table({"shard": pa.array([f"s{at}" for at in range(200)])}))
        connection.execute("INSERT INTO quarantine (shard) SELECT shard FROM many")
    (file,) = (root / "store" / "lake").rglob("*.parquet")
    orphan = file.with_name("ducklake-of-nobody.parquet")
    orphan.write_bytes(file.read_bytes())
    return store, orphan


def test_what_a_killed_transaction_left_in_a_lake_goes_when_it_is_old(tmp_path):
    store, orphan = lake_with_an_orphan(tmp_path)
    assert collect_garbage(store) == []
    old = time.time() - 2 * 86_400
    os.utime(orphan, (old, old))
    size = orphan.stat().st_size
    (removed,) = collect_garbage(store)
    assert (removed.what, Path(removed.place), removed.bytes) == ("file of the lake", orphan, size)
    assert not orphan.exists()
    assert store.query("SELECT count(*) FROM quarantine") == [(200,)]


def test_a_path_that_reads_like_a_pattern_lets_no_collection_into_another_lake(tmp_path):
    pattern, orphan = lake_with_an_orphan(tmp_path / "run[12]")
    other, _ = lake_with_an_orphan(tmp_path / "run1")
    assert collect_garbage(pattern, 0) == []
    assert orphan.exists()
    assert other.query("SELECT count(*) FROM quarantine") == [(200,)]


def test_a_lake_forgets_its_own_old_snapshots_and_files(store):
    if store.settings.backend != "lake":
        pytest.skip("this is about the lakes")
    rows = pa.table({"shard": pa.array([f"s{at}" for at in range(200)])})
    for change in ("INSERT INTO quarantine (shard) SELECT shard FROM many", "DELETE FROM quarantine", ""):
        with store.write() as connection:
            connection.register("many", rows)
            if change:
                connection.execute(change)
    with store.read() as connection:
        (snapshots,) = connection.execute("SELECT count(*) FROM ducklake_snapshots('lake')").fetchone()
    assert [one for one in collect_garbage(store) if one.what == "file of the lake"] == []
    removed = [*collect_garbage(store, 0), *collect_garbage(store, 0)]  # what the first lets go the second removes
    assert {one.what for one in removed} == {"file of the lake"}
    with store.read() as connection:
        assert connection.execute("SELECT count(*) FROM ducklake_snapshots('lake')").fetchone()[0] < snapshots
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


def test_gc_and_backup_shut_each_other_out(tmp_path):
    corpus = small(tmp_path, StoreSettings(lock_wait_seconds=0.2))
    with pytest.raises(UserError, match="there is no store"):
        collect_garbage(corpus.store)
    corpus.write("web/a.jsonl", [{"text": TEXTS[0]}])
    corpus.deliver()
    busy = pytest.raises(UserError, match="a run, a backup or another `winnow gc` is at work")
    with no_garbage_collection(corpus.store), no_garbage_collection(corpus.store), busy:
        collect_garbage(corpus.store, 0)
    busy = pytest.raises(UserError, match="`winnow gc` is at work")
    with no_garbage_collection(corpus.store, exclusive=True), busy, no_garbage_collection(corpus.store):
        pass
