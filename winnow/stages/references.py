"""Reference and evaluation sets in the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.contamination.judge import Overlap
from winnow.contamination.sets import ItemSet
from winnow.errors import UserError
from winnow.store.judgements import mark_judged, unjudged
from winnow.store.store import Store, insert, insert_row

if TYPE_CHECKING:
    from winnow.store.store import Connection


OVERLAP_TABLES = ("contamination", "contamination_items", "contamination_ngrams")


CONTENT = ("part", "text", "question", "answers", "passage")
"""Columns of ``reference_items`` that tell items apart."""


@dataclass(frozen=True)
class StoredSet:
    """A set that is in the store: its name, digest and items by part."""

    name: str
    kind: str
    digest: str
    items: pa.Table

    def texts(self, part: str | None = None) -> list[str]:
        pairs = zip(self.items["part"].to_pylist(), self.items["text"].to_pylist(), strict=True)
        return [text for own, text in pairs if part in (None, own)]


def digests_by_name(sets: Sequence[ItemSet | StoredSet]) -> str:
    """Return which items each set has, as one text for a stage's record."""
    return ",".join(sorted(f"{found.name}:{found.digest}" for found in sets))


def write_sets(connection: Connection, sets: list[ItemSet]) -> None:
    """Make these the store's sets; what documents share with a set that is gone, or has other items now, goes with it.

    Items keep their places, by which overlap names them, as long as the set has the same ones, whatever their order in
    the file; their ids and topics are the file's. Raises :class:`UserError` when two sets have one name, since overlap
    is stored by name.
    """
    names = [found.name for found in sets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two sets are called '{name}': rename one in contamination.evaluation_sets of winnow.toml")
    known = dict(connection.execute("SELECT reference, digest FROM reference_sets").fetchall())
    same = [found.name for found in sets if known.get(found.name) == found.digest] or [""]
    connection.execute("DELETE FROM reference_sets")
    digests = [found.digest for found in sets]
    connection.execute(
        "DELETE FROM reference_items WHERE NOT list_contains($digests, digest)", {"digests": digests or [""]}
    )
    for table in OVERLAP_TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE NOT list_contains($names, evaluation_set)",  # noqa: S608
            {"names": same},
        )
    connection.execute(
        "DELETE FROM judged WHERE starts_with(stage, $prefix) AND NOT list_contains($stages, stage)",
        {"prefix": _stage(""), "stages": [_stage(name) for name in same]},
    )
    written: set[str] = set()
    for found in sets:
        insert_row(
            connection,
            "reference_sets",
            reference=found.name,
            kind=found.kind,
            digest=found.digest,
            selecting_items=found.count("selecting"),
            judging_items=found.count("judging"),
            removed_items=found.removed,
            path=found.path,
        )
        if found.digest in written:  # the same items under another name
            continue
        written.add(found.digest)
        rows = found.items
        for name, kind in (("question", pa.string()), ("answers", pa.list_(pa.string())), ("passage", pa.string())):
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(len(rows), kind))
        rows = rows.append_column("item", _places(connection, found.digest, rows))
        connection.execute("DELETE FROM reference_items WHERE digest = $digest", {"digest": found.digest})
        insert(
            connection,
            "reference_items",
            rows.append_column("digest", pa.array([found.digest] * len(rows), pa.string())),
        )


def _places(connection: Connection, digest: str, rows: pa.Table) -> pa.Array:
    """Return the place int64 of each item: the one that it has in the store, else that in the file."""
    stored = connection.execute(
        "SELECT item, part, text, question, answers, passage FROM reference_items WHERE digest = $digest"
        " ORDER BY item DESC",
        {"digest": digest},
    ).to_arrow_table()
    if not len(stored):
        return pa.array(np.arange(len(rows)))
    places: dict[str, list[int]] = {}
    for row in stored.to_pylist():
        places.setdefault(repr([row[name] for name in CONTENT]), []).append(row["item"])
    return pa.array([places[repr(list(row.values()))].pop() for row in rows.select(CONTENT).to_pylist()], pa.int64())


def count_uncompared(store: Store, name: str, version: str) -> int:
    """Return how many documents :func:`uncompared` would give."""
    return store.query(
        "SELECT count(*) FROM documents"
        " ANTI JOIN (SELECT doc_id FROM judged WHERE stage = $stage AND version = $version) seen USING (doc_id)",
        {"stage": _stage(name), "version": version},
    )[0][0]


def uncompared(store: Store, name: str, version: str) -> pa.Table:
    """Return the documents that no overlap with the set ``name`` was looked for in, under this version, by doc_id."""
    return unjudged(store, _stage(name), version)


def write_overlap(
    connection: Connection, name: str, version: str, documents: pa.Table, overlap: Iterable[Overlap]
) -> None:
    """Store what ``documents`` share with the set ``name``; rows of its other versions go, and that they were made."""
    for table in OVERLAP_TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE evaluation_set = $name AND version <> $version",  # noqa: S608
            {"name": name, "version": version},
        )
    connection.execute(
        "DELETE FROM judged WHERE stage = $stage AND version <> $version", {"stage": _stage(name), "version": version}
    )
    for rows in overlap:
        insert(connection, "contamination", rows.documents)
        insert(connection, "contamination_items", rows.items)
        insert(connection, "contamination_ngrams", rows.ngrams.drop_columns(["method"]))
    mark_judged(connection, _stage(name), version, documents)


def _stage(name: str) -> str:
    return f"contamination:{name}"


def stored_sets(store: Store) -> list[StoredSet]:
    """Return every set of the store with its items in order, the reference first."""
    with store.read() as connection:
        sets = connection.execute(
            "SELECT reference, kind, digest FROM reference_sets ORDER BY kind DESC, reference"
        ).fetchall()
        return [
            StoredSet(
                name,
                kind,
                digest,
                connection.execute(
                    "SELECT item, item_id, part, topic, text, question, answers, passage FROM reference_items"
                    " WHERE digest = $digest ORDER BY item",
                    {"digest": digest},
                ).to_arrow_table(),
            )
            for name, kind, digest in sets
        ]


def stored_reference(store: Store) -> StoredSet:
    """Return the reference. Raises ``LookupError`` before ``reference_sets`` is materialized."""
    for found in stored_sets(store):
        if found.kind == "reference":
            return found
    raise LookupError("the store holds no reference: materialize reference_sets first")
