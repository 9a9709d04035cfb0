"""Near duplicates in the store: what a pair, a keeper and a group are, whatever the settings were before."""

from __future__ import annotations

import pyarrow as pa
import pytest
from small_corpus import SmallCorpus

from winnow.config import Duplicates
from winnow.dedup import candidates, shingles
from winnow.dedup.buckets import BandColumns
from winnow.dedup.sketch import band, make_plan, sketch
from winnow.errors import UserError
from winnow.identity import doc_id, doc_ids
from winnow.stages import band_rows, sketches
from winnow.stages import duplicate_pairing as stage_module
from winnow.stages.duplicate_check import pairs_among
from winnow.store.stage import Stage
from winnow.store.store import insert

BASE = [f"word{number}" for number in range(15)]  # 11 shingles
TEXT = " ".join(BASE)
LONGER = " ".join([*BASE, "more"])  # Jaccard 11/12
OTHER_END = " ".join([*BASE[:-1], "else"])  # 10/12 with the first, 10/13 with the longer one
FAR = " ".join([*BASE[:12], "quite", "other", "end"])  # 8/14 with the first


@pytest.fixture
def corpus(tmp_path) -> SmallCorpus:
    return SmallCorpus(tmp_path / "home")


def deliver(corpus: SmallCorpus, **sources: list[str]) -> SmallCorpus:
    for source, texts in sources.items():
        corpus.write(f"{source}/a.jsonl", [{"text": text} for text in texts])
    corpus.deliver()
    corpus.judge_duplicates()
    return corpus


def configure(corpus: SmallCorpus, **duplicates: float) -> None:
    corpus.config = corpus.config.model_validate(corpus.config.model_dump() | {"duplicates": duplicates})


def near(corpus: SmallCorpus) -> dict[str, tuple[str, float, int]]:
    """Return text -> (text of the keeper, similarity to it, group size)."""
    names = {doc_id(text): text for text in (TEXT, LONGER, OTHER_END, FAR)}
    rows = corpus.store.query("SELECT doc_id, keeper_id, similarity, group_size FROM duplicates WHERE kind = 'near'")
    return {names[doc]: (names[keeper], similarity, size) for doc, keeper, similarity, size in rows}


def test_a_pair_carries_the_exact_similarity_and_the_smaller_id_first(corpus):
    deliver(corpus, web=[TEXT, LONGER, OTHER_END, FAR])
    found = {(a, b): s for a, b, s in corpus.store.query("SELECT doc_a, doc_b, similarity FROM duplicate_pairs")}
    expected = {
        tuple(sorted(map(doc_id, pair))): s for *pair, s in ((TEXT, LONGER, 11 / 12), (TEXT, OTHER_END, 10 / 12))
    }
    assert found == expected


def test_the_most_connected_document_is_kept_and_every_other_is_a_duplicate_of_it(corpus):
    deliver(corpus, web=[LONGER, OTHER_END], books=[TEXT], code=[FAR])
    assert near(corpus) == {TEXT: (TEXT, 1.0, 3), LONGER: (TEXT, 11 / 12, 3), OTHER_END: (TEXT, 10 / 12, 3)}


def test_a_preferred_source_is_kept_and_who_is_no_duplicate_of_it_is_kept_too(tmp_path):
    corpus = SmallCorpus(tmp_path, corpus={"sources": {"web": {"priority": -1}}})
    deliver(corpus, web=[LONGER], books=[TEXT, OTHER_END])
    assert near(corpus) == {LONGER: (LONGER, 1.0, 2), TEXT: (LONGER, 11 / 12, 2), OTHER_END: (OTHER_END, 1.0, 1)}


def test_copies_of_one_text_are_one_exact_group(corpus):
    deliver(corpus, web=[TEXT, TEXT], books=[TEXT])
    assert corpus.store.query("SELECT doc_id, keeper_id, similarity, group_size, kind FROM duplicates") == [
        (doc_id(TEXT), doc_id(TEXT), 1.0, 3, "exact")
    ]


def test_settings_that_come_back_bring_their_groups_back(corpus):
    deliver(corpus, web=[TEXT, LONGER, OTHER_END])
    before = corpus.rows("duplicates")
    for threshold in (0.9, 0.8, 0.75, 0.8):
        configure(corpus, threshold=threshold)
        assert corpus.judge_duplicates() == 3
        pairs = {0.9: 2, 0.8: 3, 0.75: 3}[threshold]
        assert len(near(corpus)) == pairs
    assert corpus.rows("duplicates") == before
    assert corpus.judge_duplicates() == 0


def test_priorities_that_come_back_bring_their_keepers_back(corpus):
    deliver(corpus, web=[TEXT], books=[LONGER])
    before = near(corpus)
    kept = []
    for source in ("web", "books", "web"):
        sources = {"corpus": {"sources": {source: {"priority": -1}}}}
        corpus.config = corpus.config.model_validate(corpus.config.model_dump() | sources)
        corpus.deliver()
        corpus.judge_duplicates()
        kept.append(near(corpus)[TEXT][0])
    assert kept == [TEXT, LONGER, TEXT]
    corpus.config = corpus.config.model_validate(corpus.config.model_dump() | {"corpus": {}})
    corpus.deliver()
    corpus.judge_duplicates()
    assert near(corpus) == before


def test_texts_without_words_are_nobodys_duplicates(corpus):
    corpus.write("web/a.jsonl", [{"text": "!!!"}, {"text": "..."}, {"text": "? !"}])
    corpus.deliver()
    assert corpus.judge_duplicates() == 3
    assert corpus.rows("duplicates") == []
    assert len(corpus.rows("sketches")) == 3
    assert corpus.judge_duplicates() == 0


def test_pairs_are_found_anew_whatever_the_tables_say(corpus):
    deliver(corpus, web=[TEXT, LONGER, FAR])
    with corpus.store.write() as connection:
        for table in ("duplicate_pairs", "duplicates"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM parts WHERE kind <> 'texts'")
    documents = corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")
    (pair,) = pairs_among(corpus.store, documents, make_plan(corpus.config.duplicates)).to_pylist()
    assert {pair["doc_a"], pair["doc_b"]} == {doc_id(TEXT), doc_id(LONGER)}
    assert pair["similarity"] == 11 / 12
    assert len(pairs_among(corpus.store, documents.slice(0, 0), make_plan(corpus.config.duplicates))) == 0


def test_a_new_threshold_bands_the_stored_signatures_and_reads_no_text(corpus, monkeypatch):
    deliver(corpus, web=[TEXT, LONGER, OTHER_END, "!!!"])
    signatures = corpus.rows("sketches")

    def read(*_):
        raise AssertionError("a text is read")

    configure(corpus, threshold=0.9)
    plan = make_plan(corpus.config.duplicates)
    with monkeypatch.context() as patched:
        patched.setattr(sketches, "texts_of", lambda _store, documents, _rows: read() if len(documents) else [])
        done = sketches.sketch_new_documents(corpus.store, Stage(corpus.store, "sketches", "run"), plan)
    assert (done.signed, done.rebanded) == (0, 4)
    assert corpus.rows("sketches") == signatures
    fresh = corpus.store.query("SELECT doc_id, keys FROM bands WHERE scheme = $scheme", {"scheme": plan.scheme})
    direct = band(sketch(pa.table({"doc_id": doc_ids([TEXT]), "text": [TEXT]}), plan), plan)["keys"].to_pylist()
    assert dict(fresh)[doc_id(TEXT)] == direct[0] and dict(fresh)[doc_id("!!!")] is None
    assert not sketches.sketch_new_documents(corpus.store, Stage(corpus.store, "sketches", "run"), plan)


def test_documents_without_bands_are_told_before_any_is_compared(corpus):
    deliver(corpus, web=[TEXT])
    sketches.require_banded(corpus.store, plan_of(corpus))
    corpus.write("web/b.jsonl", [{"text": LONGER}])
    corpus.deliver()
    with pytest.raises(UserError, match="1 documents have no bands"):
        sketches.require_banded(corpus.store, plan_of(corpus))


def test_a_group_stands_for_all_occurrences_of_its_texts_and_says_of_which_state(corpus):
    deliver(corpus, web=[TEXT, TEXT, LONGER], books=[LONGER, FAR, FAR])
    sizes = "SELECT kind, doc_id, group_size, occurrences FROM duplicates ORDER BY kind, group_size, doc_id"
    exact = sorted(("exact", doc_id(text), 2, 2) for text in (TEXT, LONGER, FAR))
    near_rows = sorted(("near", doc_id(text), 2, 4) for text in (TEXT, LONGER))
    assert corpus.store.query(sizes) == [*exact, *near_rows]
    versions = [corpus.store.query("SELECT DISTINCT version FROM duplicates")]
    corpus.write("code/a.jsonl", [{"text": TEXT}])
    corpus.deliver()
    corpus.judge_duplicates()
    assert corpus.store.query("SELECT DISTINCT occurrences FROM duplicates WHERE kind = 'near'") == [(5,)]
    versions.append(corpus.store.query("SELECT DISTINCT version FROM duplicates"))
    corpus.remove("code/a.jsonl")
    corpus.deliver()
    corpus.judge_duplicates()
    versions.append(corpus.store.query("SELECT DISTINCT version FROM duplicates"))
    assert corpus.store.query(sizes) == [*exact, *near_rows]
    assert versions[0] == versions[2] != versions[1] and len(versions[0]) == 1


def test_rows_of_another_kind_stay(corpus):
    deliver(corpus, web=[TEXT])
    other = {"doc_id": doc_ids([TEXT]), "kind": ["semantic"], "keeper_id": doc_ids([TEXT])}
    with corpus.store.write() as connection:
        insert(connection, "duplicates", pa.table(other))
    corpus.write("web/b.jsonl", [{"text": LONGER}])
    corpus.deliver()
    corpus.judge_duplicates()
    kinds = corpus.store.query("SELECT kind, count(*) FROM duplicates GROUP BY kind ORDER BY kind")
    assert kinds == [("near", 2), ("semantic", 1)]


WORDS = [f"w{number}" for number in range(40)]
ALIKE = [" ".join([*WORDS, f"end{number}"]) for number in range(9)]  # all of them in one bucket of most bands
APART = [" ".join([*WORDS[:20], *(f"v{number}{word}" for word in WORDS[20:])]) for number in range(3)]


@pytest.mark.parametrize("share", [-1.0, 2.0], ids=["all keys are sorted", "old keys are searched"])
def test_deliveries_and_withdrawals_around_oversize_buckets_end_as_one_delivery(tmp_path, monkeypatch, share):
    monkeypatch.setattr(stage_module, "MAX_BUCKET", 4)
    monkeypatch.setattr(stage_module, "CENTERS", 2)
    state = {f"web/{number}.jsonl": [{"text": text}] for number, text in enumerate([*ALIKE, *APART])}
    gone = sorted(state, key=lambda shard: doc_id(state[shard][0]["text"]))[:3]  # centers among them
    monkeypatch.setattr(stage_module, "FRESH_SHARE", share)
    made = []

    def in_a_file(bands, capacity, scratch):
        made.append(BandColumns(bands, capacity, scratch, held_bytes=0))
        return made[-1]

    monkeypatch.setattr(band_rows, "BandColumns", in_a_file)
    wandered = SmallCorpus(tmp_path / "wandered")
    for shards in (sorted(state)[:4], sorted(state)[4:]):  # the buckets are small, then oversize, then small or new
        for shard in shards:
            wandered.write(shard, state[shard])
        wandered.deliver()
        wandered.judge_duplicates()
    pairs = wandered.rows("duplicate_pairs")
    assert 0 < len(pairs) < 9 * 8 // 2
    assert pairs_of(pairs_among(wandered.store, every_document(wandered), plan_of(wandered))) == {
        row[:2] for row in pairs
    }
    for shard in gone:
        wandered.remove(shard)
    wandered.deliver()
    wandered.judge_duplicates()
    monkeypatch.setattr(stage_module, "FRESH_SHARE", -1.0)
    direct = SmallCorpus(tmp_path / "direct")
    for shard in sorted(set(state) - set(gone)):
        direct.write(shard, state[shard])
    direct.deliver()
    direct.judge_duplicates()
    for table in ("duplicate_pairs", "duplicates", "bucket_centers", "bands", "sketches"):
        assert wandered.rows(table) == direct.rows(table), table
    assert direct.rows("bucket_centers")
    assert len(made) == 4 and all(columns._file is not None for columns in made)


def test_other_limits_of_buckets_compare_all_documents_anew_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_module, "MAX_BUCKET", 4)
    wandered = deliver(SmallCorpus(tmp_path / "wandered"), web=ALIKE[:6])
    for centers in (2, 1):
        monkeypatch.setattr(stage_module, "CENTERS", centers)
        assert wandered.judge_duplicates() == 6
        assert wandered.judge_duplicates() == 0
    direct = deliver(SmallCorpus(tmp_path / "direct"), web=ALIKE[:6])
    for table in ("duplicate_pairs", "duplicates", "bucket_centers"):
        assert wandered.rows(table) == direct.rows(table), table


def test_a_filter_that_would_be_too_large_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_module, "FRESH_SHARE", 2.0)
    monkeypatch.setattr(stage_module, "FILTER_BYTES", 1_000)
    monkeypatch.setattr(stage_module, "touched_columns", None)
    assert near(deliver(SmallCorpus(tmp_path), web=[TEXT, LONGER])).keys() == {TEXT, LONGER}


def test_threads_are_those_of_the_settings(tmp_path, monkeypatch):
    for module in (shingles, candidates, band_rows):
        monkeypatch.setattr(module, "usable_cores", None)
    for share, number in ((2.0, 0), (-1.0, 1)):
        monkeypatch.setattr(stage_module, "FRESH_SHARE", share)
        corpus = deliver(SmallCorpus(tmp_path / str(number), store={"threads": 1}), web=[TEXT, LONGER])
        assert len(near(corpus)) == 2
        assert len(pairs_among(corpus.store, every_document(corpus), plan_of(corpus))) == 1


def plan_of(corpus: SmallCorpus):
    return make_plan(corpus.config.duplicates)


def every_document(corpus: SmallCorpus) -> pa.Table:
    return corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")


def pairs_of(rows: pa.Table) -> set[tuple]:
    return set(zip(rows["doc_a"].to_pylist(), rows["doc_b"].to_pylist(), strict=True))


def test_a_recall_out_of_reach_is_refused():
    with pytest.raises(UserError, match="permutations cannot find"):
        make_plan(Duplicates(threshold=0.3, permutations=16, recall=0.999999))


def test_the_scheme_names_all_that_decides_whether_sketches_compare():
    schemes = {
        make_plan(Duplicates(**settings)).scheme
        for settings in (
            {},
            {"seed": 2},
            {"permutations": 64},
            {"threshold": 0.7},
            {"threshold": 0.8000004},
            {"recall": 0.999999},
        )
    }
    assert len(schemes) == 6
