"""The store as it was when a manifest was made, whatever came later."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.config import Store as StoreSettings
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.store import Store
from winnow.store import snapshots as module
from winnow.store.published import open_published
from winnow.store.schema import tables
from winnow.store.snapshots import committing_snapshot, open_at
from winnow.store.store import add_parts, get_meta, insert, insert_row, now, replace_owned

CHANGED_BY_A_MANIFEST = ("costs", "stage_keys", "meta")
PUBLIC = [table.name for table in tables().values() if not table.internal]
COMPARED = [*(name for name in PUBLIC if name not in CHANGED_BY_A_MANIFEST), "scores_wide"]


def deliver(store: Store, shard: str, texts: list[str]) -> None:
    """Add a shard: occurrences, documents of their own, a signal each, texts in a part."""
    ids = doc_ids([f"{shard} {text}" for text in texts])
    count = len(texts)
    columns = {
        "doc_id": ids,
        "shard": pa.array([shard] * count, pa.string()),
        "row": pa.array(range(count), pa.int64()),
    }
    parts = store.write_parts("texts", [pa.table({**columns, "text": texts})])
    with store.write() as connection:
        withdraw_in(connection, shard)
        add_parts(connection, parts)
        insert_row(connection, "shards", shard=shard, records=count, parts=[part.digest for part in parts])
        for name in ("occurrences", "documents"):
            insert(connection, name, pa.table({**columns, "source": ["s"] * count}))
        insert(
            connection, "signals", pa.table({"doc_id": ids, "version": ["1"] * count, "gopher_passed": [True] * count})
        )


def withdraw_in(connection, shard: str) -> None:
    where = "WHERE doc_id IN (SELECT doc_id FROM occurrences WHERE shard = $shard)"
    for name in ("documents", "signals"):
        connection.execute(f"DELETE FROM {name} {where}", {"shard": shard})
    for name in ("occurrences", "shards"):
        connection.execute(f"DELETE FROM {name} WHERE shard = $shard", {"shard": shard})
    connection.execute("DELETE FROM quarantine WHERE shard = $shard", {"shard": shard})
    for row in range(3):  # rows that their key does not tell apart
        insert_row(connection, "quarantine", shard=shard, reason="bad", detail=str(row))


def withdraw(store: Store, shard: str) -> None:
    with store.write() as connection:
        withdraw_in(connection, shard)


def score(store: Store, scorer: str, version: str) -> None:
    ids = store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")["doc_id"]
    texts = {"scorer": scorer, "version": version, "checkpoint": "warmup", "reference": "r"}
    rows = {name: pa.array([value] * len(ids), pa.string()) for name, value in texts.items()}
    values = pa.array([(hash_of(doc) + len(version)) % 97 / 97 for doc in ids.to_pylist()], pa.float64())
    parts = store.write_parts("scores", [pa.table({"doc_id": ids, "score": values, **rows})])
    with store.write() as connection:
        add_parts(connection, parts)


def hash_of(doc: uuid.UUID) -> int:
    return doc.int >> 64


def select(store: Store, selection: str, reason: str) -> None:
    ids = store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")["doc_id"]
    rows = {"selection": selection, "verdict": "selected", "reason": reason}
    columns = {name: pa.array([value] * len(ids), pa.string()) for name, value in rows.items()}
    parts = store.write_parts("decisions", [pa.table({"doc_id": ids, **columns})])
    with store.write() as connection:
        replace_owned(connection, "decisions", selection, parts)


def make_manifest(store: Store, model: str = "m1") -> str:
    made = store.query("SELECT count(*) FROM manifests")[0][0]
    version = f"v{made + 1:04d}"
    ids = store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")["doc_id"]
    rows = pa.table({"version": pa.array([version] * len(ids), pa.string()), "doc_id": ids, "order": range(len(ids))})
    at = now()
    with committing_snapshot(store, version, store.write_parts("manifest_rows", [rows]), at) as (connection, snapshot):
        insert_row(
            connection, "manifests", version=version, selection="s", checkpoint="warmup", influence_model=model,
            snapshot=list(snapshot.digests), made_at=at,
        )  # fmt: skip
        insert_row(connection, "costs", stage="manifests")
    return version


def answers(connection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
        for name in COMPARED
    }  # fmt: skip


def published_answers(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    store.publish()
    with open_published(store.home) as connection:
        return answers(connection)


SHARDS = ("web/a", "web/b", "books/a")
texts = st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sampled_from(SHARDS), texts),
        st.tuples(st.just("withdraw"), st.sampled_from(SHARDS)),
        st.tuples(st.just("score"), st.sampled_from(["influence", "edu"]), st.sampled_from(["m1", "m2"])),
        st.tuples(st.just("select"), st.sampled_from(["s", "t"]), st.sampled_from(["granted", "filled"])),
        st.tuples(st.just("make_manifest"), st.sampled_from(["m1", "m2"])),
    ),
    min_size=1, max_size=4,
)  # fmt: skip
ACTIONS = {one.__name__: one for one in (deliver, withdraw, score, select, make_manifest)}


def answers_later_as_then(store: Store, actions: list[tuple[Any, ...]]) -> None:
    """Take every action, publish at each manifest, and at the end ask the store of each manifest again."""
    expected: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
    for name, *arguments in actions:
        made = ACTIONS[name](store, *arguments)
        if made:
            expected[made] = published_answers(store)
    store.publish()
    for version, there in expected.items():
        with open_at(store.home, version) as connection:
            found = answers(connection)
        for name, rows in there.items():
            assert found[name] == rows, (version, name)


@settings(max_examples=3, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=steps, after=steps)
def test_a_manifests_store_answers_as_the_published_one_did_whatever_came_later(before, after):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Home(Path(folder) / "it's a home"), StoreSettings())
        answers_later_as_then(store, [("deliver", "web/a", ["x"]), *before, ("make_manifest",), *after])


def test_on_every_backend_a_manifests_store_answers_as_the_published_one_did(store):
    answers_later_as_then(
        store,
        [
            ("deliver", "web/a", ["x", "y"]),
            ("score", "edu", "m1"),
            ("score", "influence", "m1"),
            ("select", "s", "granted"),
            ("make_manifest", "m1"),
            ("withdraw", "web/a"),
            ("score", "edu", "m2"),
            ("select", "s", "filled"),
        ],
    )


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_an_unchanged_table_costs_no_space(store):
    deliver(store, "web/a", ["x", "y"])
    first, second = make_manifest(store), make_manifest(store)

    def kept(version: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        query = "SELECT name, part FROM snapshots WHERE version = $version ORDER BY ALL"
        for name, part in store.query(query, {"version": version}):
            found.setdefault(name, []).append(part)
        return found

    before, after = kept(first), kept(second)
    assert {name for name in after if after[name] != before.get(name)} == {"costs", "manifest_rows", "parts"}
    assert before["documents"] == after["documents"] != []
    for version in (first, second):
        listed = store.query("SELECT DISTINCT part FROM snapshots WHERE version = $v ORDER BY part", {"v": version})
        assert [store.query("SELECT snapshot FROM manifests WHERE version = $v", {"v": version})[0][0]] == [
            [part for (part,) in listed]
        ]


def rewritten(store: Store, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make a manifest and return the tables of which a snapshot was written."""
    written, real = set(), store.write_parts

    def noted(kind, rows):
        parts = real(kind, rows)
        written.update({kind.removeprefix("snapshot_")} if parts and kind.startswith("snapshot_") else ())
        return parts

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_parts", noted)
        make_manifest(store)
    return written


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_only_tables_with_other_rows_are_written_again(store, monkeypatch):
    deliver(store, "web/a", ["x", "y"])
    assert {"documents", "occurrences", "shards", "signals"} < rewritten(store, monkeypatch)
    always = {"costs", "parts"}
    assert rewritten(store, monkeypatch) == always
    with store.write() as connection:  # the same rows, in another order
        connection.execute("CREATE TABLE turned AS SELECT * FROM documents ORDER BY doc_id DESC")
        connection.execute("DELETE FROM documents")
        connection.execute("INSERT INTO documents SELECT * FROM turned")
        connection.execute("DROP TABLE turned")
    assert rewritten(store, monkeypatch) == always
    with store.write() as connection:
        connection.execute("UPDATE documents SET dup_count = 1, words = 2 WHERE row = 0")
    assert rewritten(store, monkeypatch) == {*always, "documents"}
    with store.write() as connection:  # two columns that change places
        connection.execute("UPDATE documents SET dup_count = 2, words = 1 WHERE row = 0")
    assert rewritten(store, monkeypatch) == {*always, "documents"}
    with store.write() as connection:  # as it was at an earlier manifest
        connection.execute("UPDATE documents SET dup_count = 1, words = 2 WHERE row = 0")
    assert rewritten(store, monkeypatch) == always
    ((part,),) = store.query("SELECT DISTINCT part FROM snapshots WHERE version = 'v0006' AND name = 'documents'")
    store.storage.remove("snapshot_documents", part)
    assert rewritten(store, monkeypatch) == {*always, "documents"}
    store.publish()
    with open_at(store.home, "v0006") as connection:
        assert connection.execute("SELECT dup_count, words FROM documents WHERE row = 0").fetchall() == [(1, 2)]


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_a_version_that_another_run_has_made_is_refused(store, monkeypatch):
    deliver(store, "web/a", ["x"])
    real = module.take_snapshot

    def overtaken(*arguments):
        found = real(*arguments)
        monkeypatch.setattr(module, "take_snapshot", real)
        make_manifest(store)
        return found

    monkeypatch.setattr(module, "take_snapshot", overtaken)
    with pytest.raises(UserError, match="another run made manifest v0001 meanwhile"):
        make_manifest(store)
    assert store.query("SELECT version FROM manifests") == [("v0001",)]
    assert store.query("SELECT count(*) FROM parts WHERE kind = 'manifest_rows'") == [(1,)]


def test_how_the_rows_lie_in_the_store_does_not_change_the_parts(tmp_path):
    kept = []
    for name, order in (("one", "ASC"), ("two", "DESC")):
        store = Store(Home(tmp_path / name), StoreSettings(threads=1 if name == "one" else 3))
        with store.write() as connection:
            connection.execute(
                "INSERT INTO documents (doc_id, shard, row)"
                " SELECT md5(i::VARCHAR)::UUID, CASE WHEN i % 3 > 0 THEN 's' END, i"
                f" FROM range(250000) t(i) ORDER BY i {order}"
            )
        with store.read() as connection:
            snapshot = module.take_snapshot(store, connection, [], "v0001", now())
        kept.append([row for row in snapshot.parts if row[0] == "documents"])
    assert kept[0] == kept[1] != []


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_a_write_between_export_and_commit_is_in_the_snapshot(store, monkeypatch):
    deliver(store, "web/a", ["x"])
    real, calls = module.take_snapshot, []

    def interrupted(*arguments):
        found = real(*arguments)
        calls.append(found.generation)
        if len(calls) <= module.ATTEMPTS:  # the last time nobody can: the transaction is open
            with store.write() as connection:
                insert_row(connection, "mixtures", mixture=str(len(calls)))
        return found

    monkeypatch.setattr(module, "take_snapshot", interrupted)
    version = make_manifest(store)
    store.publish()
    assert len(calls) == module.ATTEMPTS + 1
    with open_at(store.home, version) as connection:
        assert connection.execute("SELECT count(*) FROM mixtures").fetchall() == [(module.ATTEMPTS,)]


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_what_cannot_be_opened_is_one_sentence_that_names_it(store):
    deliver(store, "web/a", ["x"])
    version = make_manifest(store)
    with store.write() as connection:
        insert_row(connection, "manifests", version="v0002")
    store.publish()
    with pytest.raises(UserError, match="no manifest v0099; the store has v0001, v0002"):
        open_at(store.home, "v0099")
    with pytest.raises(UserError, match="v0002 was made by a Winnow that kept no snapshots"):
        open_at(store.home, "v0002")
    part = store.query("SELECT kind, part FROM snapshots WHERE name = 'documents'")[0]
    store.storage.remove(*part)
    with pytest.raises(UserError, match=rf"{part[1]}.*v0001.*restore it from a backup"):
        open_at(store.home, version)


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_nothing_is_left_in_the_temporary_folder(store):
    deliver(store, "web/a", ["x"])
    make_manifest(store)
    assert not list(store.home.scratch.glob("state-*"))
    with store.read() as connection:
        assert get_meta(connection, "generation") == "2"
