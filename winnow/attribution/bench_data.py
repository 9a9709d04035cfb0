"""The documents and queries of the benches, as the token arrays and texts that their models read."""

from __future__ import annotations

import ast
import io
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.identity import doc_ids, ids_to_numpy, seeded_keys

DATA = "WINNOW_TEST_DATA"
_WORD = re.compile(r"\w+|[^\w\s]")
_MODULES = (
    "argparse",
    "statistics",
    "random",
    "decimal",
    "pathlib",
    "shutil",
    "zipfile",
    "inspect",
    "logging/__init__",
)
_LONGEST = 1500  # characters of a document that are tokenised: more than any window holds


@dataclass(frozen=True)
class Corpus:
    """Token arrays int32 and their texts: N documents to train on, Q queries that are none of them."""

    documents: tuple[np.ndarray, ...]
    texts: tuple[str, ...]
    queries: tuple[np.ndarray, ...]
    query_texts: tuple[str, ...]


def words_corpus(texts: Sequence[str], documents: int, queries: int, vocabulary: int, context: int) -> Corpus:
    """Return documents of ``context`` words and marks each, in lower case; id 0 is every word but the commonest."""
    split = [_WORD.findall(text[: 10 * _LONGEST].lower())[:context] for text in texts]
    full = _distinct([words for words in split if len(words) == context])
    counts = Counter(word for words in full[: documents + queries] for word in words)
    common = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - 1]
    ids = {word: place + 1 for place, word in enumerate(common)}
    # Distinct once more: two documents may differ in rare words alone.
    read: dict[tuple[int, ...], str] = {}
    for words in full:
        read.setdefault(tuple(ids.get(word, 0) for word in words), " ".join(words))
    return _corpus([*read.items()], documents, queries)


def subwords_corpus(
    sources: Sequence[Sequence[str]], documents: int, queries: int, vocabulary: int, context: int
) -> Corpus:
    """Return the first ``context`` tokens of documents of several sources in turn, in a byte-level BPE of their own."""
    from winnow.train.tokenizer import train_tokenizer

    heads = [[text[:_LONGEST] for text in texts] for texts in sources]
    tokenizer = train_tokenizer([text for texts in heads for text in texts[: 2 * documents]], vocabulary)
    per_source = []
    for texts in heads:
        encoded = (one.ids[:context] for one in tokenizer.encode_batch_fast(texts[: 4 * documents]))
        per_source.append(_distinct([ids for ids in encoded if len(ids) == context]))
    mixed = _distinct([ids for group in zip(*per_source, strict=False) for ids in group])
    return _corpus([(ids, tokenizer.decode(ids)) for ids in mixed], documents, queries)


def read_texts(source: str, seed: int) -> list[str]:
    """Return the texts of a source of the test data in seeded order. Raises :class:`UserError` where it is absent."""
    import orjson
    import zstandard

    folder = os.environ.get(DATA)
    if not folder:
        raise UserError(f"the bench needs the test corpora; set {DATA} to the folder that holds {source}/, or use tiny")
    path = Path(folder) / source / "docs.jsonl.zst"
    if not path.exists():
        raise UserError(f"{path} is absent; set {DATA} to the folder of the test corpora, or use the tiny bench")
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        texts = [orjson.loads(line)["text"] for line in io.TextIOWrapper(stream, "utf-8")]
    return _seeded(texts, seed)


def docstrings(seed: int) -> list[str]:
    """Return docstrings of the standard library in seeded order, without importing what they document."""
    library = Path(sysconfig.get_path("stdlib"))
    trees = [ast.parse((library / f"{module}.py").read_text(encoding="utf-8")) for module in _MODULES]
    return _seeded([text for tree in trees for text in _documentation(tree)], seed)


def _documentation(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield text


def _seeded(texts: list[str], seed: int) -> list[str]:
    distinct = sorted(set(texts))
    keys = seeded_keys(ids_to_numpy(doc_ids(distinct)), seed, "attribution_bench")
    return [distinct[index] for index in np.argsort(keys, kind="stable")]


def _distinct(items: Sequence[list[Any]]) -> list[list[Any]]:
    """Return the items in their order, the last one of several that are alike."""
    return list({tuple(item): item for item in reversed(items)}.values())[::-1]


def _corpus(read: Sequence[tuple[Sequence[int], str]], documents: int, queries: int) -> Corpus:
    if len(read) < documents + queries:
        raise UserError(
            f"the bench needs {documents + queries} documents of full length and the corpus has {len(read)}"
        )
    tokens = tuple(np.array(ids, dtype=np.int32) for ids, _ in read[: documents + queries])
    texts = tuple(text for _, text in read[: documents + queries])
    return Corpus(tokens[:documents], texts[:documents], tokens[documents:], texts[documents:])
