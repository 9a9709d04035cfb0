"""The demo's reference: the Python language reference as the standard library carries it (``pydoc_data.topics``).

Its topics are split into a selecting part, which a selection may look at, and a judging part, which only judges it.
Topics repeat one another (``compound`` contains ``for``), so repeated items are dropped before the split, and judging
items that share eight words in a row with a selecting item after it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import xxhash

from winnow.contamination import build_index, find_overlap

SELECTING_SHARE = 0.6
FEWEST_WORDS, MOST_WORDS = 80, 250
OVERLAP_WORDS = 8
REPEATED_SHARE = 0.2


@dataclass(frozen=True)
class DemoReference:
    """Items of the reference, and how many were dropped: repeats of another topic, judging ones seen in selecting."""

    items: list[dict[str, str]]
    repeated: int
    shared: int

    @property
    def texts(self) -> list[str]:
        return [item["text"] for item in self.items]

    @property
    def per_part(self) -> dict[str, int]:
        return dict(sorted(Counter(item["part"] for item in self.items).items()))


def build_reference(seed: int = 0, topics: Mapping[str, str] | None = None) -> DemoReference:
    """Return the reference's items: ``id``, ``text``, ``topic`` and ``part`` (``selecting`` or ``judging``).

    A topic's part is a hash of its name with the seed. Items hold about 80 to 250 white-space words. Of items that
    share over a fifth of their 8-word n-grams, the one in the shorter topic is kept.
    """
    if topics is None:
        from pydoc_data.topics import topics as installed

        topics = installed
    items: list[dict[str, str]] = []
    repeated = 0
    seen: set[tuple[str, ...]] = set()
    for topic in sorted(topics, key=lambda name: (len(topics[name]), name)):
        part = "selecting" if _unit_hash(topic, seed) < SELECTING_SHARE else "judging"
        for number, text in enumerate(cut_topic(topics[topic])):
            words = re.findall(r"\w+", text.lower())
            grams = {tuple(words[k : k + OVERLAP_WORDS]) for k in range(len(words) - OVERLAP_WORDS + 1)}
            if not grams or len(grams & seen) > REPEATED_SHARE * len(grams):
                repeated += 1
                continue
            seen |= grams
            items.append({"id": f"{topic}#{number}", "text": text, "topic": topic, "part": part})
    selecting = [item for item in items if item["part"] == "selecting"]
    judging = [item for item in items if item["part"] == "judging"]
    overlap = find_overlap(
        pa.array([item["text"] for item in judging], pa.large_string()),
        build_index([item["text"] for item in selecting], OVERLAP_WORDS),
    )
    shared = set(overlap["position"].to_pylist())
    judging = [item for position, item in enumerate(judging) if position not in shared]
    return DemoReference(sorted(selecting + judging, key=lambda item: item["id"]), repeated, len(shared))


def cut_topic(text: str) -> list[str]:
    """Cut a topic into groups of paragraphs of 80 to 250 words; only a topic shorter than 80 gives a shorter one."""
    groups: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", text.strip("\n")):
        for piece in _lines_within(paragraph.rstrip()):
            words = len(piece.split())
            if groups and (_words(groups[-1]) < FEWEST_WORDS or words < FEWEST_WORDS // 4):
                joined = groups[-1] + "\n\n" + piece
                if _words(joined) <= MOST_WORDS:
                    groups[-1] = joined
                    continue
            groups.append(piece)
    if len(groups) > 1 and _words(groups[-1]) < FEWEST_WORDS and _words(groups[-2] + " " + groups[-1]) <= MOST_WORDS:
        groups[-2:] = [groups[-2] + "\n\n" + groups[-1]]
    return groups


def _lines_within(paragraph: str) -> list[str]:
    """Cut a paragraph (a table, a long list) at line ends into pieces of at most 250 words."""
    pieces: list[str] = []
    for line in paragraph.split("\n"):
        if pieces and _words(pieces[-1]) + _words(line) <= MOST_WORDS:
            pieces[-1] += "\n" + line
        else:
            pieces.append(line)
    return pieces


def _words(text: str) -> int:
    return len(text.split())


def _unit_hash(name: str, seed: int) -> float:
    """A number in [0, 1) from the name and the seed."""
    return xxhash.xxh3_64_intdigest(f"{seed}:part:{name}".encode()) / 2**64
