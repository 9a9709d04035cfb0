"""Text parts that hold shards which are replaced or withdrawn: written anew without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.store.parts import Part
from winnow.store.store import Store, add_parts

if TYPE_CHECKING:
    from winnow.store.store import Connection


def rewrite_parts(store: Store, affected: pa.Table) -> dict[str, list[Part]]:
    """Write the parts that hold affected shards anew without them; returns old digest -> new parts (maybe none)."""
    with store.read() as connection:
        connection.register("affected", affected)
        old = parts_of_affected(connection)
    drop = set(affected["shard"].to_pylist())
    rewritten: dict[str, list[Part]] = {}
    for part in old:
        with pq.ParquetFile(store.part_path("texts", part)) as file:
            rewritten[part] = store.write_parts(
                "texts",
                (
                    rows.filter(pa.array([shard not in drop for shard in rows["shard"].to_pylist()], pa.bool_()))
                    for rows in (pa.Table.from_batches([batch]) for batch in file.iter_batches())
                ),
            )
    return rewritten


def parts_of_affected(connection: Connection) -> list[str]:
    """Return the digests of the parts that hold texts of the shards in the relation ``affected``, sorted."""
    rows = connection.execute(
        "SELECT DISTINCT unnest(parts) AS part FROM shards SEMI JOIN affected USING (shard) ORDER BY part"
    ).fetchall()
    return [part for (part,) in rows]


def replace_parts(connection: Connection, rewritten: dict[str, list[Part]]) -> None:
    """Put the rewritten parts in the place of the old ones, in the list of parts and with the shards they hold."""
    for old, parts in rewritten.items():
        connection.execute("DELETE FROM parts WHERE part = $part", {"part": old})
        add_parts(connection, parts)
        new = [part.digest for part in parts]
        connection.execute(
            "UPDATE shards SET parts = list_concat(list_filter(parts, lambda p: p <> $old), $new)"
            " WHERE list_contains(parts, $old)",
            {"old": old, "new": new},
        )


def parts_by_shard(store: Store, parts: list[Part]) -> dict[str, list[str]]:
    """Return the digests of the parts that hold each shard's texts."""
    holders: dict[str, list[str]] = {}
    for part in parts:
        shards = pq.read_table(store.part_path("texts", part.digest), columns=["shard"])["shard"].unique().to_pylist()
        for shard in shards:
            holders.setdefault(shard, []).append(part.digest)
    return holders
