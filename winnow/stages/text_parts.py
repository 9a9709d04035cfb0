"""Text parts that hold shards which are replaced or withdrawn: written anew without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from winnow.store.parts import Part
from winnow.store.store import Store, add_parts, unlist_parts

if TYPE_CHECKING:
    from winnow.stages.staging import ReadFile
    from winnow.store.store import Connection


BATCH_ROWS = 4_096
"""Rows of a part that are held at once."""


def rewrite_parts(store: Store, affected: pa.Table) -> dict[str, list[Part]]:
    """Write the parts that hold affected shards anew without them; returns old digest -> new parts (maybe none)."""
    with store.read() as connection:
        connection.register("affected", affected)
        old = parts_of_affected(connection)
    dropped = _of_shards(affected["shard"].to_pylist())
    return {part: written_without(store, part, dropped) for part in old}


def parts_of_affected(connection: Connection) -> list[str]:
    """Return the digests of the parts that hold texts of the shards in the relation ``affected``, sorted."""
    rows = connection.execute(
        "SELECT DISTINCT unnest(parts) AS part FROM shards SEMI JOIN affected USING (shard) ORDER BY part"
    ).fetchall()
    return [part for (part,) in rows]


def replace_parts(connection: Connection, rewritten: dict[str, list[Part]]) -> None:
    """Put the rewritten parts in the place of the old ones, in the list of parts and with the shards they hold."""
    unlist_parts(connection, "part IN (SELECT unnest($old))", {"old": list(rewritten)})
    add_parts(connection, [part for parts in rewritten.values() for part in parts])
    for old, parts in rewritten.items():
        new = [part.digest for part in parts]
        connection.execute(
            "UPDATE shards SET parts = list_concat(list_filter(parts, lambda p: p <> $old), $new)"
            " WHERE list_contains(parts, $old)",
            {"old": old, "new": new},
        )


def without_refused(store: Store, files: Iterable[ReadFile]) -> None:
    """Write parts that also hold texts of refused files anew without them, and give the others the new parts."""
    files = list(files)
    refused = {file.file.shard for file in files if file.unavailable is not None}
    spoiled = {part.digest for file in files if file.unavailable is not None for part in file.parts}
    shared = {part.digest for file in files if file.unavailable is None for part in file.parts} & spoiled
    anew = {part: written_without(store, part, _of_shards(refused)) for part in sorted(shared)}
    for file in files:
        if file.unavailable is None:
            file.parts = [new for part in file.parts for new in anew.get(part.digest, [part])]


def written_without(store: Store, part: str, dropped: Callable[[pa.RecordBatch], pa.Array]) -> list[Part]:
    """Write a text part's rows but those that ``dropped`` is true of (a boolean array a batch), streaming."""
    with store.storage.open("texts", part) as file:
        return store.write_parts(
            "texts",
            (pa.Table.from_batches([rows.filter(pc.invert(dropped(rows)))]) for rows in file.iter_batches(BATCH_ROWS)),
        )


def _of_shards(shards: Iterable[str]) -> Callable[[pa.RecordBatch], pa.Array]:
    wanted = pa.array(sorted(shards), pa.string())
    return lambda rows: pc.is_in(rows["shard"], wanted)
