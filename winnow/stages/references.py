"""Reference and evaluation sets in the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.contamination.sets import ItemSet
from winnow.errors import UserError
from winnow.store.judgements import mark_judged, unjudged
from winnow.store.store import Store, insert, insert_row

if TYPE_CHECKING:
    from winnow.store.store import Connection


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


def write_sets(connection: Connection, sets: list[ItemSet]) -> None:
    """Make these the store's sets; what documents share with a set that is no longer one goes with it.

    Raises :class:`UserError` when two sets have one name, since overlap is stored by name.
    """
    names = [found.name for found in sets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two sets are called '{name}': rename one in contamination.evaluation_sets of winnow.toml")
    connection.execute("DELETE FROM reference_sets")
    connection.execute("DELETE FROM reference_items")
    connection.execute(
        "DELETE FROM contamination WHERE NOT list_contains($names, evaluation_set)", {"names": names or [""]}
    )
    connection.execute(
        "DELETE FROM judged WHERE starts_with(stage, $prefix) AND NOT list_contains($stages, stage)",
        {"prefix": _stage(""), "stages": [_stage(name) for name in names] or [""]},
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
        rows = found.items.append_column("item", pa.array(np.arange(len(found.items))))
        insert(
            connection,
            "reference_items",
            rows.append_column("digest", pa.array([found.digest] * len(rows), pa.string())),
        )


def uncompared(store: Store, name: str, version: str) -> pa.Table:
    """Return the documents that no overlap with the set ``name`` was looked for in, under this version, by doc_id."""
    return unjudged(store, _stage(name), version)


def write_overlap(
    connection: Connection, name: str, version: str, documents: pa.Table, overlap: Iterable[pa.Table]
) -> None:
    """Store what ``documents`` share with the set ``name``; rows of its other versions go, and that they were made."""
    for statement, owner in (
        ("DELETE FROM contamination WHERE evaluation_set = $owner AND version <> $version", name),
        ("DELETE FROM judged WHERE stage = $owner AND version <> $version", _stage(name)),
    ):
        connection.execute(statement, {"owner": owner, "version": version})
    for rows in overlap:
        insert(connection, "contamination", rows)
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
                    "SELECT item, item_id, part, topic, text FROM reference_items WHERE digest = $digest ORDER BY item",
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
