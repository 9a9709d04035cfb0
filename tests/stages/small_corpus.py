"""A tiny corpus in a home of its own, driven through the stages as the assets do it, without Dagster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from winnow.config import Config
from winnow.contamination.sets import ItemSet
from winnow.dedup.sketch import make_plan
from winnow.home import Home
from winnow.quality.judge import judge as judge_quality
from winnow.quality.judge import quality_version
from winnow.stages.contamination import compare_waiting, contamination_key, nothing_waits, waiting_sets
from winnow.stages.corpus import Delivered, corpus_digest, deliver, known_shards
from winnow.stages.duplicate_groups import group_duplicates, grouping_key
from winnow.stages.duplicate_pairing import pair_new_documents, pairing_key
from winnow.stages.priorities import source_priorities
from winnow.stages.references import write_sets
from winnow.stages.sketches import sketch_new_documents
from winnow.store.judgements import pending, texts_of
from winnow.store.stage import Stage
from winnow.store.store import Store, insert
from winnow.text.deliveries import Delivery, plan, scan

Record = Mapping[str, Any] | bytes
"""A JSON object, or the bytes of a line that is none."""

CORPUS_TABLES = ("shards", "occurrences", "documents", "quarantine")
JUDGEMENTS = ("signals", "duplicate_pairs", "duplicates", "contamination", "contamination_items")
ACCIDENTAL = ("batch", "run_id", "delivered_at", "parts", "mtime_ns", "path")
"""Columns that say when and where, not what."""


def reference_items(*texts: str, name: str = "reference", kind: str = "reference") -> ItemSet:
    """Return a set whose items are all of one part, enough for overlap."""
    part = "selecting" if kind == "reference" else "evaluation"
    count = len(texts)
    items = pa.table(
        {
            "item_id": pa.nulls(count, pa.string()),
            "part": pa.array([part] * count, pa.string()),
            "topic": pa.array([str(index) for index in range(count)], pa.string()),
            "text": pa.array(texts, pa.string()),
        }
    )
    return ItemSet(name, kind, f"{name}.jsonl", items, 0)


class SmallCorpus:
    """A home with an inbox; ``config`` are sections of ``winnow.toml`` as plain data."""

    def __init__(self, root: Path, backend: str = "file", sets: Sequence[ItemSet] = (), **config: Any) -> None:
        self.home = Home(root)
        self.config = Config.model_validate({"store": {"backend": backend, "lock_wait_seconds": 20.0}} | config)
        self.store = Store(self.home, self.config.store)
        self.home.inbox.mkdir(parents=True, exist_ok=True)
        self._clock = 1_700_000_000
        if sets:
            with self.store.write() as connection:
                write_sets(connection, list(sets))

    # -- files ------------------------------------------------------------------------------------------------------

    def write(self, shard: str, records: Iterable[Record]) -> Path:
        """Write ``inbox/<shard>`` as JSON Lines; its time is always a new one."""
        lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
        path = self.home.inbox / shard
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        self.touch(shard)
        return path

    def touch(self, shard: str) -> None:
        self._clock += 1
        os.utime(self.home.inbox / shard, (self._clock, self._clock))

    def remove(self, shard: str) -> None:
        (self.home.inbox / shard).unlink()

    # -- stages -----------------------------------------------------------------------------------------------------

    def waiting(self) -> Delivery:
        """Return what differs between the inbox and the store."""
        with self.store.read() as connection:
            known = known_shards(connection, self.config.corpus)
        return plan(scan(self.home, self.config.corpus), known)

    def deliver(self, delivery: Delivery | None = None) -> Delivered:
        """Deliver what waits, or this delivery, as one partition."""
        delivery = self.waiting() if delivery is None else delivery
        work = Stage(self.store, "corpus", "run", partition=delivery.key)
        return deliver(self.store, self.config.corpus, delivery, work)

    def judge(self) -> None:
        """Run signals, sketches, pairs, groups and contamination, each skipped as its asset skips it."""
        self.judge_signals()
        self.judge_duplicates()
        self.judge_contamination()

    def judge_signals(self) -> int:
        store, settings = self.store, self.config.quality
        version = quality_version(settings)
        documents = pending(store, "signals", "version", version)
        if len(documents):
            rows = [judge_quality(texts, settings) for texts in texts_of(store, documents)]
            with store.write() as connection:
                connection.execute("DELETE FROM signals WHERE version <> $version", {"version": version})
                for judged in rows:
                    insert(connection, "signals", judged)
        return len(documents)

    def judge_duplicates(self) -> int:
        """Return how many documents were new to the comparison."""
        store, plan = self.store, make_plan(self.config.duplicates)
        sketch_new_documents(store, Stage(store, "sketches", "run"), plan)
        stage, compared = Stage(store, "duplicate_pairs", "run", pairing_key(store, plan)), 0
        if stage.done is None:
            compared = pair_new_documents(store, stage, plan).documents
        priorities = source_priorities(self.config)
        stage = Stage(store, "duplicates", "run", grouping_key(store, plan, priorities))
        if stage.done is None:
            group_duplicates(store, stage, plan, priorities)
        return compared

    def judge_contamination(self) -> int:
        """Return how many documents were new to the comparison, summed over sets."""
        sets = waiting_sets(self.store, self.config.contamination)
        stage = Stage(self.store, "contamination", "run", contamination_key(self.store, sets))
        return 0 if nothing_waits(sets, stage) else compare_waiting(self.store, sets, stage)

    # -- what came out ----------------------------------------------------------------------------------------------

    def rows(self, table: str, *without: str) -> list[tuple[Any, ...]]:
        """Return a table's rows, sorted, without the columns that are accidental or named."""
        dropped = {*ACCIDENTAL, *without}
        with self.store.scratch(table) as connection:
            columns = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
            kept = ", ".join(f'"{column}"' for column in columns if column not in dropped)
            return connection.execute(f"SELECT {kept} FROM {table} ORDER BY ALL").fetchall()

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row that deliveries and judgements end in."""
        found = {table: self.rows(table) for table in (*CORPUS_TABLES, *JUDGEMENTS, "texts")}
        return found | {"corpus_digest": [(corpus_digest(self.store),)]}

    def by_document(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows that say nothing of files."""
        found = {table: self.rows(table) for table in JUDGEMENTS}
        found["documents"] = self.store.query("SELECT doc_id, source, dup_count, words FROM documents ORDER BY ALL")
        return found | {"corpus_digest": [(corpus_digest(self.store),)]}
