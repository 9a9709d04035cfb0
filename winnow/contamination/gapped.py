"""Matches of documents with evaluation items, question and passage apart, gaps tolerated, weighted against boilerplate.

The method ``gapped``. A *segment* is the question or the passage of an item, or, where the question is too short to be
found by, its first answer. n = 4 words in a row are an n-gram.

* Document frequency df(g): distinct segments of the kind (of N) that hold g. Weight of an n-gram:
  idf(g) = ln((N + 1) / df(g)) / ln(N + 1), in (0, 1]; 0 (and no seed) for **boilerplate**, which is df(g) > max(5,
  min(N / 100, 256)), fewer than 2 distinct words of at least 3 letters, or a repetition inside the segment.
* Weight of a word: the mean of the weights of the n-grams that hold it, w(p). Words of a quotation inside a question
  weigh together at most a third of the words outside, so that a quotation alone never makes a score.
* A **match** is a run of seeds in the document with at most 11 places between two that are none (two changed words, or
  eight put in between), no longer than twice the segment and 11 places, that no seed beside it can be added to. Matches
  may overlap, so what stands before or behind a copy takes nothing from it. The **score** is the share of the segment's
  weight on words that its seeds cover: sum of w(p) over covered p / sum of w(p). The best match counts, not the union.
* An answer stands **near** when it (8 words in a row of a longer one) occurs at most 50 words from the match; of a
  match with an answer, the question. What tells nothing is not looked for: answers of more than max(5, N / 100) items,
  those made of the question's own words, those without a word of 3 letters or a digit.
* **Contaminated**: with L = words of weight > 0 and t the set's threshold, strict(L) = 1 up to L = 20, t from L = 50
  on, linear between:

  * question, answer near: score >= t from L = 8 on; below, score 1, and L + words of the answer >= 8
  * question whose answer is not near: score >= strict(L), and L >= 12
  * question without a telling answer: score >= strict(L), and L >= 8
  * passage: score >= strict(L), and L >= 20
  * answer of an item that cannot be found by its question, question near: score >= strict(L), and L >= 12

  An item none of whose segments can fulfil this is ignored, and counted: too short, or too common.

An answer alone contaminates nothing. Everything follows from the set and the document: no other document has a say.

Sources: Singh et al. 2024 (ConTAM), small n, no least number of matches, the longest match, gaps, thresholds by set;
AI2's decon (https://github.com/allenai/decon): seeds extended over up to 11 misses, IDF-weighted overlap, exactness
that relaxes with length (there from 20 to 50 tokens), short answers looked for within 50 tokens. The rules for
quotations, telling words and boilerplate by document frequency in the set are our own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.contamination.items import Item
from winnow.contamination.weights import (
    N,
    discount_quotations,
    ngram_weights,
    telling_texts,
    telling_words,
    word_weights,
)
from winnow.contamination.words import Words, pieces, split_words

MISSES = 11
NEAR = 50
EXACT_BELOW, RELAXED_FROM = 20, 50
ENOUGH_WITH_ANSWER, ENOUGH_WITHOUT_ANSWER = 8, 8
ENOUGH_ALONE, ENOUGH_OF_PASSAGE = 12, 20
RECORDED = 0.5
"""Matches below this score (and below the threshold) are not recorded."""
NEVER = 2.0
QUESTION, PASSAGE, ANSWER = 0, 1, 2
PARTS = ("question", "passage", "answer")
PIECE_WORDS = 1 << 19

SCHEMA = pa.schema(
    {
        "position": pa.int64(),
        "item": pa.int64(),
        "part": pa.string(),
        "score": pa.float64(),
        "required": pa.float64(),
        "matched": pa.int64(),
        "matched_words": pa.int64(),
        "longest_match": pa.int64(),
        "start": pa.int64(),
        "end": pa.int64(),
        "coverage": pa.float64(),
        "answer_near": pa.bool_(),
        "contaminated": pa.bool_(),
    }
)


@dataclass(frozen=True, eq=False)
class GappedIndex:
    """Questions and passages of a set, ready to be searched (:func:`build_gapped`).

    S distinct segments: ``words`` uint64 ``[W]`` cut by ``bounds`` int64 ``[S + 1]``, ``parts`` int64 ``[S]``,
    ``weight`` float64 ``[W]``, ``total`` float64 ``[S]``, ``seed`` bool ``[W]`` (an indexed n-gram starts there),
    ``length`` int64 ``[S]`` (L above). ``owners[owner_bounds[s]:owner_bounds[s + 1]]`` are the items of segment s, the
    answers of the o-th of them ``answer_words[answers[a]:answers[a + 1]]`` for a in
    ``answer_bounds[o]:answer_bounds[o + 1]``. ``ignored`` counts the items that cannot be found, by reason.
    """

    items: int
    threshold: float
    words: np.ndarray
    bounds: np.ndarray
    parts: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    seed: np.ndarray
    length: np.ndarray
    owner_bounds: np.ndarray
    owners: np.ndarray
    answer_bounds: np.ndarray
    answers: np.ndarray
    answer_words: np.ndarray
    bits: int
    bitmap: np.ndarray
    table: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    firsts: np.ndarray
    segments: np.ndarray
    ignored: dict[str, int]


def required_score(length: np.ndarray, part: np.ndarray, answer: np.ndarray, threshold: float) -> np.ndarray:
    """Return the least score float64 at which a match contaminates, ``NEVER`` where none does; see the module.

    ``length`` int64: words of weight above 0; ``part``: ``QUESTION``, ``PASSAGE`` or ``ANSWER``; ``answer``: 1 near, 0
    not near, -1 there is none that tells anything.
    """
    ease = np.clip((length - EXACT_BELOW) / (RELAXED_FROM - EXACT_BELOW), 0, 1)
    strict = 1 - (1 - threshold) * ease
    near = np.where(length >= ENOUGH_WITH_ANSWER, threshold, 1.0)
    enough = np.where((answer == 0) | (part == ANSWER), ENOUGH_ALONE, ENOUGH_WITHOUT_ANSWER)
    enough = np.where(part == PASSAGE, ENOUGH_OF_PASSAGE, enough)
    alone = np.where(length >= enough, strict, NEVER)
    alone = np.where((part == ANSWER) & (answer < 1), NEVER, alone)
    return np.where((part == QUESTION) & (answer == 1), near, alone)


def build_gapped(items: Sequence[Item], threshold: float = 0.8, parts: Sequence[str] = PARTS[:2]) -> GappedIndex:
    """Return the index of the items, of whose questions and passages ``parts`` are compared.

    An answer takes the place of a question that is too short.
    """
    from winnow.contamination import _gapped as kernels
    from winnow.contamination._kernels import fill_table

    placed = [
        (part, item, text)
        for item, one in enumerate(items)
        for part, text in enumerate((one.question, one.passage, *one.answers[:1]))
        if text and PARTS[part % ANSWER] in parts
    ]
    split = split_words(pa.array([text for *_, text in placed], pa.large_string()))
    distinct: dict[tuple[int, bytes], list[int]] = {}
    for row, (part, _, _) in enumerate(placed):
        own = split.hashes[split.bounds[row] : split.bounds[row + 1]]
        distinct.setdefault((part, own.tobytes()), []).append(row)
    rows = np.array([places[0] for places in distinct.values()], np.int64)
    segment_parts = np.array([part for part, _ in distinct], np.int64)
    texts = [placed[row][2] for row in rows]
    words, bounds = _cut(split, rows)
    keys, idf = ngram_weights(words, bounds, segment_parts, telling_words(split, rows, texts))
    weight = word_weights(idf, bounds)
    for s in np.flatnonzero(segment_parts == QUESTION):
        own = split.starts[split.bounds[rows[s]] : split.bounds[rows[s] + 1]]
        discount_quotations(texts[s], own, weight[bounds[s] : bounds[s + 1]])
    segment_of = np.repeat(np.arange(len(rows)), np.diff(bounds))
    length = np.bincount(segment_of[weight > 0], minlength=len(rows)).astype(np.int64)
    total = np.array([_sum(weight[start:stop]) for start, stop in itertools.pairwise(bounds)], float)
    owners = [[placed[row][1] for row in places] for places in distinct.values()]
    answers = telling_texts([one.answers for one in items], [one.question for one in items])
    questions = telling_texts([(one.question,) for one in items], ["\n".join(one.answers[:1]) for one in items])
    sizes = np.diff(split_words(pa.array([text for own in answers for text in own], pa.large_string())).bounds)
    words_in = dict(zip((text for own in answers for text in own), sizes.tolist(), strict=True))
    sought: list[list[list[str]]] = []
    for segment, part in enumerate(segment_parts.tolist()):
        least = ENOUGH_WITH_ANSWER - int(length[segment])
        near = {QUESTION: answers, ANSWER: questions}.get(part)
        sought.append(
            [
                [text for text in near[item] if part == ANSWER or least < 2 or words_in[text] >= least] if near else []
                for item in owners[segment]
            ]
        )
    hope = np.array([1 if any(own) else -1 for own in sought], np.int64)
    usable = (required_score(length, segment_parts, hope, threshold) < NEVER) & (length >= N)
    asked = {item for s in np.flatnonzero(usable & (segment_parts == QUESTION)) for item in owners[s]}
    for s in np.flatnonzero(segment_parts == ANSWER):
        kept = [k for k, item in enumerate(owners[s]) if item not in asked and sought[s][k]]
        owners[s], sought[s] = [owners[s][k] for k in kept], [sought[s][k] for k in kept]
        usable[s] &= bool(kept)
    given = [texts for own in sought for texts in own]
    answer_words = split_words(pa.array([answer for own in given for answer in own], pa.large_string()))
    seed = (idf > 0) & usable[segment_of]
    firsts = np.flatnonzero(seed)
    order = firsts[np.argsort(keys[firsts], kind="stable")]
    known, groups = np.unique(keys[order], return_index=True)
    bits = max(6, int(16 * len(known)).bit_length())
    return GappedIndex(
        items=len(items),
        threshold=threshold,
        words=words,
        bounds=bounds,
        parts=segment_parts,
        weight=weight,
        total=np.maximum(total, 1e-300),
        seed=seed,
        length=length,
        owner_bounds=_bounds([len(own) for own in owners]),
        owners=np.array([item for own in owners for item in own], np.int64),
        answer_bounds=_bounds([len(own) for own in given]),
        answers=answer_words.bounds,
        answer_words=answer_words.hashes,
        bits=bits,
        bitmap=kernels.fill_filter(known, bits),
        table=fill_table(known, 1 << int(2 * len(known)).bit_length()),
        keys=known,
        groups=np.append(groups, len(order)).astype(np.int64),
        firsts=order,
        segments=segment_of,
        ignored=_ignored(len(items), owners, usable, np.diff(bounds), segment_parts),
    )


def find_matches(words: Words, index: GappedIndex, threads: int = 2) -> pa.Table:
    """Return the best match of each of N texts with each item, by ``position`` in ``words`` and by item.

    Matches that contaminate or reach a score of 0.5. ``part``: question or passage; ``score`` and ``required`` as in
    the module; ``matched``: n-grams; ``matched_words``: words of the segment inside runs that the match shares, gaps
    left out; ``longest_match``: words of its longest run without a gap; ``start`` and ``end``: its characters,
    ``text[start:end]``; ``coverage``: share of the document's words from its first to its last; ``answer_near``: null
    where the item has no answer that tells anything. Of several matches of one text with one item the best is that
    which contaminates, then that of the greater score, then the longer run, then the earlier, then the question.
    """
    from winnow.contamination import _gapped as kernels

    floor = min(RECORDED, index.threshold)
    states = [np.full(len(index.parts), answer) for answer in (-1, 0, 1)]
    limits = [required_score(index.length, index.parts, state, index.threshold) for state in states]

    def work(rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return kernels.search(
            words.hashes, words.starts, words.ends, words.bounds, *rows, N, index.bits, index.bitmap, index.table,
            index.keys, index.groups, index.firsts, index.segments, index.words, index.bounds, index.weight,
            index.total, index.seed, np.column_stack(limits), index.owner_bounds, index.owners, index.answer_bounds,
            index.answers, index.answer_words, MISSES, NEAR, floor - 1e-9,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(work, pieces(words.bounds, PIECE_WORDS)))
    found = np.concatenate([rows for rows, _ in done] or [np.zeros((0, 10), np.int64)])
    score = np.minimum(np.concatenate([scores for _, scores in done] or [np.zeros(0)]), 1.0)
    row, segment, item, matched, shared, longest, start, end, span, answer = found.T
    required = required_score(index.length[segment], index.parts[segment], answer, index.threshold)
    reached = score >= required - 1e-9
    order = np.lexsort((index.parts[segment], start, -longest, -np.round(score, 9), ~reached, item, row))
    best = order[np.flatnonzero(np.append(True, np.diff(row[order]) | np.diff(item[order])))] if len(row) else order
    coverage = span / np.maximum(np.diff(words.bounds)[row], 1)
    arrays = [
        pa.array(row[best]),
        pa.array(item[best]),
        pa.array(np.array(PARTS)[index.parts[segment[best]]], pa.string()),
        pa.array(score[best]),
        pa.array(required[best], mask=required[best] >= NEVER),
        *(pa.array(column[best]) for column in (matched, shared, longest, start, end, coverage)),
        pa.array(answer[best] == 1, mask=answer[best] < 0),
        pa.array(reached[best]),
    ]
    return pa.table(arrays, schema=SCHEMA)


def _bounds(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _sum(weights: np.ndarray) -> float:
    """Add in order, as the search does, so that a whole copy has the score 1."""
    return float(np.cumsum(weights)[-1]) if len(weights) else 0.0


def _cut(split: Words, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = [split.hashes[split.bounds[row] : split.bounds[row + 1]] for row in rows]
    return np.concatenate(own or [np.zeros(0, np.uint64)]), _bounds([len(one) for one in own])


def _ignored(
    items: int, owners: list[list[int]], usable: np.ndarray, sizes: np.ndarray, parts: np.ndarray
) -> dict[str, int]:
    """Count the items that no segment of theirs can be found by: too short, or long enough but too common."""
    found, long = np.zeros(items, bool), np.zeros(items, bool)
    enough = {QUESTION: ENOUGH_WITHOUT_ANSWER, PASSAGE: ENOUGH_OF_PASSAGE}
    for s, own in enumerate(owners):
        found[own] |= usable[s]
        long[own] |= sizes[s] >= enough.get(parts[s], np.inf)
    return {"too_short": int((~found & ~long).sum()), "too_common": int((~found & long).sum())}
