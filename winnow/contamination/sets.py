"""Reference and evaluation sets: read from files or saved datasets; the reference split in two, clean of each other.

Selection may look at the selecting part only. Items of the judging part that share a run of words with the selecting
part are dropped, so the judge has not been seen through the other half.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from winnow.config import EvaluationSet, Reference
from winnow.contamination.items import QUESTIONS, item_from
from winnow.contamination.ngrams import build_index, find_overlap
from winnow.errors import UserError
from winnow.identity import digest, digest_file
from winnow.text.formats import format_of
from winnow.text.layouts import find_shards
from winnow.text.locations import file_name, is_remote, list_files, resolve_root, without_secrets
from winnow.text.readers import ShardReader
from winnow.text.records import MISSING, FieldMap, value_at

SELECTING, JUDGING, EVALUATION = "selecting", "judging", "evaluation"
OVERLAP_NGRAM = 8
MOST_DROPPED = 0.1
RECORD_FORMATS = ("jsonl", "csv", "tsv", "parquet", "arrow")
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files beside a data set that tell of it."""
NO_TEXT = {"missing_text", "text_not_string", "empty_text", "file_failed"}
Record = tuple[str | None, str, dict[str, Any]]
ASKED = ("question", "answers", "passage")
"""Columns of ``reference_items`` that only evaluation sets have."""


@dataclass(frozen=True)
class ItemSet:
    """The items of one set; ``items`` has the columns item_id, part, topic, text (``reference_items``).

    Those of an evaluation set have question, answers and passage besides. ``removed``: items that were left out.
    """

    name: str
    kind: str
    path: str
    items: pa.Table
    removed: int

    @property
    def digest(self) -> str:
        """Digest of the items and of their split, whatever file they came from."""
        columns = ["part", "text", *(name for name in ASKED if name in self.items.column_names)]
        return digest(sorted(list(row.values()) for row in self.items.select(columns).to_pylist()))[:32]

    def texts(self, part: str | None = None) -> list[str]:
        """Return the texts of a part, in order, or of all."""
        pairs = zip(self.items["part"].to_pylist(), self.items["text"].to_pylist(), strict=True)
        return [text for own, text in pairs if part in (None, own)]

    def count(self, part: str) -> int:
        return self.items["part"].to_pylist().count(part)


def read_reference(path: Path, settings: Reference) -> ItemSet:
    """Read the reference and split it.

    A record whose ``part_field`` says selecting or judging stays there. Otherwise whole topics (``topic_field``, else
    single items) fall to the judging part with the configured share, by a seeded hash of the topic. Raises
    :class:`UserError` for a missing, unreadable or empty file and for a split that leaves a part empty.
    """
    records, _ = _read_items([path], FieldMap(text=settings.text_field), f"reference {path}")
    parts, topics = [], []
    for index, (item_id, _, metadata) in enumerate(records):
        topic = str(metadata.get(settings.topic_field) or item_id or index)
        topics.append(topic)
        given = metadata.get(settings.part_field)
        if given not in (None, SELECTING, JUDGING):
            raise UserError(
                f"{path}, item {index}: {settings.part_field} = {given!r}; expected 'selecting' or 'judging'"
                " (or set reference.part_field to another name)"
            )
        parts.append(given or (JUDGING if _fraction(topic, settings.seed) < settings.judging_share else SELECTING))
    kept = _without_overlap([text for _, text, _ in records], parts)
    items = _table(records, parts, topics).filter(pa.array(kept))
    found = ItemSet(settings.name, "reference", str(path), items, int((~kept).sum()))
    for part in (SELECTING, JUDGING):
        if not found.count(part):
            raise UserError(
                f"{path}: no item is left for the {part} part; give more items or change reference.judging_share"
            )
    return found


def read_evaluation_set(name: str, place: str | Path, settings: EvaluationSet | None = None) -> ItemSet:
    """Read an evaluation set from a file, a folder of files, a folder of ``save_to_disk``, or a URI of either.

    Of a folder the files of records are read (JSON Lines, CSV, Parquet, Arrow), not its texts, such as a ``README.md``.
    The question's field is the one that ``settings`` names, else the first of ``items.QUESTIONS`` that is a string in
    some record. Raises :class:`UserError` as for the reference, for a named field that no record has, and when more
    than a tenth of the records have no question.
    """
    settings = settings or EvaluationSet(path=str(place))
    shown = f"evaluation set {name} ({without_secrets(str(place))})"
    field, records, dropped = _read_questions(_files(place, shown), settings.question_field, shown)
    if dropped > MOST_DROPPED * (len(records) + dropped):
        raise UserError(
            f"{shown}: {dropped} of {len(records) + dropped} records have no '{field}' that can be read: name another "
            "question_field, or leave these records out of the file"
        )
    for setting in ("answer_field", "passage_field"):
        named = getattr(settings, setting)
        if named and not any(value_at(fields, named) not in (MISSING, None) for _, _, fields in records):
            raise UserError(f"{shown}: no record has a field '{named}': correct {setting}")
    items = []
    for _, text, fields in records:
        if field == "text" and not settings.answer_field:  # the text is the whole item: nothing is looked for
            top = settings.passage_field if settings.passage_field in fields else settings.passage_field.split(".")[0]
            fields = {top: fields[top]} if top in fields else {}
        items.append(item_from(text, fields, settings.answer_field, settings.passage_field))
    topics = [str(item_id or index) for index, (item_id, _, _) in enumerate(records)]
    texts = [
        text if field == "text" else str(fields["text"]) if isinstance(fields.get("text"), str) else item.whole
        for (_, text, fields), item in zip(records, items, strict=True)
    ]
    table = _table(records, [EVALUATION] * len(records), topics).set_column(3, "text", pa.array(texts, pa.string()))
    table = table.append_column("question", pa.array([item.question for item in items], pa.string()))
    table = table.append_column("answers", pa.array([list(item.answers) for item in items], pa.list_(pa.string())))
    table = table.append_column("passage", pa.array([item.passage for item in items], pa.string()))
    return ItemSet(name, EVALUATION, without_secrets(str(place)), table, dropped)


def place_of(settings: EvaluationSet, home: Path) -> str | Path:
    """Return where a set lies: a URI as it is, or an absolute path (a relative one is relative to ``home``)."""
    return resolve_root(settings.path, home)


def state_of(settings: EvaluationSet, home: Path) -> str:
    """Return a digest of what a set is read from and how it is compared, for keys; nothing remote is asked.

    Of a remote set only the address counts: pin a revision in it (``hf://datasets/owner/name@revision/...``).
    """
    place = place_of(settings, home)
    if is_remote(place):
        content: object = str(place)
    elif Path(place).is_file():
        content = digest_file(Path(place))
    elif Path(place).is_dir():
        files = [(one.relative, Path(one.path)) for one in list_files(place, ["**/*"])]
        content = [[relative, digest_file(path) if path.is_file() else ""] for relative, path in files]
    else:
        content = ""
    return digest([content, settings.model_dump(mode="json", exclude={"path"})])


def _files(place: str | Path, shown: str) -> list[str | Path]:
    """Return the files of a set, in the order of their paths."""
    local = Path(place)
    if not is_remote(place) and not local.is_dir():
        return [local]
    if is_remote(place) and format_of(file_name(place)):
        return [place]
    shards = find_shards(place, ["**/*"], is_corpus_file=lambda _, file: _has_records(file.relative))
    if not shards:
        raise UserError(f"{shown}: no file there that can be read; name a JSON Lines or Parquet file or its folder")
    return [shard.file.path for shard in shards]


def _has_records(relative: str) -> bool:
    kind = (format_of(relative) or "").partition(".")[0]
    return kind in RECORD_FORMATS and relative.rpartition("/")[2] not in DESCRIPTIONS


def _read_questions(files: Sequence[str | Path], named: str, shown: str) -> tuple[str, list[Record], int]:
    """Return the question's field, the records and how many have none; files are read twice at most."""
    if named:
        return named, *_read_items(files, _fields(named), shown)
    types: dict[str, set[str]] = {}
    try:
        records, dropped = _read_items(files, _fields(QUESTIONS[0]), shown, types)
    except _NoTextError as error:
        found = next((field for field in QUESTIONS[1:] if "string" in types.get(field, ())), None)
        if found is None:
            tried = ", ".join(QUESTIONS)
            raise UserError(f"{error}; no field of {tried} can be read as the question: set question_field") from error
        return found, *_read_items(files, _fields(found), shown)
    return QUESTIONS[0] if types else "text", records, dropped  # a file of plain text has no fields


def _fields(question: str) -> FieldMap:
    """Return a map that leaves everything beside the question and the id among the other fields."""
    return FieldMap(text=question, url=None, date=None)


class _NoTextError(UserError):
    """No record that was read has the field."""


def _read_items(
    paths: Sequence[str | Path], names: FieldMap, shown: str, types: dict[str, set[str]] | None = None
) -> tuple[list[Record], int]:
    """Return id, text and the other fields of each record (with its id), and how many records had no text.

    ``types`` gets the JSON types of every field that was met. Raises ``UserError``; of its kind ``_NoTextError`` where
    there are records, and not one of them has the text.
    """
    records: list[Record] = []
    dropped = 0
    failure = ""
    for path in paths:
        if not is_remote(path) and (not Path(path).is_file() or format_of(Path(path)) is None):
            raise UserError(f"{shown}: no such JSON Lines, Parquet or text file; give an existing file")
        reader = ShardReader(path, names)
        reasons = set()
        for batch in list(reader):
            columns = (batch.documents[name].to_pylist() for name in ("original_id", "text", "metadata"))
            for item_id, text, metadata in zip(*columns, strict=True):
                records.append((item_id, text, ({} if item_id is None else {"id": item_id}) | json.loads(metadata)))
            reasons |= {row.reason for row in batch.quarantined}
        if types is not None:
            for field, kinds in reader.fields.types.items():
                types.setdefault(field, set()).update(kinds)
        if reader.failed:
            failure = failure or f"{shown}: {reader.failure}"
            if not reasons <= NO_TEXT:
                raise UserError(f"{shown}: {reader.failure}")
        dropped += reader.quarantined
    if not records and dropped:
        raise _NoTextError(failure or f"{shown}: no record has a '{names.text}' field with a text")
    if failure:
        raise UserError(failure)
    if not records:
        raise UserError(f"{shown} is empty: it needs at least a few items with a '{names.text}' field")
    return records, dropped


def _fraction(topic: str, seed: int) -> float:
    return xxhash.xxh3_64_intdigest(f"{seed}:{topic}".encode()) / 2**64


def _without_overlap(texts: list[str], parts: list[str]) -> np.ndarray:
    """Mask of the items to keep: judging items that share 8 words in a row with a selecting one go."""
    kept = np.ones(len(texts), bool)
    judging = [index for index, part in enumerate(parts) if part == JUDGING]
    selecting = [text for text, part in zip(texts, parts, strict=True) if part == SELECTING]
    if judging and selecting:
        overlap = find_overlap(
            pa.array([texts[index] for index in judging], pa.large_string()), build_index(selecting, OVERLAP_NGRAM)
        )
        kept[np.array(judging)[overlap["position"].to_numpy()]] = False
    return kept


def _table(records: list[Record], parts: list[str], topics: list[str]) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array([item_id for item_id, _, _ in records], pa.string()),
            "part": pa.array(parts, pa.string()),
            "topic": pa.array(topics, pa.string()),
            "text": pa.array([text for _, text, _ in records], pa.string()),
        }
    )
