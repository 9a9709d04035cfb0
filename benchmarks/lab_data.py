"""The pool and references of the lab's benchmark, from WINNOW_TEST_DATA; embeddings are kept in the lab's folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.embed.clusters import assign, default_k, fit_centroids
from winnow.embed.encoder import encode, load_encoder
from winnow.identity import digest_ids, doc_ids, ids_to_numpy, seeded_keys
from winnow.lab.pool import LabPool, make_pool
from winnow.lab.targets import Target, split_reference, with_tokens, without_leaks
from winnow.quality.signals import compute_signals
from winnow.train.tokenizer import load_tokenizer, save_tokenizer, tokenise, train_tokenizer

SOURCES = ("wiki_en", "usenet", "web_gov", "books", "code", "dialogue", "spam_sms")
PLANTED = 8  # one near-duplicate and one damaged document for so many: a fifth of the pool is planted
ENCODED = 64  # tokens of a document that are embedded
NOISE = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789 #@&%"))


def build(
    folder: Path, characters: int, vocabulary: int, context: int, judging_tokens: int, seed: int = 0
) -> tuple[LabPool, list[Target], int]:
    """Return the pool, the three references, and the tokenizer's end-of-text token."""
    texts, sources, planted = pool_texts(characters, seed)
    tokenizer = _tokenizer(folder, texts, vocabulary, seed)

    def tokens_of(some: Sequence[str]) -> list[np.ndarray]:
        return [np.asarray(one, dtype=np.int32) for one in tokenise(tokenizer, some)]

    vectors, flops = embedded(folder, texts)
    centroids = fit_centroids(vectors, default_k(len(texts)), seed)
    pool = make_pool(
        texts, sources, tokens_of(texts),
        vectors=vectors, clusters=assign(vectors, centroids)[0], centroids=centroids,
        signals=compute_signals(_arrow(texts)), planted=planted, embedding_flops=flops,
    )  # fmt: skip
    targets = [with_tokens(one, tokens_of, context, judging_tokens) for one in references(folder, seed)]
    targets = [_placed(folder, one, centroids) for one in targets]
    pool, targets = without_leaks(pool, targets)
    return pool, targets, int(tokenizer.eos_token_id)


def pool_texts(characters: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Return texts, sources and what is planted ("" for most): pieces of up to 1,500 characters of seven sources."""
    texts: dict[str, str] = {}
    for source in SOURCES:
        pieces = sorted({piece for row in read_rows(source, "docs") for piece in _pieces(source, row["text"])})
        ids = ids_to_numpy(doc_ids(pieces))
        held = 0
        for place in np.argsort(seeded_keys(ids, seed, "pool"), kind="stable").tolist():
            if held > characters:
                break
            texts.setdefault(pieces[place], source)
            held += len(pieces[place])
    clean, sources = list(texts), list(texts.values())
    ids = ids_to_numpy(doc_ids(clean))
    planted = [""] * len(clean)
    count = len(clean) // PLANTED
    for kind, spoil in (("near_duplicate", _nearly), ("damaged", _damaged)):
        keys = seeded_keys(ids, seed, kind)
        for place in np.argsort(keys, kind="stable")[:count].tolist():
            spoilt = spoil(clean[place], np.random.default_rng(int(keys[place])))
            if spoilt not in texts:
                texts[spoilt] = sources[place]
                sources.append(sources[place])
                planted.append(kind)
    return list(texts), sources, planted


def references(folder: Path, seed: int) -> list[Target]:
    """Return lambada, arc_easy with openbookqa (both by clusters), and the Rust book by chapter, editions together."""
    lambada = [row["text"] for row in read_rows("eval_targets", "lambada")]
    science = [row["text"] for name in ("arc_easy", "openbookqa") for row in read_rows("eval_targets", name)]
    rust = [(piece, _chapter(row["path"])) for row in read_rows("docs_rust_book", "docs")
            for piece in _pieces("rust", row["text"], 1000)]  # fmt: skip
    found = [
        split_reference(name, texts, _topics(folder, texts, seed), seed=seed)
        for name, texts in (("lambada", sorted(set(lambada))), ("arc", sorted(set(science))))
    ]
    return [*found, split_reference("rust", [text for text, _ in rust], [chapter for _, chapter in rust], seed=seed)]


def embedded(folder: Path, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """Return unit vectors float32 ``[N, D]`` and the operations they cost; read where they were made before.

    They are made 2,000 texts at a time and kept at once, so that an interrupted run goes on.
    """
    encoder = None
    found, flops = [], 0.0
    for start in range(0, len(texts), 2000):
        some = list(texts[start : start + 2000])
        key = digest_ids(ids_to_numpy(doc_ids(some))) + hashlib.sha256("\0".join(some).encode()).hexdigest()
        path = folder / "vectors" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            encoder = encoder or load_encoder(max_tokens=ENCODED)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
            body = sum(value.numel() for name, value in encoder.model.named_parameters() if "embeddings" not in name)
            spent = sum(2.0 * body * min(ENCODED, 1 + len(text) // 4) for text in some)
            np.savez(temporary, vectors=encode(encoder, some), flops=spent)
            temporary.replace(path)
            print(f"embedded {min(start + 2000, len(texts)):,} of {len(texts):,}", flush=True)
        with np.load(path) as kept:
            found.append(kept["vectors"])
            flops += float(kept["flops"])
    return np.concatenate(found), flops


def read_rows(folder: str, name: str) -> list[dict[str, Any]]:
    import zstandard

    root = Path(os.environ.get("WINNOW_TEST_DATA", "../shared/data"))
    with (root / folder / f"{name}.jsonl.zst").open("rb") as file:
        stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file)
        return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]


def _pieces(source: str, text: str, size: int = 1500) -> list[str]:
    """Return pieces of up to ``size`` characters, cut at line ends where there are some; messages stay whole."""
    if source == "spam_sms":
        return [text]
    pieces, current = [], ""
    for line in text.split("\n"):
        while len(line) > size:
            pieces.append(line[:size])
            line = line[size:]
        if current and len(current) + len(line) + 1 > size:
            pieces.append(current)
            current = ""
        current = f"{current}\n{line}" if current else line
    return [piece for piece in (*pieces, current) if len(piece) >= 200]


def _nearly(text: str, draws: np.random.Generator) -> str:
    """Return the text with one word in forty replaced by another of it."""
    words = text.split(" ")
    for _ in range(max(1, len(words) // 40)):
        words[draws.integers(len(words))] = words[draws.integers(len(words))]
    return " ".join(words)


def _damaged(text: str, draws: np.random.Generator) -> str:
    """Return the text with its words shuffled, three of ten characters replaced, or its beginning said again."""
    kind = draws.integers(3)
    if kind == 0:
        words = text.split(" ")
        return " ".join(words[place] for place in draws.permutation(len(words)))
    if kind == 1:
        spoilt = draws.random(len(text)) < 0.3
        noise = NOISE[draws.integers(0, len(NOISE), len(text))]
        return "".join(new if bad else old for old, new, bad in zip(text, noise.tolist(), spoilt.tolist(), strict=True))
    return (text[:40] + "\n") * (1 + len(text) // 41)


def _chapter(path: str) -> str:
    found = re.search(r"ch(?:apter)?(\d+)", path)
    return f"chapter {int(found.group(1))}" if found else "front and back"


def _topics(folder: Path, texts: Sequence[str], seed: int) -> list[str]:
    """Return a cluster's name for each text, some forty texts a cluster."""
    vectors, _ = embedded(folder, texts)
    labels, _ = assign(vectors, fit_centroids(vectors, max(2, len(texts) // 40), seed))
    return [f"cluster {label}" for label in labels.tolist()]


def _placed(folder: Path, target: Target, centroids: np.ndarray) -> Target:
    """Return the target with the vectors of its selecting items, in the clusters of the pool."""
    from dataclasses import replace

    vectors, _ = embedded(folder, target.selecting)
    return replace(target, vectors=vectors, clusters=assign(vectors, centroids)[0].astype(np.int64))


def _tokenizer(folder: Path, texts: Sequence[str], vocabulary: int, seed: int) -> Any:
    ids = ids_to_numpy(doc_ids(texts))
    sample = [texts[place] for place in np.argsort(seeded_keys(ids, seed, "tokenizer"), kind="stable")[:6000].tolist()]
    key = digest_ids(ids_to_numpy(doc_ids(sample)))
    path = folder / f"tokenizer-{vocabulary}-{key[:16]}"
    if not path.exists():
        save_tokenizer(train_tokenizer(sample, vocabulary), path)
    return load_tokenizer(path)


def _arrow(texts: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(list(texts), pa.large_string())
