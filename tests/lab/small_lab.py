"""A lab of a hidden size of 16: three kinds of documents, a target that is of one kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from winnow.lab.pool import LabPool, make_pool
from winnow.lab.runs import Lab, LabSettings, open_lab
from winnow.lab.targets import Target
from winnow.train.model import ModelConfig

KINDS = ("a", "b", "c")
SMALL = ModelConfig(vocab=64, hidden=16, layers=2, heads=2, intermediate=32, context=32)
SETTINGS = LabSettings(tokens=2048, warm_tokens=512, eval_tokens=512, out_every=2, held_out=2, lr=5e-3)


def document(kind: str, number: int, length: int) -> np.ndarray:
    """Return tokens of one kind: its own twenty, in runs that another document does not have."""
    draws = np.random.default_rng([ord(kind), number])
    first = 1 + 20 * KINDS.index(kind)
    steps = draws.integers(1, 4, length).cumsum()
    return (first + steps % 20).astype(np.int32)


def text_of(tokens: np.ndarray) -> str:
    return " ".join(f"w{token}" for token in tokens.tolist())


def small_pool(documents: int = 240) -> LabPool:
    tokens = [document(KINDS[number % 3], number, 12 + number % 17) for number in range(documents)]
    kinds = [KINDS[number % 3] for number in range(documents)]
    noise = np.random.default_rng(3).normal(size=(documents, 6)) * 0.1
    vectors = np.eye(6)[[KINDS.index(kind) for kind in kinds]] + noise
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    clusters = np.array([2 * KINDS.index(kind) + number % 2 for number, kind in enumerate(kinds)])
    return make_pool(
        [f"{number} {text_of(one)}" for number, one in enumerate(tokens)], kinds, tokens,
        vectors=vectors, clusters=clusters, embedding_flops=1e6,
    )  # fmt: skip


def small_target(kind: str, name: str) -> Target:
    parts = [[document(kind, base + number, 20) for number in range(12)] for base in (10_000, 20_000)]
    texts = [tuple(f"{name} {part} {number} {text_of(one)[:9]}" for number, one in enumerate(tokens))
             for part, tokens in zip(("s", "j"), parts, strict=True)]  # fmt: skip
    vectors = np.tile(np.eye(6, dtype=np.float32)[KINDS.index(kind)], (12, 1))
    return Target(
        name, texts[0], texts[1], tuple(parts[0]), tuple(parts[1]), vectors, np.full(12, 2 * KINDS.index(kind))
    )


def small_lab(folder: Path, **changes: object) -> Lab:
    settings = LabSettings(**{**vars(SETTINGS), **changes})
    targets = [small_target("a", "first"), small_target("b", "second")]
    return open_lab(small_pool(), targets, {"lab": SMALL}, settings, folder)
