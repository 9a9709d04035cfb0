"""Whatever the order, cut and detours of deliveries, the tables end as one delivery of the final state leaves them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import Record, SmallCorpus, reference_items

from winnow.text.deliveries import Delivery, scan

WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron"),
    *("inlet", "juniper", "kelp", "larch", "moss", "north", "otter", "pine"),
)
"""A text of 15 words has 11 shingles: with its last word changed it has a Jaccard of 10/12, with two words 9/13."""


def _family(first: int) -> list[str]:
    base = [WORDS[(first + step) % len(WORDS)] for step in range(15)]
    return [
        " ".join(base),
        " ".join([*base[:-1], "lastly"]),  # near the first
        " ".join([*base[:-1], "finally"]),  # near the first and the second
        " ".join([*base, "more"]),  # near the first
        " ".join(["at", *base, "more"]),  # near the one before, and with it the first
        " ".join([*base[:7], "changed", *base[8:]]),  # near none
    ]


TEXTS = [*_family(0), *_family(5), "!!! ...", "kelp", "Ωmega straße \U0001f600 kelp"]
REFERENCE = reference_items(" ".join(WORDS[2:12]), "otter pine kelp larch moss north otter pine")
AVOIDED = reference_items("ember fjord grove heron inlet juniper", name="avoided", kind="evaluation")
SHARDS = ("web/a.jsonl", "web/b.jsonl", "books/a.jsonl", "books/b.jsonl", "code/a.jsonl")
CONTAMINATION = {"ngram": 4, "min_words": 6}
BAD: tuple[Record, ...] = (b"{broken", {"text": ""}, {"id": 3}, b'{"text": "\\ud800"}')

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        lambda text, name, url: {"text": text} | ({"id": name} if name else {}) | ({"url": url} if url else {}),
        st.sampled_from(TEXTS),
        st.sampled_from(["", "1", "2", "x"]),
        st.sampled_from(["", "http://one", "http://two"]),
    ),
    st.sampled_from(BAD),
)
files: st.SearchStrategy[list[Record]] = st.one_of(
    st.lists(records, max_size=6),
    st.lists(records, max_size=3).map(lambda some: [*some, *[BAD[0]] * 11]),  # more bad records than a file may have
)
steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(SHARDS), files),
    st.tuples(st.just("remove"), st.sampled_from(SHARDS), st.none()),
    st.tuples(st.just("touch"), st.sampled_from(SHARDS), st.none()),
    st.tuples(st.just("deliver"), st.permutations(SHARDS), st.integers(1, len(SHARDS))),
    st.tuples(st.just("judge"), st.none(), st.none()),
)
priorities = st.fixed_dictionaries({}, optional={name: st.integers(-1, 1) for name in ("web", "books", "code")})


def small(root: str, backend: str, ranked: Mapping[str, int]) -> SmallCorpus:
    corpus = {"sources": {name: {"priority": priority} for name, priority in ranked.items()}}
    return SmallCorpus(Path(root), backend, [REFERENCE, AVOIDED], corpus=corpus, contamination=CONTAMINATION)


def deliver_some(corpus: SmallCorpus, order: Sequence[str], most: int) -> None:
    """Deliver what waits in a given order, at most so many files and withdrawals, one delivery each."""
    waiting = corpus.waiting()
    ranked = sorted(waiting.files, key=lambda file: order.index(file.shard))[:most]
    gone = [shard for shard in order if shard in waiting.withdrawn][:most]
    if ranked or gone:
        corpus.deliver(Delivery(tuple(ranked), tuple(gone), waiting.after))


def wander(corpus: SmallCorpus, steps: Sequence[tuple[str, Any, Any]]) -> dict[str, list[Record]]:
    """Take every step and deliver the rest at the end; return the files of the final state."""
    state: dict[str, list[Record]] = {}
    for kind, what, more in steps:
        if kind == "write":
            state[what] = more
            corpus.write(what, more)
        elif kind == "remove" and what in state:
            del state[what]
            corpus.remove(what)
        elif kind == "touch" and what in state:
            corpus.touch(what)
        elif kind == "deliver":
            deliver_some(corpus, what, more)
        elif kind == "judge":
            corpus.judge()
    corpus.deliver()
    corpus.judge()
    return state


def ends_as_one_delivery(backend: str, steps: Sequence[tuple[str, Any, Any]], ranked: Mapping[str, int]) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wandered, direct = small(first, backend, ranked), small(second, backend, ranked)
        for shard, lines in wander(wandered, steps).items():
            direct.write(shard, lines)
        direct.deliver()
        direct.judge()
        found, expected = wandered.tables(), direct.tables()
        for table, rows in expected.items():
            assert found[table] == rows, table
        assert not wandered.waiting()


ASKED = "WINNOW_FAULTS" in os.environ
HOW: dict[str, Any] = {
    "max_examples": 50 if ASKED else 2,
    "derandomize": not ASKED,
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
"""``make test-faults`` tries many histories, others each time; here a few are enough, the same ones."""


@pytest.mark.slow
@settings(**HOW)
@given(st.lists(steps, min_size=3, max_size=8), priorities)
def test_any_sequence_of_deliveries_ends_as_one_delivery_of_the_final_state(steps, ranked):
    ends_as_one_delivery("file", steps, ranked)


duplicate_steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(SHARDS), st.lists(st.sampled_from(TEXTS), max_size=6)),
    st.tuples(st.just("remove"), st.sampled_from(SHARDS), st.none()),
    st.tuples(st.just("deliver"), st.permutations(SHARDS), st.integers(1, len(SHARDS))),
    st.tuples(st.just("judge"), st.none(), st.none()),
)


@pytest.mark.slow
@settings(**HOW)
@given(st.lists(duplicate_steps, min_size=4, max_size=9), st.sampled_from([-1.0, 2.0]))
def test_groups_and_their_sizes_forget_the_way_even_where_most_buckets_are_oversize(steps, share):
    """``share``: the keys of all documents are sorted in every run, or old ones are only searched for new ones."""
    from winnow.stages import duplicate_pairing

    texts = [(kind, what, [{"text": text} for text in more] if kind == "write" else more) for kind, what, more in steps]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("MAX_BUCKET", 2), ("CENTERS", 1), ("FRESH_SHARE", share)):
            patched.setattr(duplicate_pairing, name, value)
        patched.setattr(SmallCorpus, "judge", SmallCorpus.judge_duplicates)
        ends_as_one_delivery("file", texts, {"books": -1})


DETOURS: dict[str, list[tuple[str, Any, Any]]] = {
    "a withdrawn file comes back before anything is judged": [
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[1]}]),
        ("deliver", SHARDS, 5),
        ("judge", None, None),
        ("remove", "web/a.jsonl", None),
        ("deliver", SHARDS, 5),
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[1]}]),
    ],
    "a keeper comes and goes": [
        ("write", "web/a.jsonl", [{"text": TEXTS[1]}, {"text": TEXTS[4]}]),
        ("deliver", SHARDS, 5),
        ("judge", None, None),
        ("write", "web/b.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[2]}, {"text": TEXTS[3]}]),
        ("deliver", SHARDS, 5),
        ("judge", None, None),
        ("remove", "web/b.jsonl", None),
    ],
    "an exact copy joins its own source": [
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}]),
        ("deliver", SHARDS, 5),
        ("judge", None, None),
        ("write", "web/b.jsonl", [{"text": TEXTS[0]}]),
    ],
    "a file is read anew into the part that it had": [
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[6]}]),
        ("deliver", SHARDS, 5),
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[6]}, BAD[0]]),
        ("deliver", SHARDS, 5),
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[6]}, BAD[1]]),
        ("deliver", SHARDS, 5),
    ],
    "a good file fails and recovers": [
        ("write", "web/a.jsonl", [{"text": TEXTS[0]}]),
        ("write", "books/a.jsonl", [{"text": TEXTS[0]}]),
        ("deliver", SHARDS, 5),
        ("write", "books/a.jsonl", [{"text": TEXTS[0]}, *[BAD[0]] * 11]),
        ("deliver", SHARDS, 5),
        ("judge", None, None),
        ("write", "books/a.jsonl", [{"text": TEXTS[0]}, {"text": TEXTS[3]}]),
    ],
}


@pytest.mark.parametrize("steps", DETOURS.values(), ids=DETOURS.keys())
def test_a_detour_leaves_no_trace(steps):
    ends_as_one_delivery("file", steps, {"books": -1})


@pytest.mark.slow
def test_the_lake_ends_in_the_tables_of_the_file(lake):
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wandered, direct = small(first, lake, {"books": -1}), small(second, "file", {"books": -1})
        for shard, lines in wander(wandered, DETOURS["a keeper comes and goes"]).items():
            direct.write(shard, lines)
        direct.deliver()
        direct.judge()
        assert wandered.tables() == direct.tables()


documents = st.lists(
    st.tuples(st.sampled_from(["web", "books", "code"]), st.sampled_from(TEXTS)), min_size=2, max_size=12
)


@pytest.mark.slow
@settings(**HOW)
@given(documents, st.data(), priorities)
def test_how_documents_are_cut_into_files_and_ticks_changes_nothing_about_them(documents, data, ranked):
    """One file a source in one delivery, against any cut into files, each a delivery of its own, in any order."""
    names = st.integers(0, 2).map(lambda number: f"{number}.jsonl")
    cut: dict[str, list[Record]] = {}
    for source, text in data.draw(st.permutations(documents)):
        cut.setdefault(f"{source}/{data.draw(names)}", []).append({"text": text})
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        pieces, whole = small(first, "file", ranked), small(second, "file", ranked)
        for shard in cut:
            pieces.write(shard, cut[shard])
        for file in data.draw(st.permutations(scan(pieces.home, pieces.config.corpus))):
            pieces.deliver(Delivery((file,)))
            if data.draw(st.booleans()):
                pieces.judge()
        for source in {source for source, _ in documents}:
            whole.write(f"{source}/all.jsonl", [{"text": text} for own, text in documents if own == source])
        whole.deliver()
        for corpus in (pieces, whole):
            corpus.judge()
        assert pieces.by_document() == whole.by_document()


def test_new_documents_alone_are_judged(tmp_path):
    """A new file costs its own documents: the old ones are neither signed nor compared again."""
    corpus = small(str(tmp_path), "file", {})
    corpus.write("web/a.jsonl", [{"text": text} for text in TEXTS[:5]])
    corpus.deliver()
    assert (corpus.judge_signals(), corpus.judge_duplicates(), corpus.judge_contamination()) == (5, 5, 10)
    corpus.write("web/b.jsonl", [{"text": text} for text in TEXTS[4:7]])
    corpus.deliver()
    assert (corpus.judge_signals(), corpus.judge_duplicates(), corpus.judge_contamination()) == (2, 2, 4)
    assert (corpus.judge_signals(), corpus.judge_duplicates(), corpus.judge_contamination()) == (0, 0, 0)
