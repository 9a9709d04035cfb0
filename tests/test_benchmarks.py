"""What the benchmarks rest on: documents that a seed decides, and how found pairs are counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module")
def data():
    sys.path.insert(0, BENCHMARKS)
    import duplicates_data

    yield duplicates_data
    sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def quality(data):
    import duplicates_quality

    return duplicates_quality


@pytest.fixture(scope="module")
def passages(data) -> list[str]:
    from pydoc_data.topics import topics

    return list(data.passages(iter(topics.values())))


def test_passages_keep_every_word_and_the_bytes_they_may_have(data) -> None:
    texts = ["naïve words " * 300, "中文" * 1_500, "one more\nline " * 200]
    cut = list(data.passages(iter(texts), size=1_000))
    assert max(len(passage.encode()) for passage in cut) <= 1_000
    whole = "".join("\n\n".join(texts).split())
    found = "".join("".join(cut).split())
    assert whole.startswith(found) and len(whole) - len(found) < 1_000


def test_any_range_of_documents_is_that_range_of_all(data, passages: list[str]) -> None:
    documents = data.Documents(passages, data.Recipe(400, seed=3))
    every = list(documents.texts())
    assert list(documents.texts(120, 180)) == every[120:180]
    assert list(data.Documents(passages, data.Recipe(400, seed=3)).texts()) == every
    assert list(data.Documents(passages, data.Recipe(400, seed=4)).texts()) != every


def test_written_documents_are_read_in_their_order(data, passages: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(data, "PER_FILE", 64)
    documents = data.Documents(passages, data.Recipe(150))
    size = data.write_documents(tmp_path / "made", documents, 10, 150)
    read = [text for batch in data.read_documents(tmp_path / "made") for text in batch.to_pylist()]
    assert read == list(documents.texts(10, 150))
    assert size == sum(len(text.encode()) for text in read)


def test_a_recipe_has_its_shares_of_variants_and_of_boilerplate(data, passages: list[str]) -> None:
    recipe = data.Recipe(20_000, near_share=0.3)
    groups, members = recipe.members()
    assert (members > 0).sum() == 6_000
    sizes = Counter(groups.tolist())
    assert max(sizes.values()) > 20 and max(sizes.values()) <= data.LARGEST_GROUP
    assert all(sorted(members[groups == group]) == list(range(sizes[group])) for group in range(20))
    documents = data.Documents(passages, data.Recipe(2_000, near_share=0.0, boilerplate_share=0.1))
    assert 150 < sum(text.startswith(documents.boilerplate) for text in documents.texts()) < 250


def test_a_variant_resembles_its_original(data, quality, passages: list[str]) -> None:
    documents = data.Documents(passages, data.Recipe(100))
    similar = [quality.jaccard(documents.original(7), documents.variant(7, member)) for member in range(1, 30)]
    assert min(similar) > 0.3
    assert sum(similarity >= 0.8 for similarity in similar) >= 5


def test_recall_counts_pairs_of_distinct_texts_in_the_bin_they_are_in(quality) -> None:
    similarity = np.array([0.69, 0.7, 0.7499, 0.75, 0.9499, 0.95, 1.0, 1.0])
    truth = quality.Truth([], np.arange(8), np.arange(8), similarity, np.arange(8) == 7)
    found = np.array([True, True, False, True, False, True, False, True])
    assert quality.recall_by_bin(truth, found, 0.7) == [(1, 2), (1, 2), (1, 2)]
    assert quality.recall_by_bin(truth, found, 0.9) == [(0, 1), (0, 0), (1, 2)]


def test_an_answer_is_judged_by_its_pairs_its_exact_groups_and_its_edges(quality) -> None:
    words = " ".join(f"w{i}" for i in range(30))
    texts = [words, words, f"{words} more", "something else altogether that nobody has written", words]
    left, right, similarity = np.array([0, 0, 1]), np.array([2, 1, 2]), np.array([26 / 27, 1, 26 / 27])
    truth = quality.Truth(texts, left, right, similarity, np.array([False, True, False]))
    keeper = np.array([0, 0, 0, 2, 4])
    judged = quality.judge(truth, quality.Answer(quality.same_label(keeper), keeper), 0.9)
    assert judged == {"exact": (0, 1), "bins": [(0, 0), (0, 0), (2, 2)], "removed": 3, "below": 1}
    keeper[4] = 0
    assert quality.judge(truth, quality.Answer(quality.same_label(keeper), keeper), 0.9)["exact"] == (1, 1)


def test_a_peer_that_is_not_installed_is_named(quality) -> None:
    import duplicates_sketches

    absent = duplicates_sketches.Peer(lambda texts, threads: float, ("numpy", "no_such_module"))
    assert absent.missing == ["no_such_module"]
    assert duplicates_sketches.shingles("One, two; THREE four five six") == [
        b"one two three four five",
        b"two three four five six",
    ]
