"""What a selection is judged by: a reference in two parts that share nothing, and that the pool does not hold.

Presets read the *selecting* part alone; losses are measured on the *judging* part. Items of one topic stay together in
one part; a judging item that shares 8 words in a row with a selecting one goes, and so does a document of the pool that
shares with an item of either part 13 words in a row, the item whole, or the most of its own words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import xxhash

from winnow.contamination.ngrams import build_index, contaminated, find_overlap
from winnow.errors import UserError
from winnow.identity import digest
from winnow.lab.pool import LabPool
from winnow.quality.scorers import Documents

log = logging.getLogger(__name__)

NGRAM = 8
COVERAGE = 0.5
"""Share of a document's words in n-grams of an item from which it is a near-duplicate of it."""


@dataclass(frozen=True, eq=False)
class Target:
    """A reference: ``selecting`` and ``judging`` texts with their token lists (int32 arrays).

    ``removed``: how many judging items were too near the selecting part, and documents of the pool too near
    either part. ``vectors`` and ``clusters`` of the selecting items, in the space and clustering of the pool.
    """

    name: str
    selecting: tuple[str, ...]
    judging: tuple[str, ...]
    selecting_tokens: tuple[np.ndarray, ...] = ()
    judging_tokens: tuple[np.ndarray, ...] = ()
    vectors: np.ndarray | None = None
    clusters: np.ndarray | None = None
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of both parts, as read by the model."""
        parts = (self.selecting_tokens, self.judging_tokens)
        keys = [[xxhash.xxh3_128_hexdigest(np.asarray(one, "<i4").tobytes()) for one in part] for part in parts]
        return digest([sorted(keys[0]), sorted(keys[1])])

    def documents(self) -> Documents:
        """Return the selecting part as scorers take it."""
        return Documents.from_texts(
            list(self.selecting), tokens=list(self.selecting_tokens), vectors=self.vectors, clusters=self.clusters
        )


def split_reference(
    name: str,
    texts: Sequence[str],
    topics: Sequence[str] | None = None,
    *,
    selecting_items: int = 1000,
    judging_items: int = 400,
    selecting_share: float = 0.6,
    seed: int = 0,
) -> Target:
    """Return a reference's two parts, without tokens as yet.

    A topic (chapter, cluster, author; an item's own text unless given) goes to one part by seeded hash; of each part
    the first so many items in the order of a seeded hash are kept. Raises :class:`UserError` when a part ends empty.
    """
    if topics is not None and len(topics) != len(texts):
        raise UserError(f"reference '{name}': {len(texts)} items but {len(topics)} topics; give one for each item")
    distinct = dict(zip(texts, texts if topics is None else topics, strict=True))
    ordered = sorted(distinct, key=lambda text: _fraction(f"order:{seed}:{text}"))
    chosen = {text: _fraction(f"topic:{seed}:{distinct[text]}") < selecting_share for text in ordered}
    selecting = [text for text in ordered if chosen[text]][:selecting_items]
    judging = [text for text in ordered if not chosen[text]]
    near = _sharing(judging, selecting)
    kept = [text for text, shared in zip(judging, near.tolist(), strict=True) if not shared][:judging_items]
    if not selecting or not kept:
        part = "judging" if selecting else "selecting"
        raise UserError(
            f"reference '{name}': its {part} part is empty ({len(texts)} items, {int(near.sum())} of the judging part "
            "share 8 words in a row with the selecting part); give more items, or more topics"
        )
    return Target(name, tuple(selecting), tuple(kept), removed={"judging": int(near.sum())})


def leaking(pool: LabPool, target: Target) -> np.ndarray:
    """Return which documents of the pool hold an item of either part, or nearly do: bool ``[N]``."""
    return holding(pool, [*target.judging, *target.selecting])


def holding(pool: LabPool, items: Sequence[str]) -> np.ndarray:
    """Return which documents hold one of the texts ``items``, or share 13 words in a row or most of theirs: ``[N]``."""
    index = build_index(list(items), NGRAM)
    found = find_overlap(pa.array(pool.texts.tolist(), pa.large_string()), index)
    bad = contaminated(found, index) | (found["coverage"].to_numpy() >= COVERAGE)
    marked = np.zeros(len(pool), dtype=np.bool_)
    marked[found["position"].to_numpy()[bad]] = True
    return marked


def without_leaks(pool: LabPool, targets: Sequence[Target]) -> tuple[LabPool, list[Target]]:
    """Return the pool without documents that hold items of a target, and the targets that know how many went.

    Raises :class:`UserError` when a target takes more than half of the pool: it was cut from it.
    """
    marks = [leaking(pool, target) for target in targets]
    for target, mark in zip(targets, marks, strict=True):
        log.info("reference %s: %d documents of the pool hold items of it", target.name, int(mark.sum()))
        if mark.mean() > 0.5:
            raise UserError(
                f"reference '{target.name}' leaks into the pool: {int(mark.sum())} of {len(pool)} documents hold items "
                "of it; give a reference that the pool was not made of"
            )
    bad = np.logical_or.reduce(marks) if marks else np.zeros(len(pool), dtype=np.bool_)
    told = [
        replace(target, removed={**target.removed, "pool": int(mark.sum())})
        for target, mark in zip(targets, marks, strict=True)
    ]
    return pool.take(~bad), told


def require_apart(pool: LabPool, target: Target) -> None:
    """Raise :class:`UserError` unless the judging part shares nothing with the selecting part or the pool."""
    if (shared := int(_sharing(target.judging, target.selecting).sum())) > 0:
        raise UserError(
            f"reference '{target.name}': {shared} judging items share {NGRAM} words in a row with the selecting part; "
            "split it with split_reference"
        )
    if (held := int(leaking(pool, target).sum())) > 0:
        raise UserError(
            f"reference '{target.name}' leaks into the pool: {held} documents hold items of it; remove "
            "them with without_leaks"
        )


def with_tokens(
    target: Target, tokenise: Callable[[list[str]], Sequence[np.ndarray]], context: int, judging_tokens: int = 20_000
) -> Target:
    """Return the target with its tokens; ``tokenise`` maps a list of texts to their token arrays.

    Selecting items are cut at ``context`` tokens, as the model reads them; of the judging items as many are kept, in
    their order, as ``judging_tokens`` hold. Raises :class:`UserError` when no item has two tokens.
    """
    selecting = [np.asarray(one, np.int32)[:context] for one in tokenise(list(target.selecting))]
    judging = [np.asarray(one, np.int32)[:context] for one in tokenise(list(target.judging))]
    usable = [place for place, one in enumerate(judging) if len(one) >= 2]
    fitting = np.searchsorted(np.cumsum([len(judging[place]) for place in usable]), judging_tokens, side="right")
    usable = usable[: max(1, int(fitting))]
    good = [place for place, one in enumerate(selecting) if len(one) >= 2]
    if not usable or not good:
        raise UserError(f"reference '{target.name}': no item of two or more tokens in a part; give longer items")
    return replace(
        target,
        selecting=tuple(target.selecting[place] for place in good),
        selecting_tokens=tuple(selecting[place] for place in good),
        judging=tuple(target.judging[place] for place in usable),
        judging_tokens=tuple(judging[place] for place in usable),
    )


def _sharing(items: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Return which items share 8 words in a row with any of the others, bool."""
    marked = np.zeros(len(items), dtype=np.bool_)
    if len(items) and len(others):
        found = find_overlap(pa.array(list(items), pa.large_string()), build_index(list(others), NGRAM))
        marked[found["position"].to_numpy()] = True
    return marked


def _fraction(text: str) -> float:
    return xxhash.xxh3_64_intdigest(text.encode()) / 2**64
