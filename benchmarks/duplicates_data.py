"""Documents for the benchmarks of duplicates: real texts of about 2 kB and variants of them by seeded edits.

A recipe decides everything: document i of N is a function of the recipe and of the real texts alone, so the documents
are made one after the other, in any part, and never held together. The first original documents are passages of the
corpora word for word; later ones are put together from quarters of four passages. Of all documents

- ``near_share`` are variants of another one: 0.2% to 8% of its words substituted, inserted or deleted (log-uniform),
  15% of them also within a site's header and footer, 15% with their sentences shuffled. Groups have heavy-tailed sizes
  (Pareto, exponent 1.5, at most 1,000 documents), their members lie anywhere in the corpus;
- ``boilerplate_share`` share two fifths of their text, one and the same template, and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
SOURCES = ("wiki_en", "books", "usenet", "web_gov", "wiki_zh", "legal_de", "science_fulltext", "code")
PASSAGE_BYTES = 2_000
PER_FILE = 25_000
LARGEST_GROUP = 1_000
VOCABULARY, SITES = 20_000, 50


@dataclass(frozen=True)
class Recipe:
    """How many documents, and what they share."""

    documents: int
    seed: int = 1
    near_share: float = 0.30
    boilerplate_share: float = 0.01

    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the group and the number in the group (0 = the original) of every document, each int32 ``[N]``."""
        draw = np.random.default_rng(self.seed)
        variants = int(self.documents * self.near_share)
        more = np.minimum(1 + draw.pareto(1.5, variants).astype(np.int64), LARGEST_GROUP - 1)  # beside the original
        groups = int(np.searchsorted(np.cumsum(more), variants)) + 1 if variants else 0
        more = more[:groups]
        if groups:
            more[-1] -= more.sum() - variants
        sizes = np.ones(self.documents - variants, np.int64)
        sizes[:groups] += more[:groups]
        draw.shuffle(sizes)
        group = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        member = (np.arange(self.documents) - np.repeat(np.cumsum(sizes) - sizes, sizes)).astype(np.int32)
        order = draw.permutation(self.documents)
        return group[order], member[order]


@dataclass(frozen=True)
class Documents:
    """The documents of a recipe, made from passages of real text."""

    passages: list[str]
    recipe: Recipe

    def texts(self, first: int = 0, last: int | None = None) -> Iterator[str]:
        """Yield the texts of the documents ``first`` to ``last`` (all by default)."""
        groups, members = (column[first:last] for column in self.recipe.members())
        for group, member in zip(groups.tolist(), members.tolist(), strict=True):
            yield self.variant(group, member) if member else self.original(group)

    def original(self, group: int) -> str:
        draw = self._draw(group, 0)
        if group < len(self.passages):
            text = self.passages[group]
        else:
            text = " ".join(_quarter(draw.choice(self.passages), draw.randrange(4)) for _ in range(4))
        if draw.random() < self.recipe.boilerplate_share:
            words = text.split(" ")
            text = f"{self.boilerplate} {' '.join(words[: 3 * len(words) // 5])}"
        return text

    def variant(self, group: int, member: int) -> str:
        draw = self._draw(group, member)
        kind, share = draw.random(), 0.002 * 40 ** draw.random()
        text = self.original(group)
        if kind < 0.15:
            sentences = text.split(". ")
            draw.shuffle(sentences)
            text = ". ".join(sentences)
        words = text.split(" ")
        for _ in range(max(1, round(share * len(words)))):
            place, word = draw.randrange(len(words)), draw.choice(self.vocabulary)
            edit = draw.randrange(3)
            if edit == 0 or len(words) == 1:
                words[place] = word
            elif edit == 1:
                words.insert(place, word)
            else:
                del words[place]
        text = " ".join(words)
        if kind > 0.85:
            header, footer = self.sites[draw.randrange(SITES)]
            text = f"{header}\n{text}\n{footer}"
        return text

    @cached_property
    def boilerplate(self) -> str:
        words = self.passages[-1].split(" ")
        return " ".join(words[: 2 * len(words) // 5])

    @cached_property
    def vocabulary(self) -> list[str]:
        words: dict[str, None] = {}
        for passage in self.passages:
            words.update(dict.fromkeys(passage.split()))
            if len(words) >= VOCABULARY:
                break
        return list(words)[:VOCABULARY]

    @cached_property
    def sites(self) -> list[tuple[str, ...]]:
        draw = self._draw(-1, 0)
        return [tuple(" ".join(draw.choices(self.vocabulary, k=words)) for words in (12, 18)) for _ in range(SITES)]

    def _draw(self, group: int, member: int) -> random.Random:
        return random.Random(f"{self.recipe.seed}:{group}:{member}")


def _quarter(text: str, number: int) -> str:
    words = text.split(" ")
    return " ".join(words[number * len(words) // 4 : (number + 1) * len(words) // 4])


def load_passages(folder: Path = DATA, sources: tuple[str, ...] = SOURCES) -> list[str]:
    """Return the real texts, cut or put together to passages of about ``PASSAGE_BYTES``, all sources mixed.

    Exits with a sentence if there are none.
    """
    found = [list(passages(read(path))) for source in sources if (path := folder / source / "docs.jsonl.zst").exists()]
    if not found:
        sys.exit(f"{folder} has no corpora ({', '.join(sources)}); set WINNOW_TEST_DATA to the folder of test corpora")
    every = [passage for column in found for passage in column]
    random.Random(0).shuffle(every)
    return every


def passages(texts: Iterator[str], size: int = PASSAGE_BYTES) -> Iterator[str]:
    """Cut running text to passages of at most ``size`` bytes of UTF-8, at white space where there is some."""
    held = b""
    for text in texts:
        held += text.encode() + b"\n\n"
        while len(held) > size:
            cut = max(held.rfind(b" ", size // 2, size), held.rfind(b"\n", size // 2, size))
            passage = held[: cut if cut > 0 else size].decode(errors="ignore")
            held = held[len(passage.encode()) :]
            if passage.strip():
                yield passage.strip()


def read(path: Path) -> Iterator[str]:
    for record in read_records(path):
        yield record["text"]


def read_records(path: Path) -> Iterator[dict]:
    """Yield the records of a zstd-compressed JSON Lines file."""
    import zstandard

    with path.open("rb") as raw:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8"):
            yield json.loads(line)


def write_documents(
    folder: Path, documents: Documents, first: int = 0, last: int | None = None, compression: str = "none"
) -> int:
    """Write documents as Parquet files (id, text) of ``PER_FILE`` rows; return their bytes of text. Streams."""
    folder.mkdir(parents=True)
    total, number = 0, first
    held: list[str] = []
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])

    def flush() -> None:
        ids = [f"d{number - len(held) + i:08}" for i in range(len(held))]
        rows = pa.table({"id": ids, "text": held}, schema)
        pq.write_table(rows, folder / f"{number - len(held):08}.parquet", compression=compression)
        held.clear()

    for text in documents.texts(first, last):
        held.append(text)
        total, number = total + len(text.encode()), number + 1
        if len(held) == PER_FILE:
            flush()
    if held:
        flush()
    return total


def read_documents(folder: Path) -> Iterator[pa.Array]:
    """Yield the texts of written documents in their order, large_string arrays of a few thousand."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(4_096, columns=["text"]):
            yield batch["text"]
