"""n-gram overlap against a slow twin, and the cases in which others' decontamination fails."""

from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from winnow.contamination import build_index, contaminated, find_overlap
from winnow.contamination.ngrams import find_runs
from winnow.contamination.words import split_words
from winnow.errors import UserError

PASSAGE = (
    "The old lighthouse keeper climbed one hundred and ninety nine steps every evening to light the great lamp, "
    "because sailors far out at sea depended on its beam to find their way home through the rocks."
)


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Words of the lower-cased text, with their spans in the text as it stands."""
    lowered = text.lower()
    origin = [k for k, character in enumerate(text) for _ in character.lower()]
    assert len(origin) == len(lowered)
    return [(m[0], origin[m.start()], origin[m.end() - 1] + 1) for m in re.finditer(r"\w+", lowered)]


def slow_overlap(texts: list[str], items: list[str], n: int) -> list[dict[str, float]]:
    item_words = [[word for word, _, _ in words_of(item)] for item in items]
    grams: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for item, words in enumerate(item_words):
        if len(words) < min(n, 4):
            continue
        length = min(n, len(words))
        for i in range(len(words) - length + 1):
            grams.setdefault(tuple(words[i : i + length]), []).append((item, i))
    rows = []
    for position, text in enumerate(texts):
        spans = words_of(text)
        words = [word for word, _, _ in spans]
        hits: set[int] = set()
        inside: set[int] = set()
        best = (0, 0, 0)
        for length in {len(gram) for gram in grams}:
            for i in range(len(words) - length + 1):
                for item, first in grams.get(tuple(words[i : i + length]), []):
                    hits.add(i)
                    inside |= set(range(i, i + length))
                    run = 0
                    for mine, theirs in zip(words[i:], item_words[item][first:], strict=False):
                        if mine != theirs:
                            break
                        run += 1
                    best = min(best, (-run, i, item))
        if hits:
            run, i, item = -best[0], best[1], best[2]
            rows.append(
                {
                    "position": position,
                    "item": item,
                    "matched": len(hits),
                    "longest_match": run,
                    "start": spans[i][1],
                    "end": spans[i + run - 1][2],
                    "coverage": len(inside) / len(words),
                }
            )
    return rows


def overlap(texts: list[str], items: list[str], n: int = 8) -> list[dict[str, float]]:
    return find_overlap(pa.array(texts, pa.large_string()), build_index(items, n)).to_pylist()


few_words = st.lists(st.sampled_from(["a", "B", "c", "d,", "\n", "É", "ΟΔΟΣ", "İs", "x_1"]), max_size=30).map(" ".join)
odd_text = st.text(st.sampled_from("aA_İΣσς'ßé. \u0307\U0001f600\U00010400\U00020000"), max_size=30)
texts_strategy = st.lists(st.one_of(few_words, odd_text, st.text(st.characters(exclude_categories=["Cs"]))), max_size=6)


@settings(max_examples=120, deadline=None)
@given(texts_strategy, texts_strategy, st.integers(1, 8))
@example(["aİb c ΑΣ dΣ e"], ["ai b c ας dς e"], 4)
@example(["a a a a a a a a a a"], ["a a a a", "a a a a a a"], 5)
def test_search_agrees_with_plain_python(texts: list[str], items: list[str], n: int) -> None:
    assert overlap(texts, items, n) == slow_overlap(texts, items, n)
    assert overlap(items, items, n) == slow_overlap(items, items, n)


def test_every_code_point_is_lowered_and_split_as_python_does() -> None:
    points = [code for code in range(0x40000) if not 0xD800 <= code <= 0xDFFF] + [0x40000, 0xE0041, 0x10FFFF]
    texts = [
        " ".join(f"q{chr(code)}w{code}" for code in points[start : start + 2000])
        for start in range(0, len(points), 2000)
    ]
    table = find_overlap(pa.array(texts, pa.large_string()), build_index([text.lower() for text in texts]))
    assert table["position"].to_pylist() == list(range(len(texts)))
    assert table["item"].to_pylist() == list(range(len(texts)))
    assert table["coverage"].to_pylist() == [1.0] * len(texts)
    assert table["longest_match"].to_pylist() == [len(words_of(text)) for text in texts]


@pytest.mark.parametrize(
    "document",
    [
        PASSAGE,
        PASSAGE.upper(),
        PASSAGE.replace(" ", "\n"),
        re.sub(r"[.,]", " --- ", PASSAGE),
        "Something else entirely stood here before. " * 30 + PASSAGE + " And after it, more of the same. " * 30,
        "\n".join(" ".join(PASSAGE.split()[i : i + 8]) for i in range(0, 40, 8)),
    ],
)
def test_an_item_is_found_however_it_is_wrapped(document: str) -> None:
    (row,) = overlap([document], ["an unrelated item of more than eight words that nobody repeats", PASSAGE])
    assert row["item"] == 1
    assert row["longest_match"] == len(words_of(PASSAGE))
    shown = document[int(row["start"]) : int(row["end"])]
    assert [word for word, _, _ in words_of(shown)] == [word for word, _, _ in words_of(PASSAGE)]


def test_runs_do_not_hop_from_one_item_to_another() -> None:
    words = [f"w{k}" for k in range(20)]
    items = [" ".join(words[:10]), " ".join(words[2:12]), " ".join(words[4:14])]
    (row,) = overlap([" ".join(words)], items)
    assert (row["longest_match"], row["item"], row["matched"]) == (10, 0, 7)
    assert row["coverage"] == 14 / 20


def test_short_items_match_as_a_whole_and_very_short_ones_never() -> None:
    index = build_index(["to be or not", "the end", "all the world is a stage and all the men"])
    assert (len(index), index.ignored, index.lengths.tolist()) == (3, 1, [4, 8])
    table = find_overlap(pa.array(["the end", "the question: to be, or not?", "to be or"]), index)
    assert table.select(["position", "item", "longest_match"]).to_pylist() == [
        {"position": 1, "item": 0, "longest_match": 4}
    ]


def test_a_document_is_contaminated_from_thirteen_shared_words() -> None:
    words = PASSAGE.split()
    texts = [" ".join(words[:size]) for size in (7, 8, 12, 13, 20)]
    index = build_index([PASSAGE])
    table = find_overlap(pa.array(texts), index)
    assert table["longest_match"].to_pylist() == [8, 12, 13, 20]
    assert contaminated(table, index).tolist() == [False, False, True, True]
    assert contaminated(table, index, min_words=8).all()


def test_an_item_below_thirteen_words_contaminates_when_it_is_copied_whole() -> None:
    item = " ".join(PASSAGE.split()[:10])
    index = build_index([item, "to be or not"])
    texts = pa.array([f"See: {item}, indeed.", " ".join(item.split()[:9]), "the question: to be or not"])
    table = find_overlap(texts, index)
    assert table["longest_match"].to_pylist() == [10, 9, 4]
    assert contaminated(table, index).tolist() == [True, False, False]


def test_rows_depend_on_neither_order_nor_batches_nor_threads() -> None:
    generator = np.random.default_rng(1)
    texts = [" ".join(f"w{k}" for k in generator.integers(0, 3, size)) for size in generator.integers(0, 90, 60)]
    index = build_index(texts[:20], n=6)
    array = pa.array(texts, pa.large_string())
    whole = find_overlap(array, index)
    assert whole.num_rows > 20
    assert whole.to_pylist() == slow_overlap(texts, texts[:20], 6)
    backwards = find_overlap(pa.array(texts[::-1], pa.string()), index, threads=1).to_pylist()
    assert [row | {"position": 59 - row["position"]} for row in backwards[::-1]] == whole.to_pylist()
    parts = [find_overlap(array.slice(start, 7), index).to_pylist() for start in range(0, 60, 7)]
    joined = [row | {"position": row["position"] + 7 * k} for k, part in enumerate(parts) for row in part]
    assert joined == whole.to_pylist()
    assert find_overlap(pa.chunked_array([array.slice(0, 13), array.slice(13)]), index).equals(whole)


def test_common_ngrams_cost_little_and_rare_ones_still_measure_the_whole_run() -> None:
    zeros = "0 " * 20_000
    (row,) = overlap([zeros], [zeros])
    assert row["longest_match"] == 20_000
    common = "one two three four five six seven eight nine ten"
    items = [f"{common} item{k}" for k in range(600)] + [f"{common} and then something that nobody else wrote here"]
    (row,) = overlap([f"intro {items[-1]}"], items)
    assert (row["item"], row["longest_match"]) == (600, 18)


def test_nothing_overlaps_with_no_items_or_no_texts() -> None:
    assert overlap(["a b c d e f g h i"], []) == []
    assert overlap([], [PASSAGE]) == []
    assert overlap(["", " . "], [PASSAGE, "", "..."]) == []


def test_an_empty_ngram_and_a_null_text_are_refused() -> None:
    with pytest.raises(UserError, match="n = 0 words"):
        build_index(["a b c d"], n=0)
    with pytest.raises(UserError, match="1 of 1 texts are null"):
        find_overlap(pa.array([None], pa.string()), build_index([PASSAGE]))
    with pytest.raises(UserError, match="texts are int64"):
        find_overlap(pa.array([1]), build_index([PASSAGE]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_longest_run_with_each_item_is_that_of_plain_python(seed: int) -> None:
    chance = random.Random(seed)
    items, texts = ([" ".join(chance.choices("abcd", k=chance.randrange(20))) for _ in range(4)] for _ in range(2))
    expected = []
    for position, text in enumerate(texts):
        for number, item in enumerate(items):
            left, right = text.split(), item.split()
            runs = [
                (size, -i)
                for i in range(len(left))
                for j in range(len(right))
                for size in range(4, len(right) - j + 1)
                if left[i : i + size] == right[j : j + size]
            ]
            if runs:
                size, at = max(runs)
                expected.append((position, number, size, -at * 2, (size - at) * 2 - 1))
    words = split_words(pa.array(texts, pa.large_string()), "longest_run")
    found = find_runs(words, build_index(items, 4)).to_pylist()
    assert [tuple(row.values()) for row in found] == expected
