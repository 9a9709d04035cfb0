"""A home with a tiny trained checkpoint and the manifest that it was trained on, made without Dagster."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.append(str(Path(__file__).parents[1]))

from kept import add_manifest
from small_corpus import SmallCorpus, reference_items

from winnow.config import Config, save_config
from winnow.stages.checkpoints import initial_checkpoint
from winnow.stages.training import register
from winnow.store.stage import Stage
from winnow.store.store import insert

SUBJECTS = ("the river", "a kernel", "our garden", "this theorem", "one engine", "her violin")
CLAIMS = ("is older than it looks", "needs care in the winter", "was never quite finished", "rests on two others")
TEXTS = [f"{subject} {claim}, number {number}." for number, (subject, claim) in enumerate(
    (subject, claim) for subject in SUBJECTS for claim in CLAIMS
)]  # fmt: skip
TRAINED = TEXTS[:16]
LONG = " ".join(TEXTS)
CONTEXT = 24
START = initial_checkpoint(Config())


def attributed(root: Path, optimizer: bool = True) -> SmallCorpus:
    """Make the home: checkpoint `START` knows of no manifest, `trained` comes from it and was trained on v0001."""
    from winnow.train.batches import pack
    from winnow.train.checkpoint import save_checkpoint
    from winnow.train.loop import TrainSettings, train
    from winnow.train.model import ModelConfig, build_model
    from winnow.train.tokenizer import count_tokens, load_tokenizer, save_tokenizer, tokenise, train_tokenizer

    corpus = SmallCorpus(
        root,
        sets=[reference_items("the river is older", "a violin needs care")],
        quality={"filter": False},
        influence={
            "estimator": "grad_dot", "curvature_documents": 8, "reference_tokens": 100, "oracle_reference_tokens": 40,
        },
    )  # fmt: skip
    corpus.write("web/a.jsonl", [{"text": text, "id": f"w{at}"} for at, text in enumerate([*TEXTS, LONG])])
    corpus.deliver()
    home, store = corpus.home, corpus.store
    folder = home.artifacts / "tokenizer"
    save_tokenizer(train_tokenizer(TEXTS, 300), folder)
    tokenizer = load_tokenizer(folder)
    model = build_model(ModelConfig(300, 16, 2, 2, 24, CONTEXT), seed=0)
    state = None
    for name, texts, parent in ((START, TEXTS[16:], None), ("trained", TRAINED, START)):
        windows = pack(tokenise(tokenizer, texts), CONTEXT, int(tokenizer.eos_token_id))
        result = train(model, np.tile(windows, (3, 1)), TrainSettings(lr=3e-3, batch_windows=4, dtype="float32"), state)
        state = result.optimizer_state
        told = {"step": result.steps, "tokens": result.tokens, "manifest": "v0001" if parent else None}
        save_checkpoint(
            home.checkpoints / name, model, tokenizer, state if optimizer else None, {**told, "parent": parent}
        )
        register(store, name, home.checkpoints / name, Stage(store, "checkpoints", "run"))
    add_manifest(corpus, "v0001", TRAINED)
    documents = store.query("SELECT doc_id, tokenizer FROM documents, checkpoints WHERE checkpoint = 'trained'")
    texts = dict(store.query("SELECT doc_id, text FROM texts"))
    counted = pa.table(
        {
            "doc_id": pa.array([doc for doc, _ in documents], pa.uuid()),
            "tokenizer": [digest for _, digest in documents],
            "tokens": count_tokens(tokenizer, [texts[doc] for doc, _ in documents]),
        }
    )
    passed = pa.array([True] * len(counted))
    with store.write() as connection:
        insert(connection, "token_counts", counted)
        insert(connection, "signals", pa.table({"doc_id": counted["doc_id"], "gopher_passed": passed}))
    save_config(corpus.config, home.config)
    store.publish()
    return corpus
