"""The method ``gapped`` in plain Python, by its definition: strings, dictionaries and sets."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from winnow.contamination.items import Item
from winnow.contamination.words import SPACELESS

N = 4
Word = tuple[str, int, int]


def words_of(text: str) -> list[Word]:
    """Words of the lower-cased text with their spans in the text; some characters are words of their own."""
    lowered = text.lower()
    origin = [k for k, character in enumerate(text) for _ in character.lower()]
    found: list[Word] = []
    for match in re.finditer(r"\w+", lowered):
        pieces: list[list[int]] = []
        for place in range(match.start(), match.end()):
            alone = any(first <= ord(lowered[place]) <= last for first, last in SPACELESS)
            if alone or not pieces or pieces[-1][1] == -1:
                pieces.append([place, -1 if alone else 0, place])
            pieces[-1][2] = place
        found += [(lowered[first : last + 1], origin[first], origin[last] + 1) for first, _, last in pieces]
    return found


def _tells(word: str) -> bool:
    return sum(map(str.isalpha, word)) >= 3 or (len(word) == 1 and word.isalpha() and word > "\u0dff")


def _telling(texts: Sequence[Sequence[str]], beside: Sequence[str]) -> list[list[str]]:
    def key(text: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", text.lower()))

    counts = Counter(one for own in texts for one in {key(text) for text in own})
    most = max(5, len(texts) / 100)
    return [
        [
            text
            for text in own
            if key(text) - key(other)
            and counts[key(text)] <= most
            and (
                re.search(r"\d", text)
                or re.search(r"[^\W\d_]{3}", text)
                or any(c.isalpha() and c > "\u0dff" for c in text)
            )
        ]
        for own, other in zip(texts, beside, strict=True)
    ]


def _weights(
    segments: dict[tuple[int, tuple[str, ...]], str],
) -> dict[tuple[int, tuple[str, ...]], tuple[list[float], list[float]]]:
    """Weights of n-grams and of words of each segment."""
    found = {}
    for part, words in segments:
        alike = [other for kind, other in segments if kind == part]
        frequency = Counter(gram for other in alike for gram in {other[i : i + N] for i in range(len(other) - N + 1)})
        grams = [words[i : i + N] for i in range(len(words) - N + 1)]
        idf = []
        for i, gram in enumerate(grams):
            common = frequency[gram] > max(5, min(len(alike) / 100, 256))
            dull = len({word for word in gram if _tells(word)}) < 2
            idf.append(
                0.0
                if common or dull or gram in grams[:i]
                else math.log((len(alike) + 1) / frequency[gram]) / math.log(len(alike) + 1)
            )
        weight = []
        for p in range(len(words)):
            own = idf[max(0, p - N + 1) : p + 1]
            weight.append(sum(own) / len(own) if own else 0.0)
        if part == 0:
            text = segments[part, words]
            if text.count('"') % 2:
                text = text.replace('"', " ")
            quoted: set[int] = set()
            marks = ["“[^”]*”", "„[^“”]*[“”]", "«[^»]*»", "``.*?''", '"[^"]*"', "「[^」]*」"]
            marks += [r"‘[^\n]*?’(?!\w)", r"(?<![\w'`])'(?=\w)[^\n]*?'(?![\w'])"]
            for match in re.finditer("|".join(marks), text, re.DOTALL):
                spans = words_of(segments[part, words])
                inner = {p for p, (_, start, _) in enumerate(spans) if match.start() <= start < match.end()}
                quoted |= inner if len(inner) >= N else set()
            inside, outside = (sum(w for p, w in enumerate(weight) if (p in quoted) == side) for side in (True, False))
            if outside > 0 and inside > outside / 3:
                weight = [w * outside / 3 / inside if p in quoted else w for p, w in enumerate(weight)]
        found[part, words] = idf, weight
    return found


def required(length: int, part: int, answer: int, threshold: float) -> float:
    strict = 1 - (1 - threshold) * min(max((length - 20) / 30, 0), 1)
    if part == 2:
        return strict if answer == 1 and length >= 12 else math.inf
    if part == 1:
        return strict if length >= 20 else math.inf
    if answer == 1:
        return threshold if length >= 8 else 1.0
    return strict if length >= (12 if answer == 0 else 8) else math.inf


def slow_matches(texts: Sequence[str], items: Sequence[Item], threshold: float) -> list[dict[str, Any]]:
    segments: dict[tuple[int, tuple[str, ...]], str] = {}
    owners: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for number, item in enumerate(items):
        for part, text in enumerate((item.question, item.passage, *item.answers[:1])):
            if text:
                key = part, tuple(word for word, _, _ in words_of(text))
                segments.setdefault(key, text)
                owners.setdefault(key, []).append(number)
    weights = _weights(segments)
    answers = _telling([item.answers for item in items], [item.question for item in items])
    questions = _telling([[item.question] for item in items], ["\n".join(item.answers[:1]) for item in items])
    length = {key: sum(w > 0 for w in weight) for key, (_, weight) in weights.items()}

    def sought(key: tuple[int, tuple[str, ...]], item: int) -> list[str]:
        if key[0] == 0:
            return [text for text in answers[item] if len(words_of(text)) >= 8 - length[key]]
        return questions[item] if key[0] == 2 else []

    def usable(key: tuple[int, tuple[str, ...]]) -> bool:
        hope = 1 if any(sought(key, item) for item in owners[key]) else -1
        return length[key] >= N and required(length[key], key[0], hope, threshold) < math.inf

    asked = {item for key in segments if key[0] == 0 and usable(key) for item in owners[key]}
    best: dict[tuple[int, int], tuple[Any, ...]] = {}
    for position, text in enumerate(texts):
        spans = words_of(text)
        words = [word for word, _, _ in spans]
        for key in (key for key in segments if usable(key)):
            part, own = key
            idf, weight = weights[key]
            hits = [
                (i, p)
                for i in range(len(words) - N + 1)
                for p, value in enumerate(idf)
                if value > 0 and tuple(words[i : i + N]) == own[p : p + N]
            ]
            runs_of_hits = {
                (first, last)
                for first in range(len(hits))
                for last in range(first, len(hits))
                if hits[last][0] - hits[first][0] <= 2 * len(own) + 11
                and all(after[0] - before[0] <= 12 for before, after in itertools.pairwise(hits[first : last + 1]))
            }
            clusters = [
                hits[first : last + 1]
                for first, last in sorted(runs_of_hits)
                if not {(first - 1, last), (first, last + 1)} & runs_of_hits
            ]
            for cluster in clusters:
                covered = {p + k for _, p in cluster for k in range(N)}
                score = sum(weight[p] for p in sorted(covered)) / sum(weight)
                shared: set[int] = set()
                runs = []
                for i, p in cluster:
                    back, ahead = 0, 0
                    while i > back and p > back and words[i - back - 1] == own[p - back - 1]:
                        back += 1
                    while i + ahead < len(words) and p + ahead < len(own) and words[i + ahead] == own[p + ahead]:
                        ahead += 1
                    runs.append((-(back + ahead), i - back))
                    shared |= set(range(p - back, p + ahead))
                longest, at = -min(runs)[0], min(runs)[1]
                low = min(cluster[0][0], at)
                high = max(cluster[-1][0] + N, at + longest)
                window = words[max(low - 50, 0) : high + 50]
                for item in owners[key]:
                    wanted = sought(key, item)
                    if part == 2 and (item in asked or not wanted):
                        continue
                    answer = -1
                    for one in wanted:
                        run = [word for word, _, _ in words_of(one)]
                        need = min(len(run), 8)
                        pieces = [run[k : k + need] for k in range(len(run) - need + 1)]
                        near = any(window[i : i + need] in pieces for i in range(len(window) - need + 1))
                        answer = max(answer, int(near))
                    limit = required(length[key], part, answer, threshold)
                    reached = score >= limit - 1e-9
                    if score < min(0.5, threshold) - 1e-9:
                        continue
                    row = {
                        "position": position,
                        "item": item,
                        "part": ("question", "passage", "answer")[part],
                        "score": round(min(score, 1), 9),
                        "required": None if limit == math.inf else round(limit, 9),
                        "matched": len(cluster),
                        "matched_words": len(shared),
                        "longest_match": longest,
                        "start": spans[low][1],
                        "end": spans[high - 1][2],
                        "coverage": round((high - low) / len(words), 9),
                        "answer_near": None if answer < 0 else bool(answer),
                        "contaminated": reached,
                    }
                    rank = (not reached, -round(score, 9), -longest, row["start"], part)
                    if (position, item) not in best or rank < best[position, item][0]:
                        best[position, item] = rank, row
    return [best[key][1] for key in sorted(best)]
