"""A labelled fixture of eight cases in which decontamination fails elsewhere, with precision and recall of each.

All sentences are written for it or long in the public domain; the licence is made up in the style of one.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from winnow.contamination.gapped import build_gapped, find_matches
from winnow.contamination.items import Item
from winnow.contamination.judge import Comparison, Rule
from winnow.contamination.words import split_words

PLAIN = [
    Item("Which tool would a beekeeper choose to calm a hive before lifting out the wooden frames?", ("a smoker",)),
    Item("A farmer notices that seedlings on the shaded side of the barn lean toward the open gate. What causes this "
         "behaviour in young plants?", ("phototropism",)),
    Item("In which month of 1887 did the ferry between the twin harbours stop carrying mail for the islands?",
         ("October",)),
    Item("Maria pours warm milk into a cold ceramic mug and the mug cracks along its handle. Which property of the "
         "material explains the crack best?", ("thermal expansion",)),
    Item("What did the clockmaker of Altenberg replace first when the town bell began to ring nine minutes late?",
         ("the pendulum spring",)),
    Item("Two barges leave the lock at the same time, one loaded with gravel and one empty. Which barge needs the "
         "longer distance to stop?", ("the barge loaded with gravel",)),
]  # fmt: skip
LICENCE = (
    "Permission to use, change and pass on this program and its papers for any purpose and without fee is hereby "
    "granted, provided that this notice appears in all copies and that the name of the author is not used in "
    "advertising. The program is provided as it stands and the author gives no warranty of any kind for its use."
)
TASKS = ["reverse every second word of a line", "count the vowels that follow a double consonant",
         "merge overlapping opening hours of two shops", "rotate a square board by a quarter turn",
         "find the smallest missing house number", "convert old shilling prices into pence",
         "group train departures by platform and hour"]  # fmt: skip
CODE = [Item(f"{LICENCE} Write a function that will {task} and return the result as text.") for task in TASKS]
QUOTATIONS = [
    ("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
     "was the epoch of belief, it was the epoch of incredulity", "Which novel opens with the words {}?",
     "A Tale of Two Cities"),
    ("Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
     "and dedicated to the proposition that all men are created equal", "Who began a short speech with {}?",
     "Abraham Lincoln"),
    ("To be, or not to be, that is the question: whether tis nobler in the mind to suffer the slings and arrows of "
     "outrageous fortune", "Which prince of Denmark says {}?", "Hamlet"),
    ("We hold these truths to be self-evident, that all men are created equal, that they are endowed by their Creator "
     "with certain unalienable Rights", "Which document declares {}?", "the Declaration of Independence"),
]  # fmt: skip
QUOTED = [Item(question.format(f'"{words}"'), (answer,)) for words, question, answer in QUOTATIONS]
TEMPLATE = "Which of the following best describes the main reason why people in the region began to"
TEMPLATED = [
    Item(f"{TEMPLATE} {rest}?", (answer,))
    for rest, answer in (
        ("store grain in sealed clay jars", "rats"), ("build their homes on wooden stilts", "floods"),
        ("dry fish upon long racks", "keeping food for winter"), ("paint their roofs white", "summer heat"),
        ("plant hedges along the ridge", "wind erosion"), ("carry water at night", "cool air"),
        ("weave nets from nettle fibre", "lack of flax"),
    )
]  # fmt: skip
SUMS = [
    Item("What is 12 + 7 * 3 - 4 / 2?", ("31",)),
    Item("1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 =", ("55",)),
    Item("Compute (a + b)^2 = a^2 + 2ab + b^2 for a = 3, b = 4.", ("49",)),
    Item("A baker fills 14 trays with 24 rolls each and sells 300 rolls before noon. How many rolls are left for the "
         "afternoon?", ("36",)),
]  # fmt: skip
ITEMS = [*PLAIN, *CODE, *QUOTED, *TEMPLATED, *SUMS]

BEFORE = (
    "The market square was quiet that morning, and the notes below were copied from a teacher's binder without any "
    "order."
)
AFTER = "Further down the page somebody had drawn a map of the river with its bridges, and a list of names."


def inside(text: str) -> str:
    return f"{BEFORE} {text} {AFTER}"


def solved(item: Item) -> str:
    return f"{item.question}\nAnswer: {item.answers[0]}"


def wrapped(text: str) -> str:
    words = text.split()
    return "\n".join(" ".join(words[start : start + 8]) for start in range(0, len(words), 8))


def summary(item: Item) -> str:
    """Tell the topic of an item in words of one's own."""
    topic = sorted(item.question.replace("?", "").split(), key=len)[-3:]
    return inside(f"Some pupils asked about {topic[0]}, others about {topic[1]}, and one about {topic[2]}.")


CASES: dict[str, tuple[list[str], list[str]]] = {
    "verbatim": ([solved(item) for item in PLAIN], [summary(item) for item in PLAIN]),
    "re-wrapped to 8-word lines": (
        [wrapped(inside(solved(item))) for item in PLAIN], [wrapped(summary(item)) for item in PLAIN],
    ),
    "mid-paragraph": (
        [inside(f"{BEFORE} {item.question} {AFTER}") for item in PLAIN],
        [inside(f"{BEFORE} {' '.join(item.question.split()[:7])} {AFTER}") for item in PLAIN],
    ),
    "answer only": (
        [inside(solved(item)) for item in PLAIN],
        [inside(f"The right words here were: {item.answers[0]}.") for item in ITEMS if item.answers],
    ),
    "licence boilerplate": (
        [item.question for item in CODE],
        [LICENCE, inside(LICENCE), wrapped(LICENCE), f"# {LICENCE}\n\ndef main():\n    return draw_map()"],
    ),
    "famous quotation": (
        [inside(solved(item)) for item in QUOTED],
        [inside(f'The essay begins with "{words}", which {answer} made famous.') for words, _, answer in QUOTATIONS],
    ),
    "question template": (
        [inside(solved(item)) for item in TEMPLATED],
        [inside(f"{TEMPLATE} {rest}? The class could not agree.") for rest in (
            "leave the valley", "sing before sunrise", "trade salt for wool", "mark the trees with chalk",
        )],
    ),
    "arithmetic formula": (
        [inside(solved(SUMS[3]))],
        ["12 + 7 * 3 - 4 / 2 = 31", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
         "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 = 55",
         "Recall that (a + b)^2 = a^2 + 2ab + b^2 and so (a - b)^2 = a^2 - 2ab + b^2.",
         "14 trays, 24 rolls, 300 sold, 36"],
    ),
}  # fmt: skip


def gapped(texts: list[str]) -> list[bool]:
    found = find_matches(split_words(pa.array(texts, pa.large_string())), build_gapped(ITEMS))
    reached = {row["position"] for row in found.to_pylist() if row["contaminated"]}
    return [position in reached for position in range(len(texts))]


def by_rule(rule: Rule) -> Callable[[list[str]], list[bool]]:
    items = pa.table({"text": [item.whole for item in ITEMS]})

    def flags(texts: list[str]) -> list[bool]:
        ids = pa.array([bytes([0] * 15 + [k]) for k in range(len(texts))], pa.binary(16)).cast(pa.uuid().storage_type)
        table = pa.table({"doc_id": pa.ExtensionArray.from_storage(pa.uuid(), ids), "text": pa.array(texts)})
        found = Comparison("fixture", "1", rule, items).compare(table).documents
        reached = {row["doc_id"].bytes[15] for row in found.to_pylist() if row["contaminated"]}
        return [position in reached for position in range(len(texts))]

    return flags


def figures(flags: Callable[[list[str]], list[bool]], case: str) -> tuple[float, float]:
    """Return precision and recall of one case."""
    positives, negatives = CASES[case]
    right, wrong = sum(flags(positives)), sum(flags(negatives))
    return right / max(right + wrong, 1), right / len(positives)


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_told_apart(case: str, record_property: Callable[[str, object], None]) -> None:
    precision, recall = figures(gapped, case)
    record_property("precision", precision)
    record_property("recall", recall)
    assert (precision, recall) == (1.0, 1.0)


def test_the_items_of_pure_arithmetic_are_counted_as_not_to_be_found() -> None:
    ignored = build_gapped(ITEMS).ignored
    assert sum(ignored.values()) == 3


def test_the_older_rules_fail_where_the_note_says() -> None:
    run, gpt3 = by_rule(Rule("longest_run", ngram=8, min_words=13)), by_rule(Rule("gpt3", ngram=13))
    for case in ("verbatim", "re-wrapped to 8-word lines", "mid-paragraph", "answer only"):
        assert figures(run, case) == (1.0, 1.0)
        assert figures(gpt3, case)[1] >= 0.5
    for case in ("licence boilerplate", "famous quotation", "question template"):
        assert figures(run, case)[0] < 1
        assert figures(gpt3, case)[0] < 1
