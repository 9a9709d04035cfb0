"""The documents and queries of the validation benchmark, cut to what the models read."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from winnow.attribution.bench_data import read_texts
from winnow.attribution.run import Queries
from winnow.attribution.validation.fact_tracing import Fact, states_fact
from winnow.identity import doc_ids, ids_to_numpy
from winnow.train.tokenizer import train_tokenizer

CHARACTERS = 1500


@dataclass(frozen=True)
class World:
    """Documents to train on, as token arrays of at most ``context`` and as the texts that those spell; their ids."""

    tokenizer: Tokenizer
    documents: list[np.ndarray]
    texts: list[str]
    queries: Queries

    @property
    def ids(self) -> np.ndarray:
        return ids_to_numpy(doc_ids(self.texts))


@dataclass(frozen=True)
class FactWorld(World):
    """The queries are facts; ``states`` bool ``[F, N]``; ``answers``: the object's tokens of each, or None."""

    facts: list[Fact]
    states: np.ndarray
    answers: list[tuple[int, int] | None]


def fact_world(documents: int, facts: int, vocabulary: int, context: int) -> FactWorld:
    """Beginnings of Wikipedia articles, among them those of the facts' subjects that state the object there."""
    known = {one["id"]: one for one in read_rows("facts", "facts")}
    links = [one for one in read_rows("facts", "fact_doc_links") if one["doc_states_object"]]
    links.sort(key=lambda one: one["fact_id"])
    articles = {one["id"]: one for one in read_rows("wiki_en", "docs")}
    subjects = {one["doc_id"] for one in links}
    others = [text for text in read_texts("wiki_en", 0) if len(text) > 200]
    tokenizer = train_tokenizer([text[:CHARACTERS] for text in others[:4000]], vocabulary)
    rows: list[tuple[str, str | None]] = [(articles[one]["text"], articles[one]["title"]) for one in sorted(subjects)]
    own = {text for text, _ in rows}
    rows += [(text, None) for text in others if text not in own][: documents - len(rows)]
    tokens = [encode(tokenizer, text, context) for text, _ in rows]
    texts = [tokenizer.decode(ids.tolist()) for ids in tokens]
    asked = [Fact(one["subject"], one["object"], known[one["fact_id"]]["text"]) for one in links]
    states = states_fact(asked, texts, [title for _, title in rows])
    stated = np.flatnonzero(states.any(axis=1))[:facts]
    asked = [asked[place] for place in stated.tolist()]
    queries = Queries([encode(tokenizer, one.text, context) for one in asked], [one.text for one in asked])
    return FactWorld(
        tokenizer, tokens, texts, queries, asked, states[stated], [answer_span(tokenizer, one) for one in asked]
    )


def answer_span(tokenizer: Tokenizer, fact: Fact) -> tuple[int, int] | None:
    """Return which tokens of the fact's text hold the object, None where it stands first or not at all."""
    start = fact.text.rfind(fact.object)
    encoding = tokenizer.encode(fact.text)
    stop = start + len(fact.object)
    held = [place for place, (a, b) in enumerate(encoding.offsets) if a < stop and b > start]
    return (held[0], held[-1] + 1) if start > 0 and held and held[0] > 0 else None


def wiki_world(documents: int, queries: int, vocabulary: int, context: int) -> World:
    """Beginnings of Wikipedia articles, and as many others to ask about."""
    texts = [text for text in read_texts("wiki_en", 1) if len(text) > 400][: documents + queries]
    tokenizer = train_tokenizer([text[:CHARACTERS] for text in texts], vocabulary)
    tokens = [encode(tokenizer, text, context) for text in texts]
    spelt = [tokenizer.decode(ids.tolist()) for ids in tokens]
    return World(tokenizer, tokens[:documents], spelt[:documents], Queries(tokens[documents:], spelt[documents:]))


def spam_world(
    ham: int, spam: int, wiki: int, bad: int, good: int, vocabulary: int, context: int
) -> tuple[World, np.ndarray, np.ndarray]:
    """Text messages and articles, of which ``spam`` are spam; return the world, the culprits and the bad queries."""
    rows = sorted(read_rows("spam_sms", "docs"), key=lambda one: ids_to_numpy(doc_ids([one["text"]])).tobytes())
    distinct = {one["text"]: one["label"] for one in rows}
    by_label = {label: [text for text, found in distinct.items() if found == label] for label in ("ham", "spam")}
    articles = [text for text in read_texts("wiki_en", 2) if len(text) > 400][:wiki]
    texts = by_label["ham"][:ham] + articles + by_label["spam"][:spam]
    asked = by_label["spam"][spam : spam + bad] + by_label["ham"][ham : ham + good]
    tokenizer = train_tokenizer([text[:CHARACTERS] for text in texts], vocabulary)
    tokens = [encode(tokenizer, text, context) for text in texts]
    world = World(
        tokenizer,
        tokens,
        [tokenizer.decode(ids.tolist()) for ids in tokens],
        Queries([encode(tokenizer, text, context) for text in asked], asked),
    )
    return world, np.arange(len(texts)) >= ham + wiki, np.arange(bad + good) < bad


def encode(tokenizer: Tokenizer, text: str, context: int) -> np.ndarray:
    """Return the first ``context`` tokens of a text."""
    return np.array(tokenizer.encode(text[: 10 * CHARACTERS]).ids[:context], dtype=np.int32)


def read_rows(folder: str, file: str) -> Sequence[dict[str, Any]]:
    """Return the rows of a file of the test data."""
    import orjson
    import zstandard

    path = Path(os.environ["WINNOW_TEST_DATA"]) / folder / f"{file}.jsonl.zst"
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return [orjson.loads(line) for line in io.TextIOWrapper(stream, "utf-8")]
