"""From verdicts to a checked manifest: who may be selected, where every record went, and what a check catches."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.errors import UserError
from winnow.identity import doc_id, doc_ids
from winnow.mixture.manifest import build_manifest
from winnow.mixture.manifest_files import write_manifest
from winnow.stages.checks import check_manifest
from winnow.stages.manifests import funnel, funnel_problems, manifest_row
from winnow.stages.pool import admissible, budget_tokens, candidate_pool
from winnow.store.store import insert, insert_row, replace_owned

LEAKED = "the reference of this test has a sentence of more than thirteen words and that is why it counts"
TOKENS = 100


def prose(seed: int, words: int = 60) -> str:
    """Return text that passes Gopher's rules and shares nothing with other seeds."""
    draw = random.Random(seed)
    syllables = ["ba", "do", "ki", "lu", "me", "no", "pra", "ri", "su", "ta", "ve", "zo"]
    made = ["".join(draw.choices(syllables, k=3)) for _ in range(words)]
    for at in range(0, words, 7):
        made[at] = ["the", "of", "and", "to", "with"][at // 7 % 5]
    return " ".join(made)


def nearly(text: str) -> str:
    return text + " lastly"


GOOD = [prose(seed) for seed in range(6)]


BUDGET: dict[str, Any] = {"selection": {"budget_tokens": 10 * TOKENS}}


@pytest.fixture
def corpus(tmp_path) -> SmallCorpus:
    return SmallCorpus(tmp_path / "home", sets=[reference_items(LEAKED)], **BUDGET)


@pytest.fixture(scope="module")
def sound_home(tmp_path_factory) -> Path:
    """A home whose manifest v0001 passes every check; to be copied, as a home can be moved."""
    home = tmp_path_factory.mktemp("sound") / "home"
    with_manifest(judged(SmallCorpus(home, sets=[reference_items(LEAKED)], **BUDGET), web=GOOD), GOOD)
    return home


@pytest.fixture
def sound(sound_home, tmp_path) -> SmallCorpus:
    return SmallCorpus(shutil.copytree(sound_home, tmp_path / "home"), **BUDGET)


def judged(corpus: SmallCorpus, **sources: Sequence[str]) -> SmallCorpus:
    """Deliver texts by source, judge them, and give each a cluster and its tokens."""
    for source, texts in sources.items():
        corpus.write(f"{source}/a.jsonl", [{"text": text} for text in texts])
    corpus.deliver()
    corpus.judge()
    with corpus.store.write() as connection:
        documents = connection.execute("SELECT doc_id FROM documents").to_arrow_table()
        count = len(documents)
        for table, columns in (
            ("clusters", {"clustering": pa.array(["k"] * count), "cluster": pa.array([1] * count)}),
            ("token_counts", {"tokenizer": pa.array(["t"] * count), "tokens": pa.array([TOKENS] * count)}),
        ):
            insert(connection, table, pa.table({"doc_id": documents["doc_id"], **columns}))
    return corpus


def verdicts(corpus: SmallCorpus) -> dict[str, tuple[str | None, str | None]]:
    """Return text -> (stage that objects, reason)."""
    pool = candidate_pool(corpus.store, corpus.config, "k", "t")
    texts = {row[0]: row[3] for row in corpus.rows("texts")}
    return {texts[row["doc_id"]]: (row["stage"], row["reason"]) for row in pool.documents.to_pylist()}


def test_the_first_stage_that_objects_gives_the_verdict(corpus):
    low = "the of " + LEAKED  # too short, and in the reference
    both = GOOD[0] + " " + LEAKED
    copy = both + " x"  # a near duplicate of the one before, and in the reference as it is
    found = verdicts(judged(corpus, web=[low, nearly(low), both, copy, GOOD[1], nearly(GOOD[1]), GOOD[2]]))
    assert found[low] == found[nearly(low)] == ("signals", "low_quality")
    assert sorted([found[both], found[copy]]) == [("contamination", "contaminated"), ("duplicates", "near_duplicate")]
    kept = [text for text in (GOOD[1], nearly(GOOD[1])) if found[text] == (None, None)]
    assert len(kept) == 1
    assert found[GOOD[2]] == (None, None)


def test_a_verdict_names_its_evidence(corpus):
    judged(corpus, web=["too short", GOOD[0], nearly(GOOD[0]), GOOD[1] + " " + LEAKED])
    pool = candidate_pool(corpus.store, corpus.config, "k", "t")
    rows = {row["stage"]: row for row in pool.documents.to_pylist()}
    assert rows["signals"]["detail"].startswith("words 2")
    assert rows["duplicates"]["matched_doc"] == rows[None]["doc_id"]
    assert rows["duplicates"]["detail"] == f"Jaccard {56 / 57:.3f} with the keeper"
    assert rows["contamination"]["detail"] == f"{len(LEAKED.split())} words in a row with reference"
    assert [row["doc_id"] for row in pool.candidates.to_pylist()] == [rows[None]["doc_id"]]
    assert pool.tokens == TOKENS
    assert admissible(corpus.store, corpus.config)["doc_id"].to_pylist() == [rows[None]["doc_id"]]


def test_of_two_sets_with_equally_long_matches_the_first_by_name_is_named(tmp_path):
    sets = [reference_items(LEAKED), *(reference_items(LEAKED, name=name, kind="evaluation") for name in ("b", "a"))]
    corpus = judged(SmallCorpus(tmp_path, sets=sets), web=[GOOD[0] + " " + LEAKED])
    (row,) = candidate_pool(corpus.store, corpus.config, "k", "t").documents.to_pylist()
    assert row["detail"] == "1.00 of the question of an item of a"


def test_without_the_filter_quality_is_recorded_and_does_not_object(tmp_path):
    corpus = judged(SmallCorpus(tmp_path, quality={"filter": False}), web=["too short", GOOD[0]])
    assert set(verdicts(corpus).values()) == {(None, None)}
    assert corpus.store.query("SELECT count(*) FROM signals WHERE NOT gopher_passed") == [(1,)]


def test_duplicates_of_another_state_or_configuration_are_not_selected_from(corpus):
    judged(corpus, web=GOOD[:2])
    strict = corpus.config.model_validate(corpus.config.model_dump() | {"duplicates": {"threshold": 0.99}})
    assert len(admissible(corpus.store, corpus.config)) == 2
    for config in (strict, corpus.config):
        if config is corpus.config:
            corpus.write("web/b.jsonl", [{"text": GOOD[2]}])
            corpus.deliver()
        for build in (admissible, lambda store, config: candidate_pool(store, config, "k", "t")):
            with pytest.raises(UserError, match=r"near duplicates are not those of the present .* materialize"):
                build(corpus.store, config)


@pytest.mark.parametrize("table", ["signals", "clusters", "token_counts"])
def test_a_pool_with_missing_judgements_raises_and_says_what_to_materialize(corpus, table):
    judged(corpus, web=GOOD)
    with corpus.store.write() as connection:
        connection.execute(f"DELETE FROM {table} WHERE doc_id = $doc", {"doc": doc_id(GOOD[0])})
    with pytest.raises(LookupError, match=r"1 of 6 documents lack.*materialize"):
        candidate_pool(corpus.store, corpus.config, "k", "t")


def test_judgements_of_another_version_do_not_count(corpus):
    judged(corpus, web=GOOD)
    with pytest.raises(LookupError, match="6 of 6"):
        candidate_pool(corpus.store, corpus.config, "another clustering", "t")
    with pytest.raises(LookupError, match="6 of 6"):
        candidate_pool(corpus.store, corpus.config, "k", "another tokenizer")


def test_the_pool_is_sorted_and_its_digest_is_of_the_set(corpus, tmp_path):
    judged(corpus, web=GOOD)
    other = judged(SmallCorpus(tmp_path / "other", sets=[reference_items(LEAKED)]), web=GOOD[3:][::-1], books=GOOD[:3])
    pools = [candidate_pool(one.store, one.config, "k", "t") for one in (corpus, other)]
    for pool in pools:
        ids = [str(found) for found in pool.documents["doc_id"].to_pylist()]
        assert ids == sorted(ids)
    assert pools[0].digest == pools[1].digest
    assert budget_tokens(corpus.config, pools[0]) == 10 * TOKENS
    assert budget_tokens(other.config, pools[1]) == 6 * TOKENS // 4


# -- the funnel -----------------------------------------------------------------------------------------------------


def decide(corpus: SmallCorpus, selection: str, kept: Sequence[str], **removed: Sequence[str]) -> None:
    found = []
    for verdict, reason, texts in (
        ("selected", "granted", kept),
        *(("rejected", *item) for item in removed.items()),
    ):
        ids = doc_ids(texts)
        columns = {"selection": selection, "verdict": verdict, "reason": reason}
        rows = {name: pa.array([value] * len(ids), pa.string()) for name, value in columns.items()}
        found.append(pa.table({"doc_id": ids, **rows}))
    parts = corpus.store.write_parts("decisions", found)
    with corpus.store.write() as connection:
        replace_owned(connection, "decisions", selection, parts)


def outcomes(corpus: SmallCorpus, selection: str = "s") -> dict[str, dict[str, dict[str, int]]]:
    with corpus.store.read("decisions") as connection:
        return funnel(connection, selection, "t")


def test_every_record_of_every_source_has_one_outcome(corpus):
    corpus.write("web/b.jsonl", [{"text": GOOD[0]}, b"{broken", {"text": GOOD[3]}])
    corpus.write("bad/a.jsonl", [{"text": GOOD[4]}, *[b"{broken"] * 11])
    corpus.write("empty/a.jsonl", [])
    judged(corpus, web=[GOOD[0], GOOD[1], GOOD[0]], books=[GOOD[0], GOOD[2]])
    decide(corpus, "s", [GOOD[1], GOOD[0]], low_quality=[GOOD[2]])
    found = outcomes(corpus)
    assert funnel_problems(found) == []
    assert found == {
        "books": {
            "kept": {"records": 1, "tokens": TOKENS},  # the canonical occurrence: books is the smaller name
            "low_quality": {"records": 1, "tokens": TOKENS},
            "records": {"records": 2, "tokens": 2 * TOKENS},
        },
        "web": {
            "exact_duplicate": {"records": 3, "tokens": 3 * TOKENS},
            "kept": {"records": 1, "tokens": TOKENS},
            "not_judged": {"records": 1, "tokens": TOKENS},
            "quarantined": {"records": 1, "tokens": 0},
            "records": {"records": 6, "tokens": 5 * TOKENS},
        },
        "bad": {"quarantined": {"records": 12, "tokens": 0}, "records": {"records": 12, "tokens": 0}},
        "empty": {"records": {"records": 0, "tokens": 0}},
    }


def test_the_funnel_of_one_selection_knows_nothing_of_another(corpus):
    judged(corpus, web=GOOD[:2])
    decide(corpus, "s", [GOOD[0]], over_budget=[GOOD[1]])
    decide(corpus, "another", [GOOD[1]], over_budget=[GOOD[0]])
    for selection in ("s", "another"):
        assert {name: count["records"] for name, count in outcomes(corpus, selection)["web"].items()} == {
            "kept": 1, "over_budget": 1, "records": 2,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM occurrences WHERE row = 0", "source 'web': 3 records delivered, 2 accounted for"),
        ("DELETE FROM quarantine", "source 'web': 3 records delivered, 2 accounted for"),
        ("UPDATE shards SET records = records + 1", "source 'web': 4 records delivered, 3 accounted for"),
        ("DELETE FROM documents", "source 'web': 3 records delivered, 1 accounted for"),
        ("DELETE FROM shards", "source 'web': 0 records delivered, 2 accounted for"),
    ],
)
def test_a_funnel_that_does_not_add_up_names_the_source(corpus, statement, sentence):
    corpus.write("web/a.jsonl", [{"text": GOOD[0]}, {"text": GOOD[1]}, b"{broken"])
    corpus.deliver()
    assert funnel_problems(outcomes(corpus)) == []
    change(corpus, statement)
    assert funnel_problems(outcomes(corpus)) == [sentence]


# -- what a check of a manifest catches -----------------------------------------------------------------------------


def with_manifest(corpus: SmallCorpus, texts: Sequence[str]) -> SmallCorpus:
    """Write v0001 over these texts and register it, its selection, its checkpoint and its influence model."""
    count = len(texts)
    rows = pa.table(
        {
            "order": pa.array(range(count), pa.int64()),
            "doc_id": doc_ids(texts),
            "uri": ["web/a.jsonl"] * count,
            "row": pa.array(range(count), pa.int64()),
            "source": ["web"] * count,
            "tokens": pa.array([TOKENS] * count, pa.int64()),
            "repeats": pa.array([1] * count, pa.int32()),
            "reason": ["granted"] * count,
        }
    )
    manifest = build_manifest(
        rows, version="v0001", token_budget=10 * TOKENS, seed=0, configuration={}, inputs={}, weights={"web": 1.0}
    )
    folder = write_manifest(manifest, corpus.home.manifests)
    decide(corpus, "s", texts)
    corpus.home.checkpoints.mkdir(exist_ok=True)
    with corpus.store.write() as connection:
        insert_row(connection, "checkpoints", checkpoint="c", path="checkpoints", weights_digest="w", tokenizer="t")
        insert_row(
            connection, "influence_models",
            model="m", checkpoint="c", spearman=0.42, used=True,
        )  # fmt: skip
        insert_row(
            connection, "manifests",
            version="v0001", digest=manifest.digest, selection="s", checkpoint="c", documents=count,
            tokens=manifest.tokens, budget_tokens=10 * TOKENS, influence_model="m", influence_model_used=True,
            path=corpus.home.name(folder),
        )  # fmt: skip
    return corpus


def change(corpus: SmallCorpus, statement: str) -> None:
    with corpus.store.write() as connection:
        connection.execute(statement)


def checked(corpus: SmallCorpus) -> Mapping[str, tuple[bool, str]]:
    return {found.name: (found.passed, found.detail) for found in check_manifest(corpus.store, corpus.config)}


def failing(corpus: SmallCorpus) -> list[str]:
    return [name for name, (passed, _) in checked(corpus).items() if not passed]


def test_a_sound_manifest_passes_every_check(sound):
    found = checked(sound)
    assert [name for name, (passed, _) in found.items() if passed] == [
        "funnel_equality", "no_reference_leakage", "no_duplicate_pair", "within_budget", "digest_verifies",
        "influence_model_above_floor",
    ]  # fmt: skip
    assert found["within_budget"][1] == "600 of 1,000 tokens"
    assert found["influence_model_above_floor"][1] == "held-out Spearman 0.420"


def test_a_leaking_document_fails_and_is_named(corpus):
    """Whatever the table says: the texts are compared anew."""
    leak = GOOD[0] + " " + LEAKED.upper()
    with_manifest(judged(corpus, web=[leak, *GOOD[1:]]), [leak, *GOOD[1:]])
    change(corpus, "DELETE FROM contamination")
    assert failing(corpus) == ["no_reference_leakage"]
    detail = checked(corpus)["no_reference_leakage"][1]
    assert str(doc_id(leak)) in detail
    assert f"{len(LEAKED.split())} words in a row with reference" in detail


def test_both_members_of_a_near_duplicate_pair_fail_and_are_named(corpus):
    texts = [*GOOD, nearly(GOOD[3])]
    with_manifest(judged(corpus, web=texts), texts)
    change(corpus, "DELETE FROM duplicate_pairs")
    change(corpus, "DELETE FROM duplicates")
    assert failing(corpus) == ["no_duplicate_pair"]
    detail = checked(corpus)["no_duplicate_pair"][1]
    assert str(doc_id(GOOD[3])) in detail
    assert str(doc_id(nearly(GOOD[3]))) in detail


def test_more_tokens_than_the_budget_fail(sound):
    change(sound, f"UPDATE manifests SET budget_tokens = {5 * TOKENS}")
    assert failing(sound) == ["within_budget"]


def test_a_row_that_was_changed_afterwards_fails(sound):
    path = sound.home.manifests / "v0001" / "rows.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(rows.column_names.index("reason"), "reason", pa.array(["other"] * len(rows))), path)
    assert failing(sound) == ["digest_verifies"]


def test_another_manifest_in_the_folder_fails_though_it_is_sound_in_itself(sound):
    change(sound, "UPDATE manifests SET digest = 'another'")
    assert failing(sound) == ["digest_verifies"]


def test_a_record_that_was_changed_afterwards_fails(sound):
    path = sound.home.manifests / "v0001" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 1}))
    assert failing(sound) == ["digest_verifies"]


def test_a_funnel_that_does_not_add_up_fails(sound):
    change(sound, "UPDATE shards SET records = records + 1")
    assert failing(sound) == ["funnel_equality"]
    assert checked(sound)["funnel_equality"][1] == "source 'web': 7 records delivered, 6 accounted for"


def test_an_influence_model_below_its_floor_fails_with_the_reason(sound):
    change(sound, "UPDATE manifests SET influence_model_used = false")
    change(sound, "UPDATE influence_models SET reason = 'below the floor'")
    assert failing(sound) == ["influence_model_above_floor"]
    assert checked(sound)["influence_model_above_floor"][1] == "below the floor"


def test_the_newest_manifest_is_the_one_with_the_largest_number(corpus):
    with corpus.store.write() as connection:
        for version in ("v0002", "v10000", "v9999"):
            insert_row(connection, "manifests", version=version, checkpoint="c" if version == "v0002" else "d")
    with corpus.store.read() as connection:
        assert manifest_row(connection)["version"] == "v10000"
        assert manifest_row(connection, checkpoint="c")["version"] == "v0002"
        assert manifest_row(connection, "v9999")["version"] == "v9999"
        with pytest.raises(UserError, match=r"no manifest v0003; the store has v0002, "):
            manifest_row(connection, "v0003")


def test_without_a_manifest_the_mend_is_named(corpus):
    with pytest.raises(UserError, match="the store has none yet: run `winnow demo`"):
        check_manifest(corpus.store, corpus.config)
