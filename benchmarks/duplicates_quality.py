"""What duplicate detection finds of known duplicates: recall by bin of similarity, exact groups, edges to keepers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from duplicates_data import DATA, read_records
from duplicates_sketches import shingles

SETS = ("usenet", "neardup_versioned_docs", "neardup_post_revisions", "neardup_wiki_snapshots")
THRESHOLDS = (0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Truth:
    """Texts and all their pairs above some similarity.

    ``left`` and ``right`` int64 ``[P]`` are positions in ``texts``; ``jaccard`` float64 ``[P]`` of 5-word shingles;
    ``exact`` bool ``[P]``: the texts are equal byte by byte.
    """

    texts: list[str]
    left: np.ndarray
    right: np.ndarray
    jaccard: np.ndarray
    exact: np.ndarray

    @property
    def exact_groups(self) -> list[list[int]]:
        """The positions of equal texts, groups of at least two."""
        groups: dict[str, list[int]] = {}
        for position, text in enumerate(self.texts):
            groups.setdefault(text, []).append(position)
        return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class Answer:
    """What a system says about N texts.

    ``together`` tells of positions int ``[P]``, ``[P]`` whether it found them to be duplicates; ``keeper`` int64
    ``[N]`` is the position of the document that stays for each one, itself if it stays.
    """

    together: Callable[[np.ndarray, np.ndarray], np.ndarray]
    keeper: np.ndarray


def load_truth(name: str, folder: Path = DATA) -> Truth | None:
    """Read one of the ``SETS``; None if the corpora are absent."""
    place = folder / name
    if not (place / "pairs.jsonl.zst").exists():
        return None
    documents = list(read_records(place / "docs.jsonl.zst"))
    position = {row["id"]: number for number, row in enumerate(documents)}
    pairs = list(read_records(place / "pairs.jsonl.zst"))
    return Truth(
        [row["text"] for row in documents],
        np.array([position[row["a"]] for row in pairs], np.int64),
        np.array([position[row["b"]] for row in pairs], np.int64),
        np.array([row["jaccard"] for row in pairs]),
        np.array([row["exact"] for row in pairs], bool),
    )


def bins(threshold: float) -> list[tuple[float, float]]:
    """Return the bins ``[t, t + 0.05)``, ``[t + 0.05, 0.95)`` and ``[0.95, 1]``."""
    return [(threshold, threshold + 0.05), (threshold + 0.05, 0.95), (0.95, 2.0)]


def recall_by_bin(truth: Truth, found: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Return (found, all) pairs of *distinct* texts in every bin; ``found`` bool ``[P]`` tells of the truth's pairs."""
    counts = []
    for low, high in bins(threshold):
        # Tolerance: a threshold of 0.7 and 0.05 add up to a hair less than 0.75.
        inside = ~truth.exact & (truth.jaccard >= low - 1e-12) & (truth.jaccard < high - 1e-12)
        counts.append((int(found[inside].sum()), int(inside.sum())))
    return counts


def judge(truth: Truth, answer: Answer, threshold: float) -> dict[str, Any]:
    """Compare an answer with the truth.

    ``exact``: (found, all) groups of equal texts, found = each found together with the first; ``bins``: as
    :func:`recall_by_bin`; ``removed`` documents, and of those ``below``: whose exact similarity to their keeper is
    under the threshold.
    """
    groups = truth.exact_groups
    whole = [answer.together(np.full(len(group) - 1, group[0]), np.array(group[1:])).all() for group in groups]
    removed = np.flatnonzero(answer.keeper != np.arange(len(answer.keeper)))
    return {
        "exact": (int(sum(whole)), len(groups)),
        "bins": recall_by_bin(truth, answer.together(truth.left, truth.right), threshold),
        "removed": len(removed),
        "below": sum(
            jaccard(truth.texts[place], truth.texts[answer.keeper[place]]) < threshold for place in removed.tolist()
        ),
    }


def jaccard(one: str, other: str) -> float:
    """Return the exact Jaccard similarity of two texts' 5-word shingles; 1 for equal texts."""
    if one == other:
        return 1.0
    a, b = _shingle_set(one), _shingle_set(other)
    return len(a & b) / len(a | b) if a or b else 1.0


@lru_cache(maxsize=256)
def _shingle_set(text: str) -> frozenset[bytes]:
    return frozenset(shingles(text))


def same_label(label: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return an Answer's relation: documents with equal labels int64 ``[N]``, at least 0, are together."""
    return lambda left, right: (label[left] == label[right]) & (label[left] >= 0)


# -- the systems -------------------------------------------------------------------------------------------------------


def winnow(truth: Truth, threshold: float) -> Answer:
    """Equal texts are one document (``doc_id``); the rest is what the library's groups say."""
    keeper, _, _ = _winnow(truth, threshold)
    return Answer(same_label(keeper), keeper)


def winnow_pairs(truth: Truth, threshold: float) -> Answer:
    """The same, but together are documents with a verified pair of their own, whoever is kept for them."""
    keeper, number, pairs = _winnow(truth, threshold)
    every = {(a, b) for pair in pairs.tolist() for a, b in (pair, pair[::-1])}

    def together(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        sides = zip(number[left].tolist(), number[right].tolist(), strict=True)
        return np.array([a == b or (a, b) in every for a, b in sides], bool)

    return Answer(together, keeper)


def _winnow(truth: Truth, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the keeper of each text and the number of its doc_id, int64 ``[N]``, and pairs of such numbers."""
    from duplicates_ours import groups_of

    from winnow.identity import doc_ids, ids_as_keys, ids_to_numpy

    keys = ids_as_keys(ids_to_numpy(doc_ids(truth.texts)))
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    keeper, pairs = groups_of([truth.texts[place] for place in first], threshold)
    return first[keeper][number], number, pairs


def datasketch(truth: Truth, threshold: float) -> Answer:
    """``MinHashLSH`` with its own bands and rows for the threshold, all inserted, each queried; nothing is verified.

    The signatures are Winnow's of the scheme ``datasketch``, bit for bit datasketch's own. What stays: a document for
    which the query of those before it that stayed is empty, as the usual loop does.
    """
    from datasketch import LeanMinHash, MinHashLSH
    from duplicates_ours import signatures_of
    from duplicates_peers import NUM_PERM, SEED

    signed = signatures_of(truth.texts, "datasketch")
    sketches = [LeanMinHash(seed=SEED, hashvalues=row, scheme="affine32") for row in signed]
    every, kept = (MinHashLSH(threshold, NUM_PERM) for _ in range(2))
    for place, sketch in enumerate(sketches):
        every.insert(place, sketch)
    keeper = np.arange(len(sketches))
    for place, sketch in enumerate(sketches):
        if before := kept.query(sketch):
            keeper[place] = min(before)
        else:
            kept.insert(place, sketch)

    def together(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        asked: dict[int, set[int]] = {}
        for place in left.tolist():
            if place not in asked:
                asked[place] = set(every.query(sketches[place]))
        return np.array([b in asked[a] for a, b in zip(left.tolist(), right.tolist(), strict=True)], bool)

    return Answer(together, keeper)


def datatrove(truth: Truth, threshold: float) -> Answer:
    """datatrove's stages as shipped: 14 buckets of 8 whatever the threshold; one document of a cluster stays."""
    clusters, removed = _datatrove(tuple(truth.texts))
    stays = np.full(int(clusters.max(initial=-1)) + 1, -1, np.int64)
    roots = np.flatnonzero((clusters >= 0) & ~removed)
    stays[clusters[roots]] = roots
    keeper = np.where(clusters >= 0, stays[clusters], np.arange(len(clusters)))
    return Answer(same_label(clusters), keeper)


@lru_cache(maxsize=1)
def _datatrove(texts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    from duplicates_peers import datatrove_clusters

    return datatrove_clusters(list(texts))


SYSTEMS: dict[str, tuple[Callable[[Truth, float], Answer], tuple[str, ...]]] = {
    "winnow": (winnow, ()),
    "winnow, pairs": (winnow_pairs, ()),
    "datasketch": (datasketch, ("datasketch",)),
    "datatrove": (datatrove, ("datatrove", "spacy")),
}


def judged(name: str, system: str) -> dict[str, Any]:
    """Return what :func:`judge` says about a system on one of the ``SETS``, by threshold."""
    truth = load_truth(name)
    assert truth is not None, f"{name} has no pairs"
    row: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        row[str(threshold)] = judge(truth, SYSTEMS[system][0](truth, threshold), threshold)
    return row
