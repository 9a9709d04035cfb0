"""Overlap with one set as the store keeps it: by the set's method, under one version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.config import Contamination
from winnow.contamination.gapped import build_gapped, find_matches
from winnow.contamination.items import Item
from winnow.contamination.ngrams import build_index, contaminated, find_collisions, find_overlap, find_runs
from winnow.contamination.words import Words, split_words
from winnow.identity import digest

OVERLAP_VERSION = "4"
"""Raise it when a method changes: every document is then compared anew."""
GPT3_NGRAM = 13
GPT3_DOCUMENTS = 10
"""13-grams of more documents are ignored (Brown et al. 2020, appendix C)."""
ITEM_COLUMNS = (
    "doc_id", "evaluation_set", "version", "item", "part", "score", "longest_match", "span_start", "span_end",
    "answer_near",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """How documents are compared with one set; only what the method uses is set."""

    method: str
    threshold: float | None = None
    parts: tuple[str, ...] = ()
    ngram: int | None = None
    min_words: int | None = None


def rule_of(settings: Contamination, name: str, kind: str) -> Rule:
    """Return the rule for a set; the reference, and any set that is no evaluation set, is held to ``longest_run``."""
    own = settings.evaluation_sets.get(name) if kind == "evaluation" else None
    method = "longest_run" if kind != "evaluation" else (own and own.method) or settings.method
    if method == "gapped":
        threshold = own.threshold if own and own.threshold is not None else settings.threshold
        parts = ("question", "passage") if own is None else tuple(sorted(set(own.parts), reverse=True))
        return Rule(method, threshold=threshold, parts=parts)
    if method == "gpt3":
        return Rule(method, ngram=GPT3_NGRAM)
    min_words = own.min_words if own and own.min_words is not None else settings.min_words
    return Rule(method, ngram=settings.ngram, min_words=min_words)


def contamination_version(set_digest: str, rule: Rule) -> str:
    """Return the version of a set's overlap rows: the items, the method and its settings."""
    return digest([OVERLAP_VERSION, set_digest, rule.method, rule.threshold, rule.parts, rule.ngram, rule.min_words])[
        :16
    ]


class Overlap(NamedTuple):
    """What documents share with a set: rows of ``contamination``, ``contamination_items``, ``contamination_ngrams``."""

    documents: pa.Table
    items: pa.Table
    ngrams: pa.Table


class Comparison:
    """A set that is ready to be compared with documents.

    ``items`` is ``reference_items`` of the set, in order. ``ignored`` counts the items that the method cannot find.
    """

    def __init__(self, name: str, version: str, rule: Rule, items: pa.Table) -> None:
        self.name, self.version, self.rule = name, version, rule
        texts = items["text"].to_pylist()
        if rule.method == "gapped":
            self._gapped = build_gapped(_items(items), rule.threshold or 1.0, rule.parts)
            self.ignored = self._gapped.ignored
            return
        cut = "gpt3" if rule.method == "gpt3" else "longest_run"
        if rule.method == "gpt3":
            sizes = np.diff(split_words(pa.array(texts, pa.large_string()), cut).bounds)
            texts = [text if size >= GPT3_NGRAM else "" for text, size in zip(texts, sizes, strict=True)]
        self._index = build_index(texts, rule.ngram or GPT3_NGRAM, cut)
        self.ignored = {"too_short": self._index.ignored, "too_common": 0}

    @property
    def cut(self) -> str:
        """How the words are cut that the comparison needs; "" when it cuts them itself."""
        return {"gapped": "gapped", "gpt3": "gpt3"}.get(self.rule.method, "")

    def ngram_items(self) -> pa.Table:
        """Return the distinct ``ngram`` uint64 (its hash) and ``item`` int64 of a set compared by ``gpt3``."""
        sizes = np.diff(self._index.groups)
        pairs = np.stack([np.repeat(np.arange(len(sizes)), sizes), self._index.items[self._index.firsts]])
        ngrams, items = np.unique(pairs, axis=1)
        return pa.table({"ngram": self._index.keys[ngrams], "item": items})

    def compare(self, texts: pa.Table, words: Words | None = None, common: pa.Array | None = None) -> Overlap:
        """Return what documents (``doc_id``, ``text``) share with the set; ``words`` are theirs, cut so.

        By ``gpt3`` an item is held by a document that shares a 13-gram with it which is not one of ``common`` uint64,
        those that many documents have.
        """
        if self.cut and words is None:
            words = split_words(texts["text"], self.cut)
        ids = texts["doc_id"].combine_chunks()
        ngrams = pa.table({"position": pa.array([], pa.int64()), "ngram": pa.array([], pa.uint64())})
        if self.rule.method == "gapped" and words is not None:
            found = find_matches(words, self._gapped)
        else:
            if words is not None:
                ngrams = find_collisions(words, self._index)
            found = self._run(texts["text"], words, ngrams, common)
        found = self._named(found.rename_columns({"start": "span_start", "end": "span_end"}), ids)
        worst = found.take(_worst(found)).drop_columns(["position"])
        items = found.filter(found["contaminated"]).select(ITEM_COLUMNS)
        return Overlap(worst, items, self._named(ngrams, ids).drop_columns(["position"]))

    def _run(self, texts: pa.ChunkedArray, words: Words | None, ngrams: pa.Table, common: pa.Array | None) -> pa.Table:
        """Return a row for each document's longest run, and one for each other item that it holds."""
        found = find_overlap(texts, self._index)
        places = found["position"].combine_chunks()
        if words is None:
            runs = find_runs(split_words(texts.take(places), self._index.cut), self._index)
            runs = runs.set_column(0, "position", places.take(runs["position"].combine_chunks()))
        else:
            runs = find_runs(words, self._index)
        of_document = found.select(["position", "matched", "coverage"])
        runs = runs.join(of_document, "position", join_type="inner").select(found.column_names)
        key = np.stack(
            [np.concatenate([one[name].to_numpy() for one in (found, runs)]) for name in ("position", "item")]
        )
        _, first = np.unique(key, axis=1, return_index=True)  # of an item in both, the row of the longest run
        found = pa.concat_tables([found, runs]).take(first)
        longest = found["longest_match"].to_numpy()
        score = np.ones(len(found))
        if self.rule.min_words is not None:
            reached = contaminated(found, self._index, self.rule.min_words)
            sizes = np.diff(self._index.bounds)[found["item"].to_numpy()]
            score = np.minimum(longest / np.minimum(self.rule.min_words, np.maximum(sizes, self._index.n)), 1.0)
        else:
            rare = ngrams if common is None else ngrams.filter(pc.invert(pc.is_in(ngrams["ngram"], common)))
            held = rare.join(self.ngram_items(), "ngram", join_type="inner")
            pairs = set(zip(held["position"].to_pylist(), held["item"].to_pylist(), strict=True))
            rows = zip(found["position"].to_pylist(), found["item"].to_pylist(), strict=True)
            reached = np.array([row in pairs for row in rows], bool)
        return (
            found.append_column("part", pa.array(["all"] * len(found), pa.string()))
            .append_column("score", pa.array(score))
            .append_column("required", pa.array(np.ones(len(found))))
            .append_column("matched_words", pa.array(longest))
            .append_column("answer_near", pa.nulls(len(found), pa.bool_()))
            .append_column("contaminated", pa.array(reached))
        )

    def _named(self, rows: pa.Table, ids: pa.Array) -> pa.Table:
        count = len(rows)
        return (
            rows.append_column("doc_id", ids.take(rows["position"].combine_chunks()))
            .append_column("evaluation_set", pa.array([self.name] * count, pa.string()))
            .append_column("version", pa.array([self.version] * count, pa.string()))
            .append_column("method", pa.array([self.rule.method] * count, pa.string()))
        )


def _worst(found: pa.Table) -> np.ndarray:
    """Rows of the item that each document overlaps with most: contaminated, by score, by longest match, by item."""
    if not len(found):
        return np.zeros(0, np.int64)
    place = found["position"].to_numpy()
    reached = np.asarray(found["contaminated"].combine_chunks())
    keys = (found["item"].to_numpy(), -found["longest_match"].to_numpy(), -found["score"].to_numpy(), ~reached, place)
    order = np.lexsort(keys)
    return order[np.append(True, np.diff(place[order]) > 0)]


def _items(items: pa.Table) -> list[Item]:
    """Return the items of a set; one without a question is its text."""
    columns = [
        items[name].to_pylist() if name in items.column_names else [None] * len(items)
        for name in ("text", "question", "answers", "passage")
    ]
    return [
        Item(text) if question is None else Item(question, tuple(answers or ()), passage or "")
        for text, question, answers, passage in zip(*columns, strict=True)
    ]


def compare_all(
    texts: pa.Table, comparisons: Sequence[Comparison], common: Mapping[str, pa.Array] | None = None
) -> list[Overlap]:
    """Compare documents with several sets, their words cut once for each way to cut; ``common`` by the set's name."""
    words = {cut: split_words(texts["text"], cut) for cut in sorted({one.cut for one in comparisons} - {""})}
    return [one.compare(texts, words.get(one.cut), (common or {}).get(one.name)) for one in comparisons]
