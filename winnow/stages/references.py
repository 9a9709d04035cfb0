"""Reference and evaluation sets in the store."""

from __future__ import annotations

from collections.abc import Iterable
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
    digests = [found.digest for found in sets]
    connection.execute(
        "DELETE FROM reference_items WHERE NOT list_contains($digests, digest)", {"digests": digests or [""]}
    )
    for table in OVERLAP_TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE NOT list_contains($names, evaluation_set)",  # noqa: S608
            {"names": names or [""]},
        )
    connection.execute(
        "DELETE FROM judged WHERE starts_with(stage, $prefix) AND NOT list_contains($stages, stage)",
        {"prefix": _stage(""), "stages": [_stage(name) for name in names] or [""]},
    )
    # Overlap names items by their place: items that are there stay as they are, whatever the order of the file is now.
    written = {one for (one,) in connection.execute("SELECT DISTINCT digest FROM reference_items").fetchall()}
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
        for name, kind in (("question", pa.string()), ("answers", pa.list_(pa.string())), ("passage", pa.string())):
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(len(rows), kind))
        insert(
            connection,
            "reference_items",
            rows.append_column("digest", pa.array([found.digest] * len(rows), pa.string())),
        )


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
