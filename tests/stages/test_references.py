"""Reference and evaluation sets: split without overlap, stored as configured, with what was compared to them."""

from __future__ import annotations

import json

import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.config import Reference
from winnow.contamination.ngrams import build_index, find_overlap
from winnow.contamination.sets import OVERLAP_NGRAM, read_evaluation_set, read_reference
from winnow.errors import UserError
from winnow.stages.references import stored_reference, stored_sets, uncompared, write_sets

SHARED = "eight or more words in a row that both halves have"


def item(number: int) -> str:
    """Return an item that shares no eight words with another."""
    return " ".join(f"word{number}x{position}" for position in range(12))


def write(tmp_path, records, name="reference.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_given_part_is_respected(tmp_path):
    records = [{"id": str(n), "text": item(n), "part": "judging" if n % 3 else "selecting"} for n in range(9)]
    found = read_reference(write(tmp_path, records), Reference(judging_share=0.01))
    parts = dict(zip(found.items["item_id"].to_pylist(), found.items["part"].to_pylist(), strict=True))
    assert parts == {record["id"]: record["part"] for record in records}
    assert (found.count("selecting"), found.count("judging"), found.removed) == (3, 6, 0)
    assert found.texts("selecting") == [item(0), item(3), item(6)]
    assert found.texts() == [item(n) for n in range(9)]


def test_a_part_of_another_name_is_refused(tmp_path):
    path = write(tmp_path, [{"text": item(0), "part": "selecting"}, {"text": item(1), "part": "test"}])
    with pytest.raises(UserError, match=r"item 1: part = 'test'; expected 'selecting' or 'judging'"):
        read_reference(path, Reference())


def test_without_parts_whole_topics_fall_to_one_part(tmp_path):
    records = [{"text": item(n), "topic": f"topic {n // 5}"} for n in range(200)]
    found = read_reference(write(tmp_path, records), Reference())
    parts: dict[str, set[str]] = {}
    for topic, part in zip(found.items["topic"].to_pylist(), found.items["part"].to_pylist(), strict=True):
        parts.setdefault(topic, set()).add(part)
    assert len(parts) == 40
    assert all(len(one) == 1 for one in parts.values())
    assert 0.2 < found.count("judging") / 200 < 0.6  # 0.4 is asked for


def test_the_split_follows_topic_and_seed_and_not_the_order_of_the_file(tmp_path):
    records = [{"id": str(n), "text": item(n), "topic": str(n // 2)} for n in range(40)]

    def judging(records, **settings) -> set[str]:
        found = read_reference(write(tmp_path, records), Reference(**settings))
        return set(found.texts("judging"))

    assert judging(records) == judging(records[::-1])
    assert judging(records) != judging(records, seed=1)
    assert judging(records) < judging(records, judging_share=0.8)
    forward = read_reference(write(tmp_path, records), Reference())
    backward = read_reference(write(tmp_path, records[::-1]), Reference())
    assert forward.digest == backward.digest
    assert forward.digest != read_reference(write(tmp_path, records), Reference(seed=1)).digest


def test_judging_items_that_share_text_with_the_selecting_part_are_removed(tmp_path):
    records = [
        {"text": f"{item(0)} {SHARED}", "part": "selecting"},
        {"text": f"{item(1)} {SHARED.upper()}", "part": "judging"},
        {"text": f"{item(2)} {' '.join(SHARED.split()[:7])}", "part": "judging"},  # seven words are too few
        {"text": f"{item(3)} {SHARED}", "part": "selecting"},  # within one part it does not matter
    ]
    found = read_reference(write(tmp_path, records), Reference())
    assert (found.count("selecting"), found.count("judging"), found.removed) == (2, 1, 1)
    overlap = find_overlap(found.items.filter(found.items["part"].to_numpy() == "judging")["text"],
                           build_index(found.texts("selecting"), OVERLAP_NGRAM))  # fmt: skip
    assert len(overlap) == 0


@pytest.mark.parametrize(
    ("records", "settings", "message"),
    [
        ([], {}, "is empty"),
        ([{"text": item(0)}], {}, "no item is left for the"),
        ([{"text": item(n), "part": "selecting"} for n in range(3)], {}, "no item is left for the judging part"),
        ([{"text": SHARED, "part": "selecting"}, {"text": SHARED, "part": "judging"}], {}, "for the judging part"),
        ([{"body": item(n)} for n in range(12)], {}, "missing_text 12"),
    ],
)
def test_a_reference_that_cannot_judge_is_refused(tmp_path, records, settings, message):
    path = write(tmp_path, records)
    with pytest.raises(UserError, match=message) as error:
        read_reference(path, Reference(**settings))
    assert str(path) in str(error.value)


def test_a_missing_folder_or_unreadable_file_is_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    (tmp_path / "not.parquet").write_bytes(b"no parquet")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    for name in ("absent.jsonl", "folder.jsonl", "cut.jsonl.gz", "not.parquet", "picture.png"):
        for read in (lambda path: read_reference(path, Reference()), lambda path: read_evaluation_set("a", path)):
            with pytest.raises(UserError, match=name):
                read(tmp_path / name)


def test_the_names_of_fields_are_configured(tmp_path):
    records = [{"body": item(n), "half": "judging" if n else "selecting", "about": f"t{n}"} for n in range(3)]
    settings = Reference(text_field="body", part_field="half", topic_field="about", name="mine")
    found = read_reference(write(tmp_path, records), settings)
    assert (found.name, found.kind, found.items["topic"].to_pylist()) == ("mine", "reference", ["t0", "t1", "t2"])


# -- in the store ---------------------------------------------------------------------------------------------------


def test_the_store_lists_exactly_the_configured_sets_the_reference_first(tmp_path, backend):
    corpus = SmallCorpus(tmp_path, backend)
    with pytest.raises(LookupError, match="materialize reference_sets"):
        stored_reference(corpus.store)
    first = [reference_items(item(0), item(1)), reference_items(item(2), name="avoid", kind="evaluation")]
    for sets in (first, [reference_items(item(3), name="other")]):
        with corpus.store.write() as connection:
            write_sets(connection, sets)
        found = stored_sets(corpus.store)
        assert [(one.name, one.kind, one.digest, one.texts()) for one in found] == [
            (one.name, one.kind, one.digest, one.texts()) for one in sets
        ]
        assert stored_reference(corpus.store).name == sets[0].name


def test_two_sets_of_the_same_items_share_them(tmp_path):
    twins = [reference_items(item(0), name=name, kind="evaluation") for name in ("a", "b")]
    corpus = SmallCorpus(tmp_path, sets=[reference_items(item(1)), *twins])
    assert [one.texts() for one in stored_sets(corpus.store)] == [[item(1)], [item(0)], [item(0)]]


def test_two_sets_of_one_name_are_refused(tmp_path):
    corpus = SmallCorpus(tmp_path)
    twins = [reference_items(item(0)), reference_items(item(1), kind="evaluation")]
    with pytest.raises(UserError, match=r"two sets are called 'reference'"), corpus.store.write() as connection:
        write_sets(connection, twins)


def test_sets_that_swap_their_files_and_swap_back_are_read_each_time(tmp_path):
    """What was done under another state of the settings is no reason to skip."""
    import dagster as dg

    from assets.contamination import reference_sets
    from resources.workspace import Workspace
    from winnow.config import save_config, validate_config

    reference = [{"text": item(n), "part": "judging" if n % 2 else "selecting"} for n in range(4)]
    path = write(tmp_path, reference)
    for name, number in (("a", 5), ("b", 6)):
        write(tmp_path, [{"question": item(number)}], f"{name}.jsonl")
    one, other = {"path": "a.jsonl", "threshold": 0.6}, {"path": "b.jsonl"}
    for sets, expected in (
        ({"x": one, "y": other}, {"x": item(5), "y": item(6)}),
        ({"x": other, "y": one}, {"x": item(6), "y": item(5)}),
        ({"x": one, "y": other}, {"x": item(5), "y": item(6)}),
        ({"x": one, "z": other}, {"x": item(5), "z": item(6)}),
        ({"x": one, "y": other}, {"x": item(5), "y": item(6)}),
    ):
        raw = {"reference": {"path": str(path)}, "contamination": {"evaluation_sets": sets}}
        save_config(validate_config(raw, tmp_path / "winnow.toml"), tmp_path / "winnow.toml")
        workspace = Workspace(home=str(tmp_path))
        dg.materialize([reference_sets], resources={"workspace": workspace})
        stored = {
            found.name: found.texts()[0] for found in stored_sets(workspace.store()) if found.kind == "evaluation"
        }
        assert stored == expected


def contaminated(corpus: SmallCorpus) -> list[tuple[str, int]]:
    return corpus.store.query("SELECT evaluation_set, longest_match FROM contamination ORDER BY ALL")


def test_overlap_follows_the_sets_as_they_come_and_go_and_come_back(tmp_path):
    """A set that returns is compared anew: its rows went when it went, and so did the note that they were made."""
    avoid = reference_items(item(1), name="avoid", kind="evaluation")
    here, there = reference_items(item(0)), reference_items(item(2))
    corpus = SmallCorpus(tmp_path)
    corpus.write("web/a.jsonl", [{"text": item(0)}, {"text": item(1)}, {"text": item(3)}])
    corpus.deliver()
    for sets, compared, expected in (
        ([here, avoid], 6, [("avoid", 12), ("reference", 12)]),
        ([here, avoid], 0, [("avoid", 12), ("reference", 12)]),
        ([there, avoid], 3, [("avoid", 12)]),
        ([here], 3, [("reference", 12)]),
        ([here, avoid], 3, [("avoid", 12), ("reference", 12)]),
    ):
        with corpus.store.write() as connection:
            write_sets(connection, sets)
        assert corpus.judge_contamination() == compared
        assert contaminated(corpus) == expected


def test_other_settings_compare_everything_anew_even_when_they_return(tmp_path):
    corpus = SmallCorpus(tmp_path, sets=[reference_items(item(0))])
    corpus.write("web/a.jsonl", [{"text": item(0)}, {"text": item(1)}])
    corpus.deliver()
    for words, expected in ((13, True), (12, True), (13, True), (12, True)):  # the item has 12 words: whole, it counts
        settings = {"contamination": {"min_words": words}}
        corpus.config = corpus.config.model_validate(corpus.config.model_dump() | settings)
        assert corpus.judge_contamination() == 2
        assert corpus.store.query("SELECT contaminated FROM contamination") == [(expected,)]
    assert len(uncompared(corpus.store, "reference", "another version")) == 2
