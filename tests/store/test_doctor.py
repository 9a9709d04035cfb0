"""A healthy store passes every check; each damage is found by the check that it belongs to."""

# ruff: noqa: E501 - a damage, its check and what it is told as are one line

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ONE_LAKE
from kept import TEXTS, add_manifest, examined, failing, filled
from small_corpus import SmallCorpus

from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages.demands import make_demand
from winnow.stages.examining import all_checks, examine
from winnow.stages.withdrawing import add_takedowns
from winnow.store.store import add_parts

Damage = Callable[[SmallCorpus], None]


@pytest.fixture(scope="module")
def healthy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = filled(tmp_path_factory.mktemp("healthy") / "home")
    add_manifest(corpus, "v0001")
    add_takedowns(corpus.store, [make_demand("url", "http://web/0")])
    corpus.store.publish()
    return corpus.home.root


@pytest.fixture
def corpus(healthy_home: Path, tmp_path: Path) -> SmallCorpus:
    return SmallCorpus(shutil.copytree(healthy_home, tmp_path / "home"))


def parts_of(corpus: SmallCorpus, kind: str) -> list[Path]:
    found = corpus.store.query("SELECT part FROM parts WHERE kind = $kind ORDER BY part", {"kind": kind})
    return [corpus.home.parts / kind / f"{part}.parquet" for (part,) in found]


@ONE_LAKE
def test_a_healthy_store_passes_every_check(store):
    corpus = filled(store.home.root, store.settings)
    add_manifest(corpus, "v0001")
    assert [one.name for one in examined(corpus, deep=True) if one.found] == ["published"], "as it is not yet"
    assert not list(corpus.home.scratch.glob("state-*"))


def sql(*statements: str) -> Damage:
    def run(corpus: SmallCorpus) -> None:
        with corpus.store.write() as connection:
            for statement in statements:
                connection.execute(statement)

    return run


def remove_part(kind: str) -> Damage:
    return lambda corpus: parts_of(corpus, kind)[0].unlink()


def shorten_part(corpus: SmallCorpus) -> None:
    path = parts_of(corpus, "texts")[0]
    path.write_bytes(path.read_bytes()[:-10])


def flip_byte(corpus: SmallCorpus) -> None:
    path = parts_of(corpus, "texts")[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def another_text(corpus: SmallCorpus) -> None:
    path = parts_of(corpus, "texts")[0]
    rows = pq.read_table(path)
    texts = [text.upper() for text in rows["text"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("text"), rows.schema.field("text"), [texts]), path)


def keep_withdrawn_text(corpus: SmallCorpus) -> None:
    """What a delivery leaves that is killed after its transaction and before its texts are written without it."""
    rows = [pq.read_table(path) for path in parts_of(corpus, "texts")]
    held = rows[0].slice(0, 1).set_column(0, rows[0].schema.field("doc_id"), pa.array([doc_id(TEXTS[0])], pa.uuid()))
    parts = corpus.store.write_parts("texts", [held])
    with corpus.store.write() as connection:
        add_parts(connection, parts)


def drop_folder(corpus: SmallCorpus) -> None:
    shutil.rmtree(corpus.home.manifests / "v0001")


def change_record(corpus: SmallCorpus) -> None:
    path = corpus.home.manifests / "v0001" / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def garble_published(corpus: SmallCorpus) -> None:
    corpus.home.published.write_bytes(b"no database" * 1_000)


def remove_snapshot_part(corpus: SmallCorpus) -> None:
    ((kind, part),) = corpus.store.query("SELECT kind, part FROM snapshots WHERE name = 'occurrences'")
    (corpus.home.parts / kind / f"{part}.parquet").unlink()


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "an older schema": (sql("ALTER TABLE shards ALTER records TYPE INTEGER"), "schema", "shards.records is INTEGER"),
    "a key twice": (sql("INSERT INTO shards SELECT * FROM shards WHERE shard = 'web/a.jsonl'"), "keys", "shards: 2 rows"),
    "a part is gone": (remove_part("sketches"), "parts_present", "is missing"),
    "a part is short": (shorten_part, "parts_present", "bytes, expected"),
    "a footer is gone": (shorten_part, "part_rows", "cannot be read"),
    "rows do not agree": (sql("UPDATE parts SET rows = rows + 1 WHERE kind = 'bands'"), "part_rows", "rows, expected"),
    "a shard's part is not live": (
        sql("UPDATE shards SET parts = ['no'] WHERE shard = 'web/a.jsonl'"), "shard_parts", "names the part no",
    ),
    "a snapshot's part is gone": (remove_snapshot_part, "snapshot_parts", "manifest v0001, table occurrences"),
    "a garbled published file": (garble_published, "published_whole", "cannot be read"),
    "a published file of another store": (
        sql("UPDATE meta SET value = '0' WHERE key = 'generation'"), "published_whole", "newer than the store's",
    ),
    "a record is lost": (sql("DELETE FROM quarantine WHERE reason = 'invalid_json'"), "records", "shard web/a.jsonl: 5"),
    "a count is wrong": (sql("UPDATE shards SET records = 9 WHERE source = 'web'"), "records", "9 records"),
    "a shard is lost": (sql("DELETE FROM shards WHERE source = 'books'"), "shards_of_records", "3 rows of occurrences"),
    "a source is wrong": (
        sql("UPDATE occurrences SET source = 'x' WHERE source = 'books'"), "shards_of_records", "have source x",
    ),
    "a document is lost": (sql(f"DELETE FROM documents WHERE doc_id = '{doc_id(TEXTS[4])}'"), "documents", "is not there"),
    "a document without occurrence": (
        sql("INSERT INTO documents BY NAME SELECT gen_random_uuid() AS doc_id"), "documents", "has no occurrence",
    ),
    "a wrong dup_count": (sql("UPDATE documents SET dup_count = 7"), "documents", "has dup_count 7"),
    "a wrong canonical occurrence": (
        sql(f"UPDATE documents SET shard = 'web/a.jsonl' WHERE doc_id = '{doc_id(TEXTS[3])}'"), "documents", "stands for row",
    ),
    "a text is lost": (remove_part("texts"), "texts", "could not be checked"),
    "a text is not there": (sql("DELETE FROM parts WHERE kind = 'texts'"), "texts", "document "),
    "a judgement without document": (
        sql(f"INSERT INTO signals (doc_id) VALUES ('{doc_id('nobody')}')"), "judgements", "1 rows of signals judge",
    ),
    "a pair without document": (
        sql(f"INSERT INTO duplicate_pairs (doc_b) VALUES ('{doc_id('nobody')}')"), "judgements", "1 rows of duplicate_pairs",
    ),
    "a withdrawn document": (
        sql(f"INSERT INTO withdrawn (doc_id, kind, value) VALUES ('{doc_id(TEXTS[4])}', 'url', 'http://web/0')"),
        "withdrawn", "is withdrawn and has an occurrence",
    ),
    "a withdrawn text": (keep_withdrawn_text, "withdrawn", "holds the text of row"),
    "a withdrawal without a demand": (sql("DELETE FROM takedowns"), "withdrawn", "which is no takedown"),
    "a manifest's folder is gone": (drop_folder, "manifests", "is missing"),
    "a manifest was changed": (change_record, "manifests", "v0001: manifest.json: was changed"),
    "another manifest": (sql("UPDATE manifests SET digest = 'x'"), "manifests", "v0001, digest: the folder says"),
    "other rows": (sql("UPDATE parts SET kind = 'x' WHERE kind = 'manifest_rows'"), "manifests", "6 rows differ"),
    "a manifest made after a takedown": (
        sql("UPDATE withdrawn SET withdrawn_at = TIMESTAMP '2020-01-01'"), "withdrawn_in_manifests", "v0001 holds 1 documents that had been withdrawn",
    ),
    "a funnel that leaks": (sql("UPDATE shards SET records = 9 WHERE source = 'web'"), "funnels", "now, source 'web': 9"),
    "another corpus": (sql("UPDATE meta SET value = 'x' WHERE key = 'corpus_digest'"), "corpus_digest", "recorded x"),
    "a flipped byte": (flip_byte, "part_digests", "was changed"),
    "texts of other documents": (another_text, "text_ids", "is another document's"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_found_by_its_check(corpus, name):
    damage, check, told = DAMAGES[name]
    damage(corpus)
    found = failing(corpus, deep=check in ("part_digests", "text_ids"))
    assert any(told in example for example in found[check]), found


def test_every_check_that_can_fail_has_a_damage():
    assert {check for _, check, _ in DAMAGES.values()} == {one.name for one in all_checks() if not one.note}


def test_what_is_no_failure_is_said(corpus):
    (corpus.home.parts / "texts" / "stray.parquet").write_bytes(b"x")
    shutil.copytree(corpus.home.manifests / "v0001", corpus.home.manifests / "v0002")
    sql("UPDATE costs SET seconds = 1")(corpus)
    notes = {one.name: one.examples for one in examined(corpus) if one.found}
    assert all(one.ok for one in examined(corpus))
    assert list(notes) == ["orphan_parts", "published", "unlisted_manifests"]
    assert any("stray.parquet (1 bytes)" in example for example in notes["orphan_parts"])
    assert "of generation" in notes["published"][0]


def test_many_findings_are_counted_and_a_few_are_named(corpus):
    sql(*[f"INSERT INTO judged (stage, version, doc_id) VALUES ('s', 'v', '{doc_id(str(at))}')" for at in range(12)])(
        corpus
    )
    (found,) = [one for one in examined(corpus) if one.name == "judgements"]
    assert (found.ok, found.found, len(found.examples)) == (False, 12, 5)


def test_a_store_that_cannot_be_opened_is_said(corpus):
    path = corpus.home.store / "store.duckdb"
    path.write_bytes(b"garbage" * 1_000)
    (found,) = examine(corpus.store, corpus.config)
    assert (found.name, found.ok) == ("store_opens", False)
    assert "restore" in found.mend


def test_without_a_store_the_mend_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no store in"):
        examine(SmallCorpus(tmp_path / "none").store)
    assert not (tmp_path / "none" / "store").exists()
