"""A store of an older Winnow is brought forward whole, or not at all."""

from __future__ import annotations

import re
from datetime import datetime

import pyarrow as pa
import pytest

from winnow.errors import UserError
from winnow.identity import doc_ids
from winnow.store import Store
from winnow.store import migrations as module
from winnow.store.published import open_published
from winnow.store.schema import SCHEMA_VERSION, tables
from winnow.store.store import get_meta, insert_row, replace_owned, set_meta

IDS = [str(doc) for doc in doc_ids(["a", "b", "c"]).to_pylist()]
DECISIONS = [
    ("first", IDS[0], "selected", 0.5), ("first", IDS[1], "rejected", None), ("second", IDS[0], "rejected", 0.25),
]  # fmt: skip


@pytest.fixture
def old(store: Store) -> Store:
    """A store of schema version 1: two selections, a document, a manifest, a text in a part without ``original``."""
    part = write_old_part(store)
    connection = store.backend.open(read_only=False)
    connection.execute("BEGIN")
    for statement in VERSION_1.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema_version', '1'), ('generation', '7'), ('deliveries', '2')")
    for selection, doc, verdict, score in DECISIONS:
        connection.execute(
            "INSERT INTO decisions (selection, doc_id, stage, verdict, score) VALUES (?, ?, 'selection', ?, ?)",
            [selection, doc, verdict, score],
        )
    connection.execute("INSERT INTO documents (doc_id, shard, row) VALUES (?, 's', 0)", [IDS[0]])
    connection.execute("INSERT INTO manifests (version, snapshot) VALUES ('v0001', ['p'])")
    connection.execute("INSERT INTO parts VALUES (?, 'texts', 1, 1, TIMESTAMP '2026-01-01')", [part])
    connection.execute("COMMIT")
    connection.close()
    return store


def write_old_part(store: Store) -> str:
    import pyarrow.parquet as pq

    rows = {"doc_id": doc_ids(["a"]), "shard": ["s"], "row": pa.array([0], pa.int64()), "text": ["a"]}
    path = store.storage.temporary("texts")
    pq.write_table(pa.table(rows), path)
    store.storage.put(path, "texts", "0" * 32)
    return "0" * 32


def state(store: Store) -> tuple:
    """Return what an old store consists of, asked of the backend itself."""
    connection = store.backend.open(read_only=True)
    found = (
        sorted((name, tuple(sorted(columns))) for name, columns in module.columns_of(connection).items()),
        connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall(),
        connection.execute("SELECT selection, doc_id::VARCHAR, verdict, score FROM decisions ORDER BY ALL").fetchall(),
    )
    connection.close()
    return found


def test_a_read_brings_an_old_store_forward_with_its_rows(old):
    found = old.query("SELECT selection, doc_id::VARCHAR, verdict, score FROM decisions ORDER BY ALL")
    assert sorted(found, key=repr) == sorted(DECISIONS, key=repr)
    assert old.query("SELECT kind, owner, rows FROM parts WHERE kind = 'decisions' ORDER BY owner") == [
        ("decisions", "first", 2),
        ("decisions", "second", 1),
    ]
    facts = dict(old.query("SELECT key, value FROM meta"))
    assert (facts["schema_version"], facts["generation"], facts["deliveries"]) == (str(SCHEMA_VERSION), "9", "2")
    assert old.query("SELECT text, original FROM texts") == [("a", None)]
    with old.read() as connection:
        there = module.columns_of(connection)
    for table in tables().values():
        if not table.parts:
            assert there[table.name] == {name for name, _, _ in table.columns}, table.name
    assert "decisions" not in there


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_an_old_store_can_be_published_and_written_at_once(old):
    assert old.publish()
    with open_published(old.home) as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchall() == [(3,)]
    replacement = old.write_parts("decisions", [pa.table({"selection": ["first"], "doc_id": doc_ids(["c"])})])
    with old.write() as connection:
        insert_row(connection, "takedowns", kind="doc_id", value="x")
        replace_owned(connection, "decisions", "first", replacement)
    assert old.query("SELECT selection, count(*) FROM decisions GROUP BY ALL ORDER BY ALL") == [
        ("first", 1),
        ("second", 1),
    ]


def test_a_migration_that_fails_leaves_the_old_store_whole(old, monkeypatch):
    before = state(old)

    def fail(store, connection):
        module._decisions_become_parts(store, connection)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setitem(module.STEPS, 2, fail)
        with pytest.raises(ZeroDivisionError):
            old.query("SELECT 1")
        assert state(old) == before
    assert old.query("SELECT count(*) FROM decisions") == [(3,)]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE shards ADD COLUMN colour VARCHAR", r"has shards\.colour, which this Winnow does not know"),
        ("CREATE TABLE moods (mood VARCHAR)", "has moods, which this Winnow does not know"),
    ],
)
def test_tables_and_columns_of_a_newer_winnow_of_the_same_version_are_refused(store, statement, named):
    with store.write() as connection:
        insert_row(connection, "takedowns", kind="doc_id", value="x")
    connection = store.backend.open(read_only=False)
    connection.execute(statement)
    connection.execute("UPDATE meta SET value = 'of a newer one' WHERE key = 'schema'")
    connection.close()
    before = other_state(store)
    for use in (lambda: store.query("SELECT 1"), lambda: store.write().__enter__()):
        with pytest.raises(UserError, match=named + ".*upgrade winnow"):
            use()
    assert other_state(store) == before


def other_state(store: Store) -> tuple:
    connection = store.backend.open(read_only=True)
    columns = sorted((name, tuple(sorted(columns))) for name, columns in module.columns_of(connection).items())
    found = columns, connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
    connection.close()
    return found


KILLED = """
import winnow.store.migrations as module
step = module.STEPS[2]
def hang(store, connection):
    step(store, connection)
    ready()
    time.sleep(60)
module.STEPS[2] = hang
store.query("SELECT 1")
"""


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_a_process_killed_in_a_migration_leaves_the_old_store_whole(old, process):
    from other_process import wait_until_ready

    before = state(old)
    other = process(KILLED)
    wait_until_ready(other)
    other.kill()
    other.wait()
    assert state(old) == before
    assert old.query("SELECT count(*) FROM decisions") == [(3,)]


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_a_column_that_the_dictionary_gains_is_added_without_a_new_version(store):
    with store.write() as connection:
        insert_row(connection, "costs", stage="before")
        connection.execute("ALTER TABLE costs DROP COLUMN flops")
        connection.execute("DROP TABLE takedowns")
        set_meta(connection, "schema", "that of before")
    assert store.query("SELECT stage, flops FROM costs") == [("before", None)]
    assert store.query("SELECT count(*) FROM takedowns") == [(0,)]
    with store.read() as connection:
        assert get_meta(connection, "generation") == "3"
    assert store.query("SELECT stage FROM costs") == [("before",)]
    with store.read() as connection:
        assert get_meta(connection, "generation") == "3"  # and that is done once


def test_every_version_has_its_step():
    assert sorted(module.STEPS) == list(range(2, SCHEMA_VERSION + 1))
    assert set(re.findall(r"CREATE TABLE (\w+)", VERSION_1)) >= {"decisions", "documents", "meta"}


VERSION_1 = """
CREATE TABLE shards (
    "shard" VARCHAR, "batch" VARCHAR, "source" VARCHAR, "path" VARCHAR, "format" VARCHAR, "bytes" BIGINT,
    "mtime_ns" BIGINT, "sha256" VARCHAR, "reader" VARCHAR, "records" BIGINT, "occurrences" BIGINT, "quarantined"
    BIGINT, "failed" BOOLEAN, "parts" VARCHAR[], "delivered_at" TIMESTAMP, "run_id" VARCHAR
);
CREATE TABLE occurrences (
    "doc_id" UUID, "shard" VARCHAR, "row" BIGINT, "source" VARCHAR, "original_id" VARCHAR, "url" VARCHAR, "date"
    VARCHAR, "metadata" VARCHAR, "characters" BIGINT, "bytes" BIGINT, "words" BIGINT
);
CREATE TABLE documents (
    "doc_id" UUID, "shard" VARCHAR, "row" BIGINT, "source" VARCHAR, "original_id" VARCHAR, "characters" BIGINT,
    "bytes" BIGINT, "words" BIGINT, "dup_count" BIGINT
);
CREATE TABLE quarantine (
    "shard" VARCHAR, "row" BIGINT, "byte_offset" BIGINT, "reason" VARCHAR, "detail" VARCHAR, "excerpt" VARCHAR,
    "records" BIGINT
);
CREATE TABLE signals (
    "doc_id" UUID, "version" VARCHAR, "words" DOUBLE, "characters" DOUBLE, "mean_word_length" DOUBLE, "lines"
    DOUBLE, "paragraphs" DOUBLE, "frac_lines_end_ellipsis" DOUBLE, "frac_lines_bullet" DOUBLE,
    "frac_lines_end_punctuation" DOUBLE, "frac_lines_short" DOUBLE, "newline_word_ratio" DOUBLE,
    "frac_dup_lines" DOUBLE, "frac_dup_line_chars" DOUBLE, "frac_dup_paragraphs" DOUBLE,
    "frac_dup_paragraph_chars" DOUBLE, "frac_chars_top_2gram_gopher" DOUBLE, "frac_chars_top_3gram_gopher"
    DOUBLE, "frac_chars_top_4gram_gopher" DOUBLE, "frac_chars_dup_5gram_rpv2" DOUBLE,
    "frac_chars_dup_6gram_rpv2" DOUBLE, "frac_chars_dup_7gram_rpv2" DOUBLE, "frac_chars_dup_8gram_rpv2" DOUBLE,
    "frac_chars_dup_9gram_rpv2" DOUBLE, "frac_chars_dup_10gram_rpv2" DOUBLE, "frac_chars_dup_5gram_datatrove"
    DOUBLE, "frac_chars_dup_6gram_datatrove" DOUBLE, "frac_chars_dup_7gram_datatrove" DOUBLE,
    "frac_chars_dup_8gram_datatrove" DOUBLE, "frac_chars_dup_9gram_datatrove" DOUBLE,
    "frac_chars_dup_10gram_datatrove" DOUBLE, "hash_symbol_ratio" DOUBLE, "ellipsis_word_ratio" DOUBLE,
    "frac_words_alpha" DOUBLE, "frac_words_all_caps" DOUBLE, "stop_words_distinct" DOUBLE, "frac_stop_words"
    DOUBLE, "frac_unique_words" DOUBLE, "unigram_entropy" DOUBLE, "compression_ratio" DOUBLE, "frac_digits"
    DOUBLE, "frac_upper" DOUBLE, "frac_punctuation" DOUBLE, "frac_symbols" DOUBLE, "frac_space" DOUBLE,
    "frac_curly_brackets" DOUBLE, "gopher_passed" BOOLEAN, "gopher_reason" VARCHAR
);
CREATE TABLE bucket_centers (
    "scheme" VARCHAR, "band" INTEGER, "key" UBIGINT, "doc_id" UUID, "members" UBIGINT
);
CREATE TABLE duplicate_pairs (
    "doc_a" UUID, "doc_b" UUID, "kind" VARCHAR, "similarity" DOUBLE, "scheme" VARCHAR
);
CREATE TABLE duplicates (
    "doc_id" UUID, "kind" VARCHAR, "component" UUID, "keeper_id" UUID, "similarity" DOUBLE, "group_size" BIGINT
);
CREATE TABLE reference_sets (
    "reference" VARCHAR, "kind" VARCHAR, "digest" VARCHAR, "selecting_items" BIGINT, "judging_items" BIGINT,
    "removed_items" BIGINT, "path" VARCHAR
);
CREATE TABLE reference_items (
    "digest" VARCHAR, "item" BIGINT, "item_id" VARCHAR, "part" VARCHAR, "topic" VARCHAR, "text" VARCHAR
);
CREATE TABLE contamination (
    "doc_id" UUID, "evaluation_set" VARCHAR, "version" VARCHAR, "item" BIGINT, "matched" BIGINT, "longest_match"
    BIGINT, "span_start" BIGINT, "span_end" BIGINT, "coverage" DOUBLE, "contaminated" BOOLEAN
);
CREATE TABLE clusters (
    "doc_id" UUID, "clustering" VARCHAR, "cluster" INTEGER, "distance" DOUBLE
);
CREATE TABLE cluster_summary (
    "clustering" VARCHAR, "cluster" INTEGER, "documents" BIGINT, "label" VARCHAR, "mean_distance" DOUBLE,
    "gopher_pass_share" DOUBLE, "duplicate_share" DOUBLE
);
CREATE TABLE token_counts (
    "doc_id" UUID, "tokenizer" VARCHAR, "tokens" BIGINT
);
CREATE TABLE checkpoints (
    "checkpoint" VARCHAR, "sequence" BIGINT, "path" VARCHAR, "weights_digest" VARCHAR, "tokenizer" VARCHAR,
    "parameters" BIGINT, "step" BIGINT, "tokens" BIGINT, "manifest" VARCHAR, "parent" VARCHAR, "registered_at"
    TIMESTAMP
);
CREATE TABLE probes (
    "doc_id" UUID, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "phase" VARCHAR, "influence"
    DOUBLE, "loss" DOUBLE, "tokens" BIGINT, "reason" VARCHAR
);
CREATE TABLE influence_models (
    "model" VARCHAR, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "probes" BIGINT, "spearman"
    DOUBLE, "spearman_low" DOUBLE, "spearman_high" DOUBLE, "oracle_probes" BIGINT, "oracle_spearman" DOUBLE,
    "used" BOOLEAN, "reason" VARCHAR, "path" VARCHAR
);
CREATE TABLE bandit_rounds (
    "selection" VARCHAR, "clustering" VARCHAR, "round" BIGINT, "pull" BIGINT, "cluster" BIGINT, "probes" BIGINT,
    "excluded" BIGINT, "reward" DOUBLE, "reward_variance" DOUBLE, "arm_mean" DOUBLE, "bonus" DOUBLE, "score"
    DOUBLE, "documents_granted" BIGINT, "tokens_granted" BIGINT, "verdict" VARCHAR, "cost" BIGINT
);
CREATE TABLE decisions (
    "selection" VARCHAR, "doc_id" UUID, "stage" VARCHAR, "verdict" VARCHAR, "reason" VARCHAR, "detail" VARCHAR,
    "matched_doc" UUID, "cluster" INTEGER, "score" DOUBLE, "in_control" BOOLEAN
);
CREATE TABLE mixtures (
    "mixture" VARCHAR, "source" VARCHAR, "method" VARCHAR, "weight" DOUBLE, "tokens" BIGINT, "epochs" DOUBLE
);
CREATE TABLE manifests (
    "version" VARCHAR, "digest" VARCHAR, "parent" VARCHAR, "selection" VARCHAR, "state" VARCHAR, "checkpoint"
    VARCHAR, "documents" BIGINT, "tokens" BIGINT, "budget_tokens" BIGINT, "control_tokens" BIGINT,
    "influence_model" VARCHAR, "influence_model_used" BOOLEAN, "path" VARCHAR, "snapshot" VARCHAR[],
    "configuration" VARCHAR, "environment" VARCHAR, "made_at" TIMESTAMP
);
CREATE TABLE validations (
    "version" VARCHAR, "arm" VARCHAR, "tokens" BIGINT, "loss" DOUBLE, "final" BOOLEAN
);
CREATE TABLE costs (
    "stage" VARCHAR, "partition" VARCHAR, "run_id" VARCHAR, "key" VARCHAR, "processed" BIGINT, "seconds" DOUBLE,
    "peak_mb" DOUBLE, "flops" DOUBLE, "finished_at" TIMESTAMP
);
CREATE TABLE stage_keys (
    "stage" VARCHAR, "partition" VARCHAR, "key" VARCHAR, "output" VARCHAR, "finished_at" TIMESTAMP
);
CREATE TABLE judged (
    "stage" VARCHAR, "version" VARCHAR, "doc_id" UUID
);
CREATE TABLE parts (
    "part" VARCHAR, "kind" VARCHAR, "rows" BIGINT, "bytes" BIGINT, "added_at" TIMESTAMP
);
CREATE TABLE meta (
    "key" VARCHAR, "value" VARCHAR
);
"""


@pytest.fixture
def second(store: Store) -> Store:
    """A store of schema version 2: sketches and bands with a row a key, pairs, centers, and what was compared."""
    import pyarrow.parquet as pq

    document, other = doc_ids(["a", "b"]).to_pylist()
    rows = {
        "sketches": {"doc_id": doc_ids(["a"]), "scheme": ["old"], "signature": [b"1234"]},
        "bands": {
            "doc_id": doc_ids(["a"]),
            "scheme": ["old"],
            "band": pa.array([0], pa.int16()),
            "key": pa.array([7], pa.uint64()),
        },
    }
    for number, (kind, columns) in enumerate(rows.items()):
        path = store.storage.temporary(kind)
        pq.write_table(pa.table(columns), path)
        store.storage.put(path, kind, str(number) * 32)
    connection = store.backend.open(read_only=False)
    connection.execute("BEGIN")
    for statement in VERSION_2.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema_version', '2'), ('generation', '7')")
    for number, kind in enumerate(rows):
        connection.execute(
            "INSERT INTO parts (part, kind, rows, bytes, added_at) VALUES (?, ?, 1, 1, TIMESTAMP '2026-01-01')",
            [str(number) * 32, kind],
        )
    for doc in (document, other):
        connection.execute("INSERT INTO documents (doc_id, shard, row) VALUES (?, 's', 0)", [str(doc)])
        for stage in ("duplicate_pairs", "contamination"):
            connection.execute("INSERT INTO judged VALUES (?, 'old', ?)", [stage, str(doc)])
    connection.execute("INSERT INTO bucket_centers VALUES ('old', 0, 7, ?, 300)", [str(document)])
    connection.execute("INSERT INTO duplicate_pairs VALUES (?, ?, 'near', 0.9, 'old')", [str(document), str(other)])
    connection.execute(
        "INSERT INTO duplicates (doc_id, kind, keeper_id, group_size) VALUES (?, 'near', ?, 2)",
        [str(other), str(document)],
    )
    for stage in ("duplicate_pairs", "duplicates", "clusters"):
        connection.execute("INSERT INTO stage_keys (stage, partition, key) VALUES (?, '', 'k')", [stage])
    connection.execute("COMMIT")
    connection.close()
    return store


def test_documents_of_version_2_are_sketched_and_paired_anew(second):
    assert second.query("SELECT count(*) FROM sketches") == second.query("SELECT count(*) FROM bands") == [(0,)]
    assert second.query("SELECT kind FROM parts") == []
    assert second.query("SELECT kind FROM unlisted ORDER BY kind") == [("bands",), ("sketches",)]
    assert second.query("SELECT DISTINCT stage FROM judged") == [("contamination",)]
    assert second.query("SELECT count(*) FROM bucket_centers") == [(0,)]
    assert second.query("SELECT count(*) FROM duplicate_pairs") == [(0,)]
    assert second.query("SELECT stage FROM stage_keys") == [("clusters",)]
    assert second.query("SELECT kind, group_size, occurrences, version FROM duplicates") == [("near", 2, None, None)]
    assert dict(second.query("SELECT key, value FROM meta"))["schema_version"] == str(SCHEMA_VERSION)


@pytest.fixture
def third(store: Store) -> Store:
    """A store of schema version 3: probes, an influence model and scores whose method is packed into one name."""
    import pyarrow.parquet as pq

    rows = {
        "doc_id": doc_ids(["a", "b"]),
        "scorer": ["influence", "other"],
        "version": ["m", "m"],
        "checkpoint": ["c", "c"],
        "reference": ["r", "r"],
        "score": [1.5, 2.5],
    }
    lost = "1" * 32
    path = store.storage.temporary("scores")
    pq.write_table(pa.table(rows), path)
    store.storage.put(path, "scores", "0" * 32)
    connection = store.backend.open(read_only=False)
    connection.execute("BEGIN")
    for statement in VERSION_3.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema_version', '3'), ('generation', '7')")
    for doc in IDS[:2]:
        connection.execute("INSERT INTO documents (doc_id, shard, row) VALUES (?, 's', 0)", [doc])
    for method in (
        "ekfac/blocks/0.1/0123abcd",
        r"grad_dot/h/(1|2)\.mlp/2.5e-05/0123abcd",
        "oracle/89abcdef",
        "grad_dot/all/1/0123abcd",
    ):
        connection.execute("INSERT INTO probes (doc_id, method, influence) VALUES (?, ?, 1)", [IDS[0], method])
    connection.execute(
        "INSERT INTO influence_models (model, method, spearman) VALUES ('m', 'ekfac/blocks/0.1/0123abcd', 0.5)"
    )
    for part in ("0" * 32, lost):
        connection.execute(
            "INSERT INTO parts (part, kind, rows, bytes, owner, added_at) VALUES (?, 'scores', 2, 1, 'o', ?)",
            [part, datetime(2026, 1, 1)],
        )
    connection.execute("COMMIT")
    connection.close()
    return store


def test_estimates_of_version_3_tell_how_they_were_made(third, caplog):
    assert third.query("SELECT method, estimator, scope, projection, damping FROM probes ORDER BY method") == [
        ("ekfac/blocks/0.1/0123abcd", "ekfac", "blocks", 0, 0.1),
        ("grad_dot/all/1/0123abcd", "grad_dot", "blocks+head", 0, 1.0),  # what `all` was then
        (r"grad_dot/h/(1|2)\.mlp/2.5e-05/0123abcd", "grad_dot", r"h/(1|2)\.mlp", 0, 2.5e-5),
        ("oracle/89abcdef", "oracle", "all", 0, None),
    ]
    assert third.query("SELECT estimator, scope, projection, damping, spearman, surrogate FROM influence_models") == [
        ("ekfac", "blocks", 0, 0.1, 0.5, "ridge")
    ]
    lost = "1" * 32
    assert f"{lost}.parquet stays as it is" in caplog.text
    [(part, rows, owner, added)] = third.query(
        "SELECT part, rows, owner, added_at FROM parts WHERE part <> $lost", {"lost": lost}
    )
    assert (rows, owner, added) == (2, "o", datetime(2026, 1, 1))
    with third.storage.open("scores", part) as file:
        found = file.read().drop_columns(["doc_id", "spread"]).to_pylist()
    told = {"version": "m", "checkpoint": "c", "reference": "r"}
    estimate = {"estimator": "ekfac", "scope": "blocks", "projection": 0, "damping": 0.1}
    assert found == [
        {"scorer": "influence", "score": 1.5, **told, **estimate},
        {"scorer": "other", "score": 2.5, **told, **dict.fromkeys(estimate)},
    ]
    assert third.query("SELECT part FROM unlisted") == [("0" * 32,)]


VERSION_3 = """
CREATE TABLE documents (
    "doc_id" UUID, "shard" VARCHAR, "row" BIGINT, "source" VARCHAR, "original_id" VARCHAR, "characters" BIGINT,
    "bytes" BIGINT, "words" BIGINT, "dup_count" BIGINT
);
CREATE TABLE probes (
    "doc_id" UUID, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "phase" VARCHAR, "influence"
    DOUBLE, "loss" DOUBLE, "tokens" BIGINT, "reason" VARCHAR
);
CREATE TABLE influence_models (
    "model" VARCHAR, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "probes" BIGINT, "spearman"
    DOUBLE, "spearman_low" DOUBLE, "spearman_high" DOUBLE, "oracle_probes" BIGINT, "oracle_spearman" DOUBLE,
    "used" BOOLEAN, "reason" VARCHAR, "path" VARCHAR
);
CREATE TABLE parts (
    "part" VARCHAR, "kind" VARCHAR, "rows" BIGINT, "bytes" BIGINT, "owner" VARCHAR, "added_at" TIMESTAMP
);
CREATE TABLE unlisted (
    "part" VARCHAR, "kind" VARCHAR, "unlisted_at" TIMESTAMP
);
CREATE TABLE meta (
    "key" VARCHAR, "value" VARCHAR
);
"""
"""What the step of version 4 touches; the other tables are those of version 2, or new."""


VERSION_2 = """
CREATE TABLE shards (
    "shard" VARCHAR, "batch" VARCHAR, "source" VARCHAR, "path" VARCHAR, "format" VARCHAR, "bytes" BIGINT,
    "mtime_ns" BIGINT, "sha256" VARCHAR, "reader" VARCHAR, "normalization" VARCHAR, "fields" VARCHAR, "records"
    BIGINT, "occurrences" BIGINT, "quarantined" BIGINT, "failed" BOOLEAN, "parts" VARCHAR[], "delivered_at"
    TIMESTAMP, "run_id" VARCHAR
);
CREATE TABLE occurrences (
    "doc_id" UUID, "shard" VARCHAR, "row" BIGINT, "source" VARCHAR, "original_id" VARCHAR, "url" VARCHAR, "date"
    VARCHAR, "metadata" VARCHAR, "characters" BIGINT, "bytes" BIGINT, "words" BIGINT
);
CREATE TABLE documents (
    "doc_id" UUID, "shard" VARCHAR, "row" BIGINT, "source" VARCHAR, "original_id" VARCHAR, "characters" BIGINT,
    "bytes" BIGINT, "words" BIGINT, "dup_count" BIGINT
);
CREATE TABLE quarantine (
    "shard" VARCHAR, "row" BIGINT, "byte_offset" BIGINT, "reason" VARCHAR, "detail" VARCHAR, "excerpt" VARCHAR,
    "records" BIGINT, "doc_id" UUID, "original_id" VARCHAR, "url" VARCHAR
);
CREATE TABLE refused (
    "shard" VARCHAR, "path" VARCHAR, "bytes" BIGINT, "mtime_ns" BIGINT, "reason" VARCHAR, "refused_at" TIMESTAMP
);
CREATE TABLE takedowns (
    "kind" VARCHAR, "value" VARCHAR, "reason" VARCHAR, "added_at" TIMESTAMP
);
CREATE TABLE withdrawn (
    "doc_id" UUID, "kind" VARCHAR, "value" VARCHAR, "withdrawn_at" TIMESTAMP
);
CREATE TABLE signals (
    "doc_id" UUID, "version" VARCHAR, "words" DOUBLE, "characters" DOUBLE, "mean_word_length" DOUBLE, "lines"
    DOUBLE, "paragraphs" DOUBLE, "frac_lines_end_ellipsis" DOUBLE, "frac_lines_bullet" DOUBLE,
    "frac_lines_end_punctuation" DOUBLE, "frac_lines_short" DOUBLE, "newline_word_ratio" DOUBLE,
    "frac_dup_lines" DOUBLE, "frac_dup_line_chars" DOUBLE, "frac_dup_paragraphs" DOUBLE,
    "frac_dup_paragraph_chars" DOUBLE, "frac_chars_top_2gram_gopher" DOUBLE, "frac_chars_top_3gram_gopher"
    DOUBLE, "frac_chars_top_4gram_gopher" DOUBLE, "frac_chars_dup_5gram_rpv2" DOUBLE,
    "frac_chars_dup_6gram_rpv2" DOUBLE, "frac_chars_dup_7gram_rpv2" DOUBLE, "frac_chars_dup_8gram_rpv2" DOUBLE,
    "frac_chars_dup_9gram_rpv2" DOUBLE, "frac_chars_dup_10gram_rpv2" DOUBLE, "frac_chars_dup_5gram_datatrove"
    DOUBLE, "frac_chars_dup_6gram_datatrove" DOUBLE, "frac_chars_dup_7gram_datatrove" DOUBLE,
    "frac_chars_dup_8gram_datatrove" DOUBLE, "frac_chars_dup_9gram_datatrove" DOUBLE,
    "frac_chars_dup_10gram_datatrove" DOUBLE, "hash_symbol_ratio" DOUBLE, "ellipsis_word_ratio" DOUBLE,
    "frac_words_alpha" DOUBLE, "frac_words_all_caps" DOUBLE, "stop_words_distinct" DOUBLE, "frac_stop_words"
    DOUBLE, "frac_unique_words" DOUBLE, "unigram_entropy" DOUBLE, "compression_ratio" DOUBLE, "frac_digits"
    DOUBLE, "frac_upper" DOUBLE, "frac_punctuation" DOUBLE, "frac_symbols" DOUBLE, "frac_space" DOUBLE,
    "frac_curly_brackets" DOUBLE, "gopher_passed" BOOLEAN, "gopher_reason" VARCHAR
);
CREATE TABLE bucket_centers (
    "scheme" VARCHAR, "band" INTEGER, "key" UBIGINT, "doc_id" UUID, "members" UBIGINT
);
CREATE TABLE duplicate_pairs (
    "doc_a" UUID, "doc_b" UUID, "kind" VARCHAR, "similarity" DOUBLE, "scheme" VARCHAR
);
CREATE TABLE duplicates (
    "doc_id" UUID, "kind" VARCHAR, "component" UUID, "keeper_id" UUID, "similarity" DOUBLE, "group_size" BIGINT
);
CREATE TABLE reference_sets (
    "reference" VARCHAR, "kind" VARCHAR, "digest" VARCHAR, "selecting_items" BIGINT, "judging_items" BIGINT,
    "removed_items" BIGINT, "path" VARCHAR
);
CREATE TABLE reference_items (
    "digest" VARCHAR, "item" BIGINT, "item_id" VARCHAR, "part" VARCHAR, "topic" VARCHAR, "text" VARCHAR
);
CREATE TABLE contamination (
    "doc_id" UUID, "evaluation_set" VARCHAR, "version" VARCHAR, "item" BIGINT, "matched" BIGINT, "longest_match"
    BIGINT, "span_start" BIGINT, "span_end" BIGINT, "coverage" DOUBLE, "contaminated" BOOLEAN
);
CREATE TABLE clusters (
    "doc_id" UUID, "clustering" VARCHAR, "cluster" INTEGER, "distance" DOUBLE
);
CREATE TABLE cluster_summary (
    "clustering" VARCHAR, "cluster" INTEGER, "documents" BIGINT, "label" VARCHAR, "mean_distance" DOUBLE,
    "gopher_pass_share" DOUBLE, "duplicate_share" DOUBLE
);
CREATE TABLE token_counts (
    "doc_id" UUID, "tokenizer" VARCHAR, "tokens" BIGINT
);
CREATE TABLE checkpoints (
    "checkpoint" VARCHAR, "sequence" BIGINT, "path" VARCHAR, "weights_digest" VARCHAR, "tokenizer" VARCHAR,
    "parameters" BIGINT, "step" BIGINT, "tokens" BIGINT, "manifest" VARCHAR, "parent" VARCHAR, "registered_at"
    TIMESTAMP
);
CREATE TABLE probes (
    "doc_id" UUID, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "phase" VARCHAR, "influence"
    DOUBLE, "loss" DOUBLE, "tokens" BIGINT, "reason" VARCHAR
);
CREATE TABLE influence_models (
    "model" VARCHAR, "checkpoint" VARCHAR, "reference" VARCHAR, "method" VARCHAR, "probes" BIGINT, "spearman"
    DOUBLE, "spearman_low" DOUBLE, "spearman_high" DOUBLE, "oracle_probes" BIGINT, "oracle_spearman" DOUBLE,
    "used" BOOLEAN, "reason" VARCHAR, "path" VARCHAR
);
CREATE TABLE bandit_rounds (
    "selection" VARCHAR, "clustering" VARCHAR, "round" BIGINT, "pull" BIGINT, "cluster" BIGINT, "probes" BIGINT,
    "excluded" BIGINT, "reward" DOUBLE, "reward_variance" DOUBLE, "arm_mean" DOUBLE, "bonus" DOUBLE, "score"
    DOUBLE, "documents_granted" BIGINT, "tokens_granted" BIGINT, "verdict" VARCHAR, "cost" BIGINT
);
CREATE TABLE mixtures (
    "mixture" VARCHAR, "source" VARCHAR, "method" VARCHAR, "weight" DOUBLE, "tokens" BIGINT, "epochs" DOUBLE
);
CREATE TABLE manifests (
    "version" VARCHAR, "digest" VARCHAR, "parent" VARCHAR, "selection" VARCHAR, "state" VARCHAR, "checkpoint"
    VARCHAR, "documents" BIGINT, "tokens" BIGINT, "budget_tokens" BIGINT, "control_tokens" BIGINT,
    "influence_model" VARCHAR, "influence_model_used" BOOLEAN, "path" VARCHAR, "snapshot" VARCHAR[],
    "configuration" VARCHAR, "environment" VARCHAR, "made_at" TIMESTAMP
);
CREATE TABLE validations (
    "version" VARCHAR, "arm" VARCHAR, "tokens" BIGINT, "loss" DOUBLE, "final" BOOLEAN
);
CREATE TABLE costs (
    "stage" VARCHAR, "partition" VARCHAR, "run_id" VARCHAR, "key" VARCHAR, "processed" BIGINT, "bytes" BIGINT,
    "seconds" DOUBLE, "peak_mb" DOUBLE, "flops" DOUBLE, "finished_at" TIMESTAMP
);
CREATE TABLE stage_keys (
    "stage" VARCHAR, "partition" VARCHAR, "key" VARCHAR, "output" VARCHAR, "finished_at" TIMESTAMP
);
CREATE TABLE judged (
    "stage" VARCHAR, "version" VARCHAR, "doc_id" UUID
);
CREATE TABLE parts (
    "part" VARCHAR, "kind" VARCHAR, "rows" BIGINT, "bytes" BIGINT, "owner" VARCHAR, "added_at" TIMESTAMP
);
CREATE TABLE unlisted (
    "part" VARCHAR, "kind" VARCHAR, "unlisted_at" TIMESTAMP
);
CREATE TABLE snapshots (
    "version" VARCHAR, "name" VARCHAR, "kind" VARCHAR, "part" VARCHAR, "content" VARCHAR
);
CREATE TABLE meta (
    "key" VARCHAR, "value" VARCHAR
);
"""
