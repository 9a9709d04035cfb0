"""Small worlds: homes with real English text, the standard library's docstrings, and the jobs run in this process."""

from __future__ import annotations

import ast
import json
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg

import definitions
from resources.workspace import Workspace
from winnow import plots
from winnow.config import (
    Clusters,
    Config,
    Corpus,
    Encoder,
    Influence,
    Model,
    Quality,
    Reference,
    Selection,
    Train,
    load_config,
    save_config,
)
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.stages.checkpoints import current_checkpoint
from winnow.stages.corpus import known_shards
from winnow.store.store import Store, open_store
from winnow.text.deliveries import plan, scan

FITTED = {"tokenizer", "train_stage"}
"""Assets that are folders of files, no tables."""

SUPPORTING = {
    "texts",
    "bucket_centers",
    "reference_items",
    "contamination_items",
    "contamination_ngrams",
    "contamination_report",
    "manifest_rows",
    "refused",
    "takedowns",
    "withdrawn",
    "membership_sets",
    "attribution_bench",  # of a job of its own
    "lab_runs",  # likewise
    "lab_curves",
    "lab_results",
}
"""Tables that another asset of their stage writes beside its own."""

SOURCES = {
    "numbers": ("statistics", "random", "decimal", "fractions", "datetime", "numbers", "calendar", "heapq"),
    "files": ("pathlib", "shutil", "tempfile", "zipfile", "tarfile", "glob", "tokenize", "configparser"),
    "programs": ("argparse", "asyncio/base_events", "inspect", "ast", "threading", "queue", "contextlib", "functools"),
}
REFERENCE = ("logging/__init__", "subprocess", "unittest/case", "typing", "difflib", "email/message")
LATER = ("socketserver", "http/client", "xmlrpc/client", "urllib/request")

LOW_QUALITY = "buy now"
NEAR_PAIR = "the-original", "the-copy"
CONTAMINATED = "leaks-the-reference"


@cache
def docstrings(module: str) -> tuple[tuple[str, str], ...]:
    """Return (qualified name, docstring) of a module's parts with at least 14 words, without importing it."""
    path = Path(sysconfig.get_path("stdlib")) / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple((name, text) for name, text in _documented(tree, module.replace("/", ".")) if len(text.split()) >= 14)


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield name, text
        for child in node.body:
            yield from _documented(child, f"{name}.{getattr(child, 'name', '')}")


def later_documents(count: int) -> list[dict[str, str]]:
    """Return records that no small world starts with."""
    found = [{"id": name, "text": text} for module in LATER for name, text in docstrings(module)]
    return found[:count]


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write JSON Lines by temporary name and rename, as a careful deliverer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    temporary.replace(path)
    return path


def small_config(**sections: Mapping[str, Any]) -> Config:
    """Return a configuration that makes everything small; ``sections`` override single settings."""
    config = Config(
        corpus=Corpus(),
        reference=Reference(path="reference/python.jsonl", name="python"),
        quality=Quality(
            gopher={
                "min_words": 8,
                "max_mean_word_length": 14,
                "min_stop_words_distinct": 1,
                "min_frac_words_alpha": 0.5,
                "max_hash_symbol_ratio": 0.3,
            }
        ),
        encoder=Encoder(dtype="float32", max_tokens=32),
        clusters=Clusters(count=6),
        model=Model(hidden=32, layers=2, heads=2, intermediate=64, context=64, vocabulary=400, warmup_tokens=6_000),
        influence=Influence(
            curvature_documents=24,
            reference_tokens=2_000,
            probes_per_cluster=6,
            oracle_probes=8,
            oracle_reference_tokens=400,
            spearman_floor=-1,
        ),
        selection=Selection(budget_tokens=3_000, max_probes=60),
        train=Train(evaluations=2, judging_tokens=1_000),
        store=StoreSettings(threads=1, memory_limit="500MB"),
    )
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=dict(changes)) for name, changes in sections.items()}
    )


def write_corpus(home: Home, documents_a_source: int = 60) -> None:
    """Write three sources, with a near duplicate, an exact one across sources, a poor and a leaking document."""
    records = {
        source: [{"id": name, "text": text} for module in modules for name, text in docstrings(module)]
        for source, modules in SOURCES.items()
    }
    reference = [
        {"id": name, "text": text, "topic": name.split(".")[0]}
        for module in REFERENCE
        for name, text in docstrings(module)
    ]
    for source, rows in records.items():
        records[source] = rows[:: max(1, len(rows) // documents_a_source)][:documents_a_source]
    original = max(records["files"], key=lambda row: len(row["text"]))
    words = original["text"].split(" ")
    records["numbers"].append({"id": NEAR_PAIR[0], "text": original["text"] + "\nIt is said once."})
    records["programs"].append({"id": NEAR_PAIR[1], "text": " ".join([*words[:40], "indeed", *words[40:]])})
    records["programs"].append({"id": "copied", "text": records["files"][3]["text"]})
    records["files"].append({"id": LOW_QUALITY, "text": "buy now buy now buy now $$$ ###"})
    longest = max(reference, key=lambda row: len(row["text"]))
    leak = " ".join(longest["text"].split()[:60])
    records["numbers"].append({"id": CONTAMINATED, "text": f"As the manual of Python says in its own words: {leak}"})
    for source, rows in records.items():
        write_records(home.inbox / source / "first.jsonl", rows)
    write_records(home.root / "reference/python.jsonl", reference)


class World:
    """A home with a Dagster instance of its own; jobs run in this process."""

    def __init__(self, root: Path, draw: bool = True) -> None:
        self.home = Home.from_environment(root)
        self.instance = dg.DagsterInstance.ephemeral()
        self.draw = draw

    @classmethod
    def make(cls, root: Path, config: Config | None = None) -> World:
        world = cls(root)
        write_corpus(world.home)
        world.configure(config or small_config())
        return world

    def copy(self, root: Path) -> World:
        """Return a world that starts from this one's present state; its runs draw no pictures, as this one's did."""
        shutil.copytree(self.home.root, root)
        return World(root, draw=False)

    # -- what can change --------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return load_config(self.home.config)

    def configure(self, config: Config) -> None:
        save_config(config, self.home.config)

    def deliver(self, name: str, records: list[dict[str, Any]]) -> Path:
        """Put a file into the inbox; ``name`` is ``source/file``."""
        return write_records(self.home.inbox / name, records)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def execute(self, job: str, **how: Any) -> dg.ExecuteInProcessResult:
        definition = definitions.defs.resolve_job_def(job)
        quiet: dict[str, Any] = {"loggers": {"progress": {"config": {}}}}
        with nullcontext() if self.draw else patch.object(plots, "_png", lambda figure: b""):
            return definition.execute_in_process(
                instance=self.instance,
                run_config=how.pop("run_config", quiet),
                resources={"workspace": Workspace(home=str(self.home.root))},
                **how,
            )

    def ingest(self) -> dg.ExecuteInProcessResult | None:
        """Deliver what differs from the store as one batch and judge it; None when nothing does."""
        with self.store.read() as connection:
            known = known_shards(connection, self.config.corpus)
        delivery = plan(scan(self.home, self.config.corpus), known)
        if not delivery:
            return None
        delivery.save(self.home)
        return self.ingest_batch(delivery.key)

    def ingest_batch(self, key: str) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions("shards", [key])
        return self.execute("ingest", partition_key=key)

    def curate(self, checkpoint: str | None = None, **how: Any) -> dg.ExecuteInProcessResult:
        name = checkpoint or self.checkpoint
        self.instance.add_dynamic_partitions("checkpoints", [name])
        return self.execute("curate", partition_key=name, **how)

    def train(self, checkpoint: str | None = None) -> dg.ExecuteInProcessResult:
        name = checkpoint or self.checkpoint
        self.instance.add_dynamic_partitions("checkpoints", [name])
        return self.execute("train", partition_key=name)

    def register(self, name: str) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions("checkpoints", [name])
        return self.execute("register", partition_key=name)

    # -- what can be asked ------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return open_store(self.home)

    @property
    def checkpoint(self) -> str:
        """The current checkpoint."""
        with self.store.read() as connection:
            return current_checkpoint(connection, self.config)

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self.store.query(query, parameters)

    def value(self, query: str, **parameters: Any) -> Any:
        return self.rows(query, **parameters)[0][0]

    def digests(self) -> list[str]:
        """Digests of the manifests, oldest first."""
        return [digest for (digest,) in self.rows("SELECT digest FROM manifests ORDER BY version")]

    def processed_since(self, runs: set[str]) -> dict[str, int]:
        """Return what each stage worked on in runs that are not among ``runs``."""
        found: dict[str, int] = {}
        for stage, run, processed in self.rows("SELECT stage, run_id, processed FROM costs"):
            if run not in runs:
                found[stage] = found.get(stage, 0) + processed
        return found

    def runs(self) -> set[str]:
        return {run for (run,) in self.rows("SELECT DISTINCT run_id FROM costs")}


def metadata_by_asset(result: dg.ExecuteInProcessResult) -> dict[str, Mapping[str, Any]]:
    """Return the metadata that a run reported, by asset."""
    return {
        event.asset_key.to_user_string(): {name: entry.value for name, entry in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and modification time of every file below a folder, to see that nothing was written."""
    if not root.exists():
        return {}
    return {
        path.relative_to(root).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Finished:
    """A world and the results of the runs that made it."""

    world: World
    ingest: dg.ExecuteInProcessResult
    curate: dg.ExecuteInProcessResult
    train: dg.ExecuteInProcessResult


def finished_world(root: Path) -> Finished:
    """Run the whole job on a new small world."""
    world = World.make(root)
    ingest = world.ingest()
    assert ingest is not None
    return Finished(world, ingest, world.curate(), world.train())
