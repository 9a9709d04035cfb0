"""Near duplicates in the store: what a pair, a keeper and a group are, whatever the settings were before."""

from __future__ import annotations

import pytest
from small_corpus import SmallCorpus

from winnow.config import Duplicates
from winnow.dedup.sketch import make_plan
from winnow.errors import UserError
from winnow.identity import doc_id
from winnow.stages.duplicates import pairs_among

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


def test_a_recall_out_of_reach_is_refused():
    with pytest.raises(UserError, match="permutations cannot find"):
        make_plan(Duplicates(threshold=0.3, permutations=16, recall=0.999999))


def test_the_scheme_names_all_that_decides_whether_sketches_compare():
    schemes = {
        make_plan(Duplicates(**settings)).scheme
        for settings in ({}, {"seed": 2}, {"permutations": 64}, {"threshold": 0.7}, {"recall": 0.999999})
    }
    assert len(schemes) == 5
