"""Looking before comparing: what a threshold will find, cost and remove, from the store as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.config import Config, Duplicates
from winnow.dedup.bands import BandPlan, plan_bands
from winnow.dedup.estimates import Estimate, SimilaritySample, estimate, sample_similarity
from winnow.errors import UserError
from winnow.identity import ids_as_keys, ids_to_numpy
from winnow.stages.priorities import priority_of, source_priorities
from winnow.stages.progress import size
from winnow.store.memory import memory_bytes

if TYPE_CHECKING:
    from winnow.dedup.sketch import SketchPlan
    from winnow.store.store import Connection, Store

SAMPLE = 1_500
"""Signatures of a sample: a million pairs, of which a common similarity is seen and a rare one is not."""
LEAST_SAMPLE = 200
FREE_SHARE = 0.95
"""Share of the free disk that may be filled."""


# -- before anything runs ---------------------------------------------------------------------------------------------


NEW = """
SELECT count(*), coalesce(avg(bytes), 0), count(*) FILTER (WHERE banded.doc_id IS NULL)
FROM documents
LEFT JOIN (SELECT DISTINCT doc_id FROM bands WHERE scheme = $scheme) banded USING (doc_id)
"""


def require_room(store: Store, plan: SketchPlan) -> Estimate:
    """Estimate the comparison of all documents and refuse what cannot fit, unless there is none to be banded.

    Raises :class:`UserError`, naming the numbers and what to change, when the free disk or ``store.memory_limit`` is
    too small.
    """
    with store.read("bands", "sketches") as connection:
        documents, mean_bytes, new = connection.execute(NEW, {"scheme": plan.scheme}).fetchone() or (0, 0.0, 0)
        sample = sample_of(connection, plan) if new else None
    threads = store.settings.threads or None
    expected = estimate(documents, mean_bytes, plan.bands, new, plan.sketching.dtype.itemsize, sample, threads)
    if new:
        refuse_what_cannot_fit(expected, disks(store, expected), memory_bytes(store.settings.memory_limit))
    return expected


def estimate_lines(expected: Estimate) -> list[str]:
    """Return an estimate in the words of a log: what is compared, what will be found, what it takes."""
    plan, basis = (
        expected.plan,
        "assumed" if not expected.sampled_pairs else f"{expected.sampled_pairs:,} pairs sampled",
    )
    return [
        f"{expected.documents:,} documents of {size(round(expected.mean_bytes))}, {expected.new_documents:,} new",
        f"recall {plan.recall_at_threshold:.4f} expected at Jaccard {plan.threshold:g}",
        f"{expected.false_candidates:.3g} false candidates a document ({basis})",
        f"at most {size(expected.disk_bytes)} of disk and {size(expected.memory_bytes)} of memory",
    ]


@dataclass(frozen=True)
class Disk:
    """What is to be written below one folder, and how much is free there."""

    place: str
    needed: int
    free: int


def refuse_what_cannot_fit(expected: Estimate, disks: Iterable[Disk], memory: int | None) -> None:
    """Raise :class:`UserError` when an estimate exceeds what is free on a disk, or ``memory`` bytes (if given)."""
    what = f"{expected.documents:,} documents of {size(round(expected.mean_bytes))} in the mean"
    for disk in disks:
        if disk.needed > FREE_SHARE * disk.free:
            raise UserError(
                f"near duplicates of {what}, {expected.new_documents:,} of them new, may write {size(disk.needed)} "
                f"below {disk.place}, where {size(disk.free)} are free; free some space, let store.data name another "
                "place, or lower duplicates.permutations"
            )
    if memory is not None and expected.memory_bytes > memory:
        raise UserError(
            f"near duplicates of {what}: the step '{expected.largest_step}' may need {size(expected.memory_bytes)} "
            f"with {expected.false_candidates:,.1f} false candidates a document, store.memory_limit is {size(memory)}; "
            "raise store.memory_limit if the machine has more, else lower store.threads or "
            "duplicates.recall, or raise duplicates.threshold or duplicates.permutations"
        )


def disks(store: Store, expected: Estimate) -> list[Disk]:
    """Return what is written where: parts below ``store.data`` if that is a folder, scratch files in the home."""
    from winnow.store.storage import LocalStorage

    scratch, parts = sum(expected.scratch.values()), sum(expected.parts.values())
    home = _there(store.home.scratch)
    if not isinstance(store.storage, LocalStorage):
        return [Disk(str(home), scratch, shutil.disk_usage(home).free)]
    data = _there(store.storage.root)
    if data.stat().st_dev == home.stat().st_dev:
        return [Disk(str(data), scratch + parts, shutil.disk_usage(data).free)]
    return [
        Disk(str(data), parts, shutil.disk_usage(data).free),
        Disk(str(home), scratch, shutil.disk_usage(home).free),
    ]


def _there(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def sample_of(connection: Connection, plan: SketchPlan) -> SimilaritySample | None:
    """Return the similarities of random pairs of documents as their signatures estimate them; None of too few.

    ``connection`` sees ``documents`` and ``sketches``. Documents with the smallest ids are taken: an id is a hash, so
    they are a random sample, and the same one in whatever order documents came.
    """
    from winnow.dedup.sketch import signatures_of

    rows = connection.execute(
        """
        SELECT signature FROM sketches
        WHERE scheme = $scheme AND doc_id IN (SELECT doc_id FROM documents ORDER BY doc_id LIMIT $most)
        ORDER BY doc_id
        """,
        {"scheme": plan.sketch_scheme, "most": SAMPLE},
    ).to_arrow_table()
    signatures, _ = signatures_of(rows, plan.sketching)
    return sample_similarity(signatures) if len(signatures) >= LEAST_SAMPLE else None


# -- looking at thresholds --------------------------------------------------------------------------------------------

THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CHANCES_AT = (0.5, 0.6, 0.7, 0.8, 0.9)


def plan_rows(
    settings: Duplicates,
    thresholds: Iterable[float],
    documents: int,
    mean_bytes: float,
    value_bytes: int = 4,
    sample: SimilaritySample | None = None,
) -> list[dict[str, Any]]:
    """Return a row a threshold: its band plan, points of its S-curve, false candidates a document, disk and memory.

    The configured threshold is among them. One that no plan reaches the recall for has nothing but its name.
    """
    rows: list[dict[str, Any]] = []
    for threshold in sorted({settings.threshold, *thresholds}):
        row: dict[str, Any] = {"threshold": threshold, "configured": threshold == settings.threshold}
        try:
            plan = plan_bands(threshold, settings.permutations, settings.recall, settings.banding)
        except UserError:
            rows.append(row)
            continue
        expected = estimate(documents, mean_bytes, plan, value_bytes=value_bytes, sample=sample)
        rows.append(row | _described(plan, expected))
    return [{column: row.get(column) for column in rows[-1] | rows[0]} for row in rows]


def _described(plan: BandPlan, expected: Estimate) -> dict[str, Any]:
    return {
        "bands": plan.bands,
        "rows": plan.rows,
        **{f"found at {similarity:g}": round(plan.recall(similarity), 4) for similarity in CHANCES_AT},
        "recall": round(plan.recall_at_threshold, 4),
        "false candidates a document": float(f"{expected.false_candidates:.3g}"),
        "disk": expected.disk_bytes,
        "memory": expected.memory_bytes,
    }


PAIRS = """
SELECT p.doc_a, p.doc_b, p.similarity FROM duplicate_pairs p
SEMI JOIN documents a ON a.doc_id = p.doc_a
SEMI JOIN documents b ON b.doc_id = p.doc_b
WHERE p.kind = 'near' AND p.scheme = $scheme AND p.similarity >= $least
ORDER BY p.doc_a, p.doc_b
"""
MEMBERS = """
SELECT doc_id, source, characters FROM documents
SEMI JOIN (SELECT unnest([doc_a, doc_b]) AS doc_id FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme) m
USING (doc_id)
ORDER BY doc_id
"""


def threshold_sweep(
    connection: Connection, config: Config, scheme: str, thresholds: Iterable[float]
) -> list[dict[str, Any]]:
    """Return what thresholds from the configured one on would remove, from the verified pairs of a band scheme.

    A row a threshold: pairs, groups, removed documents and their share of all, the largest group. A lower threshold
    than the configured one cannot be told: its pairs were never looked for. Raises :class:`UserError` when none was.
    """
    from winnow.dedup.keepers import assign_keepers

    settings = config.duplicates
    total = (connection.execute("SELECT count(*) FROM documents").fetchone() or (0,))[0]
    wanted = {"scheme": scheme}
    judged = connection.execute("SELECT 1 FROM bands WHERE scheme = $scheme LIMIT 1", wanted).fetchone()
    if not judged:
        raise UserError("no document is compared as duplicates.* is configured now: run `winnow run` first")
    pairs = connection.execute(PAIRS, wanted | {"least": settings.threshold}).to_arrow_table()
    members = connection.execute(MEMBERS, wanted).to_arrow_table()
    ids = ids_to_numpy(members["doc_id"])
    keys = ids_as_keys(ids)
    edges = np.stack([np.searchsorted(keys, ids_as_keys(ids_to_numpy(pairs[side]))) for side in ("doc_a", "doc_b")], 1)
    similarity = pairs["similarity"].to_numpy()
    priority = priority_of(members["source"], source_priorities(config))
    characters = members["characters"].to_numpy()
    rows = []
    for threshold in sorted({settings.threshold, *(one for one in thresholds if one >= settings.threshold)}):
        kept = similarity >= threshold
        keepers = assign_keepers(ids, edges[kept], similarity[kept], priority, characters)
        removed = len(keepers.duplicates)
        groups = len(np.unique(keepers.keeper[keepers.duplicates]))
        rows.append(
            {
                "threshold": threshold,
                "pairs": int(kept.sum()),
                "groups": groups,
                "removed": removed,
                "share": round(removed / total, 4) if total else 0.0,
                "largest group": int(keepers.group_size.max(initial=1)),
            }
        )
    return rows
