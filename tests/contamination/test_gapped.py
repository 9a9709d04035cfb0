"""Gapped matches against a slow twin, and the rules one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_gapped import required, slow_matches, words_of

from winnow.contamination.gapped import NEVER, build_gapped, find_matches, required_score
from winnow.contamination.items import Item
from winnow.contamination.words import split_words

QUESTION = (
    "During which winter did the keeper of the northern lighthouse walk across the frozen bay "
    "to fetch lamp oil from the village store?"
)
STORY = " ".join(f"sentence number{k} tells another quiet thing about harbour life" for k in range(12))


def matches(texts: list[str], items: list[Item], threshold: float = 0.8, **more: Any) -> list[dict[str, Any]]:
    found = find_matches(split_words(pa.array(texts, pa.large_string())), build_gapped(items, threshold, **more))
    rounded = ("score", "required", "coverage")
    return [
        {name: round(value, 9) if name in rounded and value is not None else value for name, value in row.items()}
        for row in found.to_pylist()
    ]


def flagged(text: str, items: list[Item], **more: Any) -> bool:
    return any(row["contaminated"] for row in matches([text], items, **more))


# -- the whole ------------------------------------------------------------------------------------------------------


def odd_items(seed: int, words: int, count: int) -> tuple[list[Item], list[str]]:
    """Items and texts of few words, so that phrases repeat, and copies of items with words changed, dropped, put in."""
    chance = random.Random(seed)
    known = [
        "bar",
        "a",
        "dor",
        "of",
        "finen",
        "7",
        '"',
        "gulo",
        "水道",
        "“",
        "”",
        "1905",
        "ΟΔΟΣ",
        "cel2",
        "的",
        "\n",
        '"',
    ]
    known += [f"{syllable}{end}" for syllable in ("hem", "jor", "kil", "lup", "nes") for end in ("", "en", "a2", "ost")]

    def text(size: int) -> str:
        return " ".join(chance.choices(known[:words], k=size))

    items = []
    for _ in range(count):
        question = chance.choice([text(chance.choice([2, 6, 15, 35])), *(item.question for item in items[-2:])])
        answers = tuple(text(size) for size in chance.choices([1, 2, 12, 25], k=chance.randrange(3)))
        passage = chance.choice(["", text(60), *(item.passage for item in items[-2:])])
        items.append(Item(question, tuple(answer for answer in answers if answer.strip()), passage))
    texts = [text(chance.randrange(60)) for _ in range(3)]
    for item in items:
        edits = chance.choice([0, 0, 1, 3])
        copied = f"{item.passage} {item.question} {chance.choice([*item.answers, ''])}".split(" ")
        for _ in range(edits):
            copied[chance.randrange(len(copied))] = chance.choice(["", "changed", "two words"])
        texts.append(f"{text(5)} {' '.join(copied)} {text(5)}")
    return items, texts


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 37), st.integers(1, 9), st.sampled_from([0.4, 0.8, 1.0]))
def test_search_agrees_with_plain_python(seed: int, words: int, count: int, threshold: float) -> None:
    items, texts = odd_items(seed, words, count)
    assert matches(texts, items, threshold) == slow_matches(texts, items, threshold)


def test_the_twin_is_compared_on_matches_of_every_kind() -> None:
    kinds = set()
    for seed in range(10):
        items, texts = odd_items(seed, 37, 8)
        found = matches(texts, items)
        assert found == slow_matches(texts, items, 0.8)
        kinds |= {(row["part"], row["contaminated"], row["answer_near"]) for row in found}
    assert {(part, True) for part in ("question", "passage", "answer")} <= {kind[:2] for kind in kinds}
    assert {("question", True, True), ("question", False, False), ("question", True, None)} <= kinds


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 37))
def test_no_text_before_or_behind_a_copy_with_its_answer_clears_it(seed: int, words: int) -> None:
    """Least of all parts of the copy itself, such as its title."""
    items, texts = odd_items(seed, words, 4)
    chance = random.Random(seed)
    for item in items:
        copy = f"{item.passage} {item.question} {' '.join(item.answers)}"
        own = copy.split(" ")
        cut = [" ".join(own[: chance.randrange(len(own))]) for _ in range(4)]
        around = [
            f"{' '.join(cut[:2])}\n{copy}\n{' '.join(cut[2:])}",
            f"{texts[0]} {copy}",
            f"{copy} {copy} {texts[-1]}",
        ]
        if flagged(copy, [item]):
            assert [flagged(text, [item]) for text in around] == [True] * 3


@pytest.mark.parametrize("title", range(4, 24))
def test_a_question_below_its_own_cut_title_is_found(title: int) -> None:
    opening = " ".join(QUESTION.split()[:title])
    text = (
        f"{opening} ...\nHome > Forum > Science\n{opening} ...\n\nAsked yesterday by someone:\n{QUESTION}\nplease help"
    )
    (row,) = matches([text], [Item(QUESTION)])
    assert (row["contaminated"], row["score"], row["longest_match"]) == (True, 1.0, len(words_of(QUESTION)))


def test_edited_copies_before_a_whole_one_do_not_hide_it() -> None:
    edited = [QUESTION.replace("winter", season) for season in ("summer", "spring", "autumn")]
    for count in range(4):
        assert flagged("\n".join([*edited[:count], QUESTION]), [Item(QUESTION)])


def test_what_is_looked_at_for_one_ngram_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    phrase = "harbour village island market"
    items = [Item(f"{' '.join(f'word{k}x{p}' for p in range(9))} {phrase}") for k in range(700)]
    monkeypatch.setattr("winnow.contamination.weights.COMMON_SHARE", 1.0)
    for count, expected in ((256, 256), (257, 1)):
        index = build_gapped(items[:count])
        assert np.diff(index.groups).max() == expected


def test_a_match_depends_on_neither_order_nor_batches_nor_threads() -> None:
    items, texts = odd_items(7, 34, 25)
    index = build_gapped(items)
    array = pa.array(texts, pa.large_string())
    whole = find_matches(split_words(array), index)
    assert len(whole) > 20
    words = split_words(pa.array(texts[::-1], pa.string()), threads=1)
    backwards = find_matches(words, index, threads=1).to_pylist()
    turned = sorted(
        (row | {"position": len(texts) - 1 - row["position"]} for row in backwards),
        key=lambda row: (row["position"], row["item"]),
    )
    assert turned == whole.to_pylist()
    pieces = [find_matches(split_words(array.slice(start, 3)), index).to_pylist() for start in range(0, len(texts), 3)]
    joined = [row | {"position": row["position"] + 3 * k} for k, piece in enumerate(pieces) for row in piece]
    assert joined == whole.to_pylist()


def test_many_texts_are_searched_in_pieces_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    items, texts = odd_items(3, 34, 12)
    expected = matches(texts, items)
    monkeypatch.setattr("winnow.contamination.gapped.PIECE_WORDS", 50)
    monkeypatch.setattr("winnow.contamination.words.PIECE_BYTES", 300)
    assert matches(texts, items) == expected


# -- the rules ------------------------------------------------------------------------------------------------------


def test_the_required_score_relaxes_with_length_as_stated() -> None:
    for length in (0, 7, 8, 11, 12, 19, 20, 21, 35, 50, 80):
        for part in (0, 1, 2):
            for answer in (-1, 0, 1):
                limit = required_score(np.array([length]), np.array([part]), np.array([answer]), 0.7)[0]
                expected = required(length, part, answer, 0.7)
                assert limit == (NEVER if expected == float("inf") else pytest.approx(expected))


def test_a_copied_question_has_score_one_and_its_span_is_shown() -> None:
    (row,) = matches([f"Before it. {QUESTION.upper()} And after."], [Item(STORY), Item(QUESTION)])
    assert (row["item"], row["score"], row["longest_match"]) == (1, 1.0, len(words_of(QUESTION)))
    assert f"Before it. {QUESTION.upper()} And after."[row["start"] : row["end"]] == QUESTION.upper()[:-1]


def test_gaps_are_tolerated_up_to_eleven_places() -> None:
    words = STORY.split()
    for inserted, expected in ((1, True), (8, True), (9, False)):
        text = " ".join([*words[:40], *["xx"] * inserted, *words[40:]])
        (row,) = matches([text], [Item(STORY)])
        assert (row["score"] > 0.9) == expected, inserted
        assert row["longest_match"] < row["matched_words"] or not expected


def test_an_edited_long_item_is_found_and_an_edited_short_one_only_by_its_answer() -> None:
    edited = QUESTION.replace("frozen bay", "frozen lake")
    assert not flagged(edited, [Item(QUESTION)])
    assert not flagged(edited, [Item(QUESTION, ("Elias Holm",))])
    assert flagged(f"{edited} It was Elias Holm.", [Item(QUESTION, ("Elias Holm",))])
    assert flagged(STORY.replace("number5", "and so on"), [Item(STORY)])


def test_an_answer_is_near_within_fifty_words() -> None:
    items = [Item("Who painted the harbour wall beside Sundberg station?", ("Elias Holm",))]
    for between, expected in ((0, True), (48, True), (49, False)):
        text = f"{items[0].question} {'so ' * between}Elias Holm"
        (row,) = matches([text], items)
        assert (row["answer_near"], row["contaminated"]) == (expected, expected), between
        assert matches([f"Elias Holm {'so ' * between}{items[0].question}"], items)[0]["answer_near"] is expected


def test_an_answer_that_tells_nothing_is_not_looked_for() -> None:
    many = [Item(f"Does the number{k} boat sail past harbour town{k} in winter storms?", ("yes",)) for k in range(9)]
    for item, other in ((many[0], many[1:]), (Item(QUESTION, ("the village store",)), [])):
        (row,) = matches([f"{item.question} {item.answers[0]}"], [item, *other])
        assert (row["answer_near"], row["contaminated"]) == (None, True)


def test_an_answer_alone_never_contaminates_but_stands_for_a_question_that_is_too_short() -> None:
    answer = "Rub the wooden drawer runners with a plain white candle until they slide without any sticking at all"
    items = [Item("Sticky dresser", (answer,)), Item(QUESTION, (STORY,))]
    assert not flagged(f"Household advice: {answer}.", items)
    assert not flagged(STORY, items)
    (row,) = matches([f"Goal: sticky dresser. Solution: {answer}."], items)
    assert (row["item"], row["part"], row["contaminated"]) == (0, "answer", True)


def test_what_many_items_say_weighs_nothing() -> None:
    opening = "Which of the following statements best describes the main purpose of"
    items = [Item(f"{opening} the {name}{name} organ in flowering plants?") for name in "abcdefgh"]
    index = build_gapped(items)
    assert index.weight[: len(opening.split()) - 3].max() == 0
    assert not flagged(f"{opening} this report?", items)
    assert flagged(f"Quiz. {opening} the cc organ in flowering plants?", [*items[:2], items[2]])


@pytest.mark.parametrize("marks", ["“”", "„“", "„”", "«»", '""', "「」", "‘’", "''"])
def test_a_quotation_is_known_by_its_marks(marks: str) -> None:
    said = "It was the best of times, it was the worst of times, it wasn't the age of wisdom or foolishness"
    question = f"Which novel opens with the words {marks[0]}{said}{marks[1]} in its very first chapter?"
    assert not matches([f"The essay begins: {said}, of A Tale of Two Cities."], [Item(question, ("Two Cities",))])
    assert flagged(f"Quiz. {question} A Tale of Two Cities.", [Item(question, ("Two Cities",))])


def test_only_the_named_parts_are_compared() -> None:
    item = Item(QUESTION, ("Elias Holm",), STORY)
    assert flagged(STORY, [item])
    assert not flagged(STORY, [item], parts=("question",))
    assert not flagged(QUESTION, [item], parts=("passage",))


def test_items_that_cannot_be_found_are_counted() -> None:
    common = "Choose the sentence that tells another quiet thing about it"
    items = [Item("Why so?"), Item("7 + 5 = 12 and 4 * 3 = 12 so 12 = 12"), *(Item(common + " " * k) for k in range(2))]
    assert build_gapped(items).ignored == {"too_short": 1, "too_common": 1}
    template = [Item(f"{common}, {k}") for k in range(8)]
    assert build_gapped([*template, Item(QUESTION)]).ignored == {"too_short": 0, "too_common": 8}
    assert build_gapped([]).ignored == {"too_short": 0, "too_common": 0}
    assert matches(["text"], []) == matches([], [Item(QUESTION)]) == []


def test_scripts_without_spaces_are_matched_by_character() -> None:
    question = "哪位作家在一九二一年写了关于北方港口灯塔看守人的长篇小说并获得了奖项"
    (row,) = matches([f"问题:{question}?没有人知道。"], [Item(question)])
    assert (row["contaminated"], row["longest_match"]) == (True, len(question))
    assert not flagged(question[:15], [Item(question)])
