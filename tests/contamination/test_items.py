"""Records of evaluation sets as items: which fields, which answers, which labels are no text; and where sets lie."""

from __future__ import annotations

import json
import os
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.cli.arguments import _evaluation_set
from winnow.config import EvaluationSet, validate_config
from winnow.contamination import sets
from winnow.contamination.items import Item, item_from
from winnow.contamination.sets import place_of, read_evaluation_set, state_of
from winnow.errors import UserError


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"answer": "Onion", "aliases": ["onion", "Onion"]}, ("Onion", "onion")),
        ({"answers": {"text": ["a reef", "reefs"], "answer_start": [3, 9]}}, ("a reef", "reefs")),
        ({"answer": {"value": "Lima", "aliases": ["Lima, Peru"]}}, ("Lima", "Lima, Peru")),
        ({"choices": ["red", "blue"], "answer": 1}, ("blue",)),
        ({"choices": ["red", "blue"], "answer": "B"}, ("blue",)),
        ({"choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "1"}, ("red",)),
        ({"choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": 1}, ("red",)),
        ({"choices": [{"text": "red", "label": "A"}, {"text": "blue", "label": "B"}], "answer": "B"}, ("blue",)),
        ({"choices": [{"text": "red"}, {"text": "blue"}], "answer": 1}, ("blue",)),
        ({"options": {"A": "red", "B": "blue"}, "answer": "B"}, ("blue",)),
        ({"options": {"0": "red", "1": "blue"}, "answer": 0}, ("red",)),
        ({"options": {"A": "red", "B": None}, "answer": "B"}, ("B",)),
        ({"answer": "72"}, ("72",)),
        ({"answer": 72}, ("72",)),
        ({"answer": True}, ()),
        ({"label": 1}, ()),
    ],
)
def test_answers_are_read_as_the_known_sets_write_them(record: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert item_from("Which one?", record).answers == expected


def test_labels_are_no_text_and_a_passage_in_the_prompt_is_cut_off() -> None:
    prompt = "Passage: Reefs need salt.\nThey grow slowly.\nQuestion: do reefs need salt?\nAnswer:"
    assert item_from(prompt, {"target": "yes"}) == Item(
        "do reefs need salt?", ("yes",), "Reefs need salt.\nThey grow slowly."
    )
    assert item_from("Q: why?", {"context": "Because."}) == Item("why?", (), "Because.")
    assert item_from("Answer the question: why", {}).question == "Answer the question: why"


def test_named_fields_win_over_guessed_ones() -> None:
    record = {"answer": "no", "meta": {"gold": "yes"}, "context": "this", "facts": ["that", "and that"]}
    assert item_from("why?", record, "meta.gold", "facts") == Item("why?", ("yes",), "that\nand that")


# -- where a set lies -----------------------------------------------------------------------------------------------

ROWS = [{"id": f"q{k}", "question": f"Is number {k} green?", "answer": "yes"} for k in range(3)]


def texts_of(place: Any, settings: EvaluationSet | None = None) -> list[str]:
    found = read_evaluation_set("set", place, settings)
    assert found.kind == "evaluation"
    return found.items["question"].to_pylist()


def test_sets_are_read_from_files_folders_saved_datasets_and_addresses(tmp_path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "set.jsonl").write_text(lines)
    table = pa.Table.from_pylist(ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(table, folder / "test-0.parquet")
    saved = tmp_path / "saved"
    saved.mkdir()
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (saved / "dataset_info.json").write_text("{}")
    with fsspec.open("memory://bench/quiz/test.jsonl", "w") as file:
        file.write(lines)
    expected = [row["question"] for row in ROWS]
    digests = set()
    for place in (tmp_path / "set.jsonl", folder, saved, "memory://bench/quiz", "memory://bench/quiz/test.jsonl"):
        assert texts_of(place) == expected
        digests.add(read_evaluation_set("set", place).digest)
    assert len(digests) == 1


def test_the_first_field_that_can_be_read_is_the_question(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"prompt": "why so?", "text": "why so? because", "target": "because"}) + "\n")
    found = read_evaluation_set("set", path).items.to_pylist()[0]
    assert (found["question"], found["answers"], found["text"]) == ("why so?", ["because"], "why so? because")
    path.write_text(json.dumps({"text": "only a text", "label": 1, "answer": "x"}) + "\n")
    found = read_evaluation_set("set", path).items.to_pylist()[0]
    assert (found["question"], found["answers"], found["text"]) == ("only a text", [], "only a text")
    path.write_text(json.dumps({"ask": {"it": "what?"}, "text": "t"}) + "\n")
    assert texts_of(path, EvaluationSet(path="x", question_field="ask.it")) == ["what?"]


def test_a_set_without_a_question_is_refused_with_the_fields_that_were_tried(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"body": "x"}) + "\n")
    with pytest.raises(UserError, match=r"no field of question, prompt.* set question_field"):
        read_evaluation_set("set", path)
    with pytest.raises(UserError, match="'asked'"):
        read_evaluation_set("set", path, EvaluationSet(path="x", question_field="asked"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file there that can be read"):
        read_evaluation_set("set", tmp_path / "empty")


def test_a_folder_gives_its_records_and_not_its_description(tmp_path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nA set of questions, with words.")
    (tmp_path / "notes.txt").write_text("Nobody asks this.")
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {"question": "What does it hold?"}}))
    for split, field in (("a", "prompt"), ("b", "prompt")):
        records = [{field: f"Is number {k} of {split} green?", "sentence": "no"} for k in range(9)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = read_evaluation_set("set", tmp_path)
    assert (len(found.items), found.removed) == (18, 0)
    assert found.items["question"].to_pylist()[9] == "Is number 0 of b green?"
    assert texts_of(tmp_path / "notes.txt") == ["Nobody asks this."]


def test_a_set_is_read_twice_at_most_and_a_broken_file_keeps_its_own_error(tmp_path, monkeypatch) -> None:
    reads = []

    class Counting(sets.ShardReader):
        def __init__(self, path: Any, *more: Any) -> None:
            reads.append(path)
            super().__init__(path, *more)

    monkeypatch.setattr(sets, "ShardReader", Counting)
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"text": f"some text number {k}"}) + "\n" for k in range(30)))
    assert len(texts_of(path)) == 30
    assert len(reads) == 2
    with pytest.raises(UserError, match="no such JSON Lines") as error:
        read_evaluation_set("set", tmp_path / "absent.jsonl")
    assert "question_field" not in str(error.value)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    reads.clear()
    with pytest.raises(UserError, match=r"broken|Parquet|parquet") as error:
        read_evaluation_set("set", tmp_path / "broken.parquet")
    assert "question_field" not in str(error.value)
    assert len(reads) == 1


def test_a_set_that_loses_many_records_is_refused(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    lines = [{"question": f"Is number {k} green?"} for k in range(95)] + [{"question": ""}] * 5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_evaluation_set("set", path).removed == 5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[80:]))
    with pytest.raises(UserError, match="question"):
        read_evaluation_set("set", path)


def test_named_fields_are_honoured_beside_a_text_and_refused_where_no_record_has_them(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(
        json.dumps({"text": "why so?", "facts": "Because.", "answer": "x", "url": "http://a", "id": 7}) + "\n"
    )
    row = read_evaluation_set("set", path, EvaluationSet(path="x", passage_field="facts")).items.to_pylist()[0]
    assert (row["question"], row["answers"], row["passage"]) == ("why so?", [], "Because.")
    for field, expected in (("url", ["http://a"]), ("id", ["7"])):
        row = read_evaluation_set("set", path, EvaluationSet(path="x", answer_field=field)).items.to_pylist()[0]
        assert row["answers"] == expected
    for setting in ("answer_field", "passage_field"):
        with pytest.raises(UserError, match=f"no record has a field 'gold': correct {setting}"):
            read_evaluation_set("set", path, EvaluationSet.model_validate({"path": "x", setting: "gold"}))


def test_a_set_is_configured_by_its_path_or_by_a_table(tmp_path) -> None:
    raw = {"contamination": {"evaluation_sets": {"a": "a.jsonl", "b": {"path": "b", "threshold": 0.5}}}}
    sets = validate_config(raw, tmp_path).contamination.evaluation_sets
    assert sets == {"a": EvaluationSet(path="a.jsonl"), "b": EvaluationSet(path="b", threshold=0.5)}
    assert place_of(sets["a"], tmp_path) == (tmp_path / "a.jsonl").resolve()
    for wrong in ({"path": "b", "fields": 1}, {"threshold": 0.5}, {"path": "b", "parts": []}):
        with pytest.raises(UserError, match=r"contamination\.evaluation_sets\.b"):
            validate_config({"contamination": {"evaluation_sets": {"b": wrong}}}, tmp_path / "winnow.toml")


def test_the_state_of_a_set_follows_content_and_settings(tmp_path) -> None:
    path = tmp_path / "set.jsonl"
    one = EvaluationSet(path="set.jsonl")
    states = [state_of(one, tmp_path)]
    for text in ("a", "b"):
        path.write_text(text)
        states.append(state_of(one, tmp_path))
    states.append(state_of(one.model_copy(update={"threshold": 0.5}), tmp_path))
    states.append(state_of(EvaluationSet(path="hf://datasets/owner/name@main/set.jsonl"), tmp_path))
    assert len(set(states)) == len(states)
    folder = tmp_path / "folder"
    folder.mkdir()
    for text in ("a", "b"):
        (folder / "set.jsonl").write_text(text)
        states.append(state_of(EvaluationSet(path="folder"), tmp_path))
    os.utime(folder / "set.jsonl", (1, 1))
    assert state_of(EvaluationSet(path="folder"), tmp_path) == states[-1]
    assert len(set(states)) == len(states)
    (tmp_path / "copy.jsonl").write_text("b")
    assert state_of(EvaluationSet(path="copy.jsonl"), tmp_path) == states[2]


def test_the_command_line_names_a_set_and_its_place(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _evaluation_set("quiz=set.jsonl") == ("quiz", str(tmp_path.resolve() / "set.jsonl"))
    assert _evaluation_set("set.jsonl.zst") == ("set", str(tmp_path.resolve() / "set.jsonl.zst"))
    address = "hf://datasets/owner/name/test.parquet"
    assert _evaluation_set(f"quiz={address}") == ("quiz", address)
    assert _evaluation_set(address) == ("test", address)
