"""A tiny store with manifests and everything that keeps it in order, for the tests of doctor, gc and backup."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

sys.path.append(str(Path(__file__).parent / "stages"))

from small_corpus import SmallCorpus

from winnow.config import Store as StoreSettings
from winnow.identity import doc_id
from winnow.mixture.manifest import build_manifest
from winnow.mixture.manifest_files import verify_manifest, write_manifest
from winnow.stages.examining import examine
from winnow.store.doctor import Examined
from winnow.store.snapshots import committing_snapshot
from winnow.store.store import add_parts, insert, insert_row, now, replace_owned

TEXTS = [f"the text number {number} of this corpus is about {word}" for number, word in enumerate("abcdefgh")]


def small(root: Path, settings: StoreSettings) -> SmallCorpus:
    """Return the corpus of a home whose store has these settings."""
    return SmallCorpus(root, store=settings.model_dump())


def filled(root: Path, settings: StoreSettings | None = None) -> SmallCorpus:
    """Two sources that share a text, one bad record, a few judgements, artifacts and a checkpoint beside it."""
    corpus = small(root, settings or StoreSettings(lock_wait_seconds=20))
    web = [{"text": text, "id": f"w{at}", "url": f"http://web/{at}"} for at, text in enumerate(TEXTS[:4])]
    corpus.write("web/a.jsonl", [*web, b"{broken"])
    corpus.write("books/a.jsonl", [{"text": text, "id": f"b{at}"} for at, text in enumerate(TEXTS[3:6])])
    corpus.deliver()
    for name in ("artifacts/tokenizer-1/tokenizer.json", "checkpoints/c/model.safetensors", "winnow.toml"):
        path = corpus.home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    ids = corpus.store.arrow("SELECT doc_id FROM documents ORDER BY doc_id")["doc_id"]
    judged = pa.table({"doc_id": ids, "version": pa.array(["1"] * len(ids)), "scheme": pa.array(["1"] * len(ids))})
    parts = [
        part
        for kind in ("sketches", "bands")
        for part in corpus.store.write_parts(kind, [judged.select(["doc_id", "scheme"])])
    ]
    with corpus.store.write() as connection:
        insert(connection, "signals", judged.select(["doc_id", "version"]))
        add_parts(connection, parts)
        insert_row(connection, "checkpoints", checkpoint="c", sequence=1, path="checkpoints/c", tokenizer="t")
    return corpus


def add_manifest(corpus: SmallCorpus, version: str, texts: Sequence[str] | None = None) -> None:
    """Make a manifest of all documents, or of these texts, with its folder, its rows, its decisions, its snapshot."""
    store = corpus.store
    wanted = None if texts is None else [doc_id(text) for text in texts]
    documents = [
        row
        for row in store.query("SELECT doc_id, shard, row, source FROM documents ORDER BY doc_id")
        if wanted is None or row[0] in wanted
    ]
    ids, shards, rows, sources = (list(column) for column in zip(*documents, strict=True))
    count = len(ids)
    table = pa.table(
        {
            "order": pa.array(range(count), pa.int64()),
            "doc_id": pa.array(ids, pa.uuid()),
            "uri": pa.array(shards, pa.string()),
            "row": pa.array(rows, pa.int64()),
            "source": pa.array(sources, pa.string()),
            "tokens": pa.array([10] * count, pa.int64()),
            "repeats": pa.array([1] * count, pa.int32()),
            "reason": ["granted"] * count,
        }
    )
    manifest = build_manifest(
        table, version=version, token_budget=10 * count, seed=0, configuration={}, inputs={},
        weights=dict.fromkeys(sources, 1.0),
    )  # fmt: skip
    decided = {"selection": version, "stage": "selection", "verdict": "selected", "reason": "granted"}
    columns = {name: pa.array([value] * count, pa.string()) for name, value in decided.items()}
    decisions = store.write_parts("decisions", [pa.table({"doc_id": table["doc_id"], **columns})])
    with store.write() as connection:
        replace_owned(connection, "decisions", version, decisions)
    listed = store.write_parts("manifest_rows", [table.append_column("version", pa.array([version] * count))])
    made_at = now()
    with committing_snapshot(store, version, listed, made_at) as (connection, snapshot):
        folder = write_manifest(manifest, corpus.home.manifests)
        insert_row(
            connection, "manifests", version=version, digest=manifest.digest, selection=version, checkpoint="c",
            documents=manifest.documents, tokens=manifest.tokens, budget_tokens=manifest.token_budget,
            path=corpus.home.name(folder), snapshot=list(snapshot.digests), made_at=made_at,
        )  # fmt: skip


def failing(corpus: SmallCorpus, deep: bool = False) -> dict[str, list[str]]:
    """Return what the doctor finds wrong: check -> examples."""
    return {one.name: one.examples for one in examined(corpus, deep) if not one.ok}


def examined(corpus: SmallCorpus, deep: bool = False) -> list[Examined]:
    return examine(corpus.store, corpus.config, deep)


def manifests_verify(corpus: SmallCorpus) -> bool:
    folders = [corpus.home.manifests / version for (version,) in corpus.store.query("SELECT version FROM manifests")]
    return all(verify_manifest(folder).ok for folder in folders)
