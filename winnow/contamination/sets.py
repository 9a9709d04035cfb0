"""Reference and evaluation sets: read from files, split in a selecting and a judging part, clean of each other.

Selection may look at the selecting part only. Items of the judging part that share a run of words with the selecting
part are dropped, so the judge has not been seen through the other half.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from winnow.config import Reference
from winnow.contamination.ngrams import build_index, find_overlap
from winnow.errors import UserError
from winnow.identity import digest
from winnow.text.formats import format_of
from winnow.text.readers import Batch, Limits, ShardReader
from winnow.text.records import FieldMap

SELECTING, JUDGING, EVALUATION = "selecting", "judging", "evaluation"
OVERLAP_NGRAM = 8


@dataclass(frozen=True)
class ItemSet:
    """The items of one set; ``items`` has the columns item_id, part, topic, text (``reference_items``)."""

    name: str
    kind: str
    path: str
    items: pa.Table
    removed: int

    @property
    def digest(self) -> str:
        """Digest of the items and of their split, whatever file they came from."""
        rows = sorted(zip(self.items["part"].to_pylist(), self.items["text"].to_pylist(), strict=True))
        return digest(rows)[:32]

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
    records = _read_items(path, settings.text_field)
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


def read_evaluation_set(name: str, path: Path) -> ItemSet:
    """Read an evaluation set, to keep its items out of the pool. Raises :class:`UserError` as for the reference."""
    records = _read_items(path, "text")
    topics = [str(item_id or index) for index, (item_id, _, _) in enumerate(records)]
    return ItemSet(name, EVALUATION, str(path), _table(records, [EVALUATION] * len(records), topics), 0)


def _read_items(path: Path, text_field: str) -> list[tuple[str | None, str, dict[str, object]]]:
    if not path.is_file() or format_of(path) is None:
        raise UserError(f"reference {path}: no such JSON Lines, Parquet or text file; give an existing file")
    reader = ShardReader(path, FieldMap(text=text_field), Limits())
    batches: list[Batch] = list(reader)
    if reader.failed:
        raise UserError(f"reference {path}: {reader.failure}")
    records = [
        (original, text, json.loads(metadata))
        for batch in batches
        for original, text, metadata in zip(
            *(batch.documents[name].to_pylist() for name in ("original_id", "text", "metadata")), strict=True
        )
    ]
    if not records:
        raise UserError(f"reference {path} is empty: influence needs at least a few items with a '{text_field}' field")
    return records


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


def _table(records: list[tuple[str | None, str, dict[str, object]]], parts: list[str], topics: list[str]) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array([item_id for item_id, _, _ in records], pa.string()),
            "part": pa.array(parts, pa.string()),
            "topic": pa.array(topics, pa.string()),
            "text": pa.array([text for _, text, _ in records], pa.string()),
        }
    )
