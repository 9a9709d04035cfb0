"""Reference and evaluation sets in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.contamination.sets import ItemSet
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
    """Make these the store's sets; ``reference_sets`` lists exactly the configured ones."""
    connection.execute("DELETE FROM reference_sets")
    connection.execute("DELETE FROM reference_items")
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
        rows = found.items.append_column("item", pa.array(np.arange(len(found.items))))
        insert(
            connection,
            "reference_items",
            rows.append_column("digest", pa.array([found.digest] * len(rows), pa.string())),
        )


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
