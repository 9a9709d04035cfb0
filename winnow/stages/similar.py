"""Near duplicates of any text among the documents of the store, from what is published.

The text is signed and banded as the documents were, the bands name the candidates, and every one that is returned is
verified by the exact Jaccard similarity of its shingles. Nothing here is compiled, so that an answer does not wait for
a compiler: signatures and keys equal those of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from winnow.config import Duplicates
from winnow.dedup.bands import band_keys_of_one
from winnow.dedup.sketch import SketchPlan, make_plan
from winnow.errors import UserError
from winnow.identity import doc_id

if TYPE_CHECKING:
    from winnow.store.store import Connection

MOST_VERIFIED = 1_000
"""Candidates whose texts are read, those with the most equal bands first: a template can have a hundred thousand."""
EXCERPT = 160

PRESENT = "SELECT 1 FROM bands WHERE scheme = $scheme LIMIT 1"
STORED = """
SELECT d.doc_id, d.source, d.original_id, d.dup_count, n.keeper_id
FROM documents d
LEFT JOIN (SELECT doc_id, keeper_id FROM duplicates WHERE kind = 'near') n USING (doc_id)
WHERE d.doc_id IN (SELECT unnest($ids))
"""
TEXTS = "SELECT doc_id, text FROM texts WHERE doc_id IN (SELECT unnest($ids))"
PLACES = """
SELECT doc_id, shard, row, source, original_id, url, path FROM occurrences JOIN shards USING (shard, source)
WHERE doc_id IN (SELECT unnest($ids)) ORDER BY doc_id, shard, row
"""


@dataclass(frozen=True)
class SimilarDocument:
    """A document of the store that resembles the text; ``keeper_id`` is its own id when it is kept.

    ``jaccard`` is exact; ``exact`` says that it is the very text. ``occurrences`` are the places it was delivered from.
    """

    doc_id: UUID
    jaccard: float
    exact: bool
    keeper_id: UUID
    source: str
    original_id: str | None
    occurrences: Sequence[dict[str, Any]]
    excerpt: str

    @property
    def kept(self) -> bool:
        return self.keeper_id == self.doc_id


@dataclass(frozen=True)
class Similar:
    """What was found for a text: ``documents`` by falling similarity; ``candidates`` shared a band, ``verified`` read.

    ``recall`` is the chance to find a document of exactly the threshold's similarity.
    """

    documents: Sequence[SimilarDocument]
    matches: int
    candidates: int
    verified: int
    threshold: float
    recall: float


def find_similar(
    connection: Connection, settings: Duplicates, text: str, threshold: float | None = None, limit: int = 20
) -> Similar:
    """Return the documents whose shingles have at least this Jaccard similarity with those of ``text``.

    ``connection`` sees the published tables; ``threshold`` is the configured one unless given; equal similarities are
    ordered by doc_id. Raises :class:`UserError` for a text without characters, and when no document is banded as
    ``settings`` say.
    """
    from winnow.dedup.one_text import hash_text, sign_text

    if not text.strip():
        raise UserError("the text is empty: give a file that holds text, or the text itself in quotes")
    plan = make_plan(settings)
    if connection.execute(PRESENT, {"scheme": plan.scheme}).fetchone() is None:
        raise UserError(
            "the published store has no bands of the present settings of duplicates: run `winnow run --until "
            "duplicates` (or materialize `bands` for every `shards` partition)"
        )
    least = plan.bands.threshold if threshold is None else threshold
    signature = sign_text(text, plan.sketching)
    candidates, total = ([], 0) if signature is None else _candidates(connection, plan, signature)
    own = list(dict.fromkeys((doc_id(text), doc_id(_without_last_line_end(text)))))
    wanted = own + [one for one in candidates if one not in own]
    rows = {row[0]: row for row in connection.execute(STORED, {"ids": wanted}).fetchall()}
    texts = dict(connection.execute(TEXTS, {"ids": list(rows)}).fetchall()) if rows else {}
    shingles = hash_text(text, plan.sketching.shingling)
    found = []
    for one in rows:
        similarity = 1.0 if one in own else jaccard(shingles, hash_text(texts[one], plan.sketching.shingling))
        if similarity >= least:
            found.append((-similarity, one not in own, one))
    found.sort()
    shown = [(one, -similarity, not other) for similarity, other, one in found[:limit]]
    places = _places(connection, [one for one, _, _ in shown])
    documents = [
        SimilarDocument(
            one, similarity, exact, rows[one][4] or one, rows[one][1], rows[one][2], places.get(one, []),
            " ".join(texts[one][: 4 * EXCERPT].split())[:EXCERPT],
        )
        for one, similarity, exact in shown
    ]  # fmt: skip
    return Similar(documents, len(found), max(total, len(rows)), len(rows), least, plan.bands.recall(least))


def _candidates(connection: Connection, plan: SketchPlan, signature: np.ndarray) -> tuple[list[UUID], int]:
    """Return the documents that share a band, those with the most bands first, and how many there are in all."""
    keys = band_keys_of_one(signature, plan.bands)
    shared = " + ".join(f"(keys[{band + 1}] = $key{band})::INTEGER" for band in range(len(keys)))
    rows = connection.execute(
        f"""
        SELECT doc_id, count(*) OVER () FROM (SELECT doc_id, {shared} AS shared FROM bands WHERE scheme = $scheme)
        WHERE shared > 0 ORDER BY shared DESC, doc_id LIMIT $most
        """,  # noqa: S608
        {"scheme": plan.scheme, "most": MOST_VERIFIED} | {f"key{band}": int(key) for band, key in enumerate(keys)},
    ).fetchall()
    return [row[0] for row in rows], rows[0][1] if rows else 0


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Return the similarity of two arrays of distinct hashes; of two empty ones 0."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    total = len(left) + len(right) - shared
    return shared / total if total else 0.0


def _without_last_line_end(text: str) -> str:
    """Return a text as it was before an editor or a shell ended its last line."""
    return text.removesuffix("\n").removesuffix("\r")


def _places(connection: Connection, ids: list[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    places: dict[UUID, list[dict[str, Any]]] = {}
    if ids:
        cursor = connection.execute(PLACES, {"ids": ids})
        columns = [column[0] for column in cursor.description or ()][1:]
        for one, *values in cursor.fetchall():
            places.setdefault(one, []).append(dict(zip(columns, values, strict=True)))
    return places
