"""``scores_wide``: a row a live document with its current judgements side by side, one column a scorer.

Which scores are current: those of ``influence`` by the influence model of the newest manifest; of any other scorer,
among its (version, checkpoint, reference), first those at the newest manifest's checkpoint or at none, then the one
whose part was added last, then the greatest by name. A scorer whose name is no plain word, or that of another column,
has none.

Beside a million documents, the scores of twenty scorers are twenty million rows: each part is read once and its scores
are put to their documents by binary search in the sorted ids. Where these columns would take more than a quarter of
``store.memory_limit``, DuckDB does it by grouping, slower, spilling to disk.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.identity import ids_to_numpy
from winnow.store.connections import quoted
from winnow.store.dictionary import SCORES_WIDE as COLUMNS
from winnow.store.storage import PartStorage

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

THREADS = 4
NAME = re.compile(r"[a-z][a-z0-9_]*")
KEYS = ("scorer", "version", "checkpoint", "reference")
Key = tuple[str | None, ...]
"""scorer, version, checkpoint, reference"""
RESERVED = {name for name, _, _ in COLUMNS}


@dataclass(frozen=True)
class Column:
    """A column of ``scores_wide``: one scorer's at one version, checkpoint and reference; ``parts`` hold its scores."""

    scorer: str
    version: str | None
    checkpoint: str | None
    reference: str | None
    parts: tuple[str, ...]

    @property
    def meaning(self) -> str:
        place = f", checkpoint {self.checkpoint}" if self.checkpoint else ""
        return f"score by {self.scorer}, version {self.version}{place}, see `scores`; positive is better"

    @property
    def condition(self) -> str:
        """Return the SQL condition that tells its rows in ``scores``."""
        values = {name: getattr(self, name) for name in KEYS}
        return " AND ".join(
            f"{name} IS NULL" if value is None else f"{name} = '{quoted(value)}'" for name, value in values.items()
        )


def current_columns(connection: Connection, storage: PartStorage, live: Sequence[str]) -> list[Column]:
    """Return the columns that are current, influence first, the others by name.

    ``connection`` has the tables ``parts``, ``manifests``; ``live`` are the digests of the parts of ``scores``.
    """
    found = connection.execute(
        "SELECT checkpoint, influence_model FROM manifests ORDER BY len(version) DESC, version DESC LIMIT 1"
    ).fetchone()
    checkpoint, model = found or (None, None)
    added = dict(connection.execute("SELECT part, added_at FROM parts WHERE kind = 'scores'").fetchall())
    holders: dict[Key, list[str]] = {}
    for part, key in _keys_by_part(connection, {storage.uri("scores", part): part for part in live}):
        holders.setdefault(key, []).append(part)

    def rank(key: Key) -> tuple[Any, ...]:
        at_checkpoint = not key[2] or key[2] == checkpoint
        return at_checkpoint, max(added[part] for part in holders[key]), tuple(value or "" for value in key)

    chosen: dict[str, Key] = {}
    for key in sorted(holders, key=rank):
        scorer = key[0] or ""
        if scorer == "influence":
            if key[1] == model:
                chosen[scorer] = key
        elif NAME.fullmatch(scorer) and scorer not in RESERVED:
            chosen[scorer] = key
        else:
            log.warning("scores_wide has no column for the scorer %r: its name is no plain word, or taken", scorer)
    return [
        Column(scorer, key[1], key[2], key[3], tuple(sorted(holders[key])))
        for scorer, key in sorted(chosen.items(), key=lambda item: (item[0] != "influence", item[0]))
    ]


def _keys_by_part(connection: Connection, parts: Mapping[str, str]) -> list[tuple[str, Key]]:
    """Return which (scorer, version, checkpoint, reference) each part holds: from statistics, where these suffice."""
    if not parts:
        return []
    constant: dict[str, dict[str, str | None]] = {}
    mixed: set[str] = set()
    for uri, column, low, high, exact, nulls, values in connection.execute(
        """
        SELECT file_name, path_in_schema, min(stats_min_value), max(stats_max_value),
               bool_and(coalesce(min_is_exact, true) AND coalesce(max_is_exact, true)
                        AND (stats_min_value IS NOT NULL OR stats_null_count = num_values)),
               sum(stats_null_count), sum(num_values)
        FROM parquet_metadata($parts) WHERE list_contains($keys, path_in_schema) GROUP BY ALL
        """,
        {"parts": list(parts), "keys": list(KEYS)},
    ).fetchall():
        if exact and (nulls == values or (nulls == 0 and low == high)):
            constant.setdefault(uri, {})[column] = low
        else:
            mixed.add(uri)
    found = [
        (parts[uri], tuple(known[name] for name in KEYS)) for uri, known in constant.items() if len(known) == len(KEYS)
    ]
    mixed |= set(parts) - {uri for uri, known in constant.items() if len(known) == len(KEYS)}
    for uri in sorted(mixed):
        rows = connection.execute(
            "SELECT DISTINCT scorer, version, checkpoint, reference FROM read_parquet($part)", {"part": uri}
        ).fetchall()
        found += [(parts[uri], row) for row in rows]
    return found


def grouping_query(columns: Sequence[Column], storage: PartStorage) -> str:
    """Return the SELECT of doc_id and a column a scorer that DuckDB computes by grouping the scores."""
    if not columns:
        return "SELECT NULL::UUID AS doc_id WHERE false"
    uris = sorted({storage.uri("scores", part) for column in columns for part in column.parts})
    values = ", ".join(f'max(score) FILTER ({column.condition}) AS "{column.scorer}"' for column in columns)
    files = ", ".join(f"'{quoted(uri)}'" for uri in uris)
    wanted = " OR ".join(f"({column.condition})" for column in columns)
    return f"SELECT doc_id, {values} FROM read_parquet([{files}]) WHERE {wanted} GROUP BY doc_id"  # noqa: S608


def placed_scores(connection: Connection, columns: Sequence[Column], storage: PartStorage) -> pa.Table:
    """Return doc_id of every live document, sorted, and a column a scorer, null where it has no score.

    Memory: 9 bytes a document and column, and ``THREADS`` parts.
    """
    documents = connection.execute("SELECT doc_id FROM documents ORDER BY doc_id").to_arrow_table()["doc_id"]
    places = _Places(ids_to_numpy(documents))
    with ThreadPoolExecutor(THREADS) as pool:
        placed = list(pool.map(lambda column: _placed(places, column, storage), columns))
    return pa.table([documents, *placed], names=["doc_id", *(column.scorer for column in columns)])


def _placed(places: _Places, column: Column, storage: PartStorage) -> pa.Array:
    """Return the scores of a column, float64 ``[N]`` in the order of the documents."""
    scores = np.zeros(len(places.high))
    present = np.zeros(len(places.high), bool)
    for part in column.parts:
        ids, found = _scores_of(storage, part, column)
        where = places.of(ids)
        known = where >= 0
        where, found = where[known], found[known]
        again = present[where]
        if again.any() or _repeated(where):  # a document that was scored twice: the greater counts
            scores[where[~again]] = -np.inf
            np.maximum.at(scores, where, found)
        else:
            scores[where] = found
        present[where] = True
    return pa.array(scores, mask=~present)


def _repeated(where: np.ndarray) -> bool:
    return not (np.diff(where) > 0).all() and len(np.unique(where)) < len(where)


def _scores_of(storage: PartStorage, part: str, column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids (uint8 ``[N, 16]``) and scores (float64 ``[N]``) that a part holds for a column."""
    import pyarrow.compute as pc

    with storage.open("scores", part) as file:
        wanted = {name: getattr(column, name) for name in KEYS if not _constant(file, name)}
        rows = file.read(columns=["doc_id", "score", *wanted])
    keep = pc.is_valid(rows["score"])
    for name, value in wanted.items():
        same = pc.is_null(rows[name]) if value is None else pc.fill_null(pc.equal(rows[name], value), False)
        keep = pc.and_(keep, same)
    if not pc.all(keep).as_py():
        rows = rows.filter(keep)
    return ids_to_numpy(rows["doc_id"]), rows["score"].to_numpy()


def _constant(file: Any, name: str) -> bool:
    """Return whether the statistics say that a column of a Parquet file has one value."""
    position = file.schema_arrow.get_field_index(name)
    seen: set[str | None] = set()
    for group in range(file.metadata.num_row_groups):
        chunk = file.metadata.row_group(group).column(position)
        statistics = chunk.statistics
        if statistics is None:
            return False
        if statistics.null_count == chunk.num_values:
            seen.add(None)
        elif statistics.has_min_max and statistics.null_count == 0 and statistics.min == statistics.max:
            seen.add(statistics.min)
        else:
            return False
    return len(seen) <= 1


class _Places:
    """Finds the rows of ids among sorted ones, by their first 8 bytes and, where these are equal, by the others."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids, (self.high, self.low) = ids, _halves(ids)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Return the row of each id (uint8 ``[N, 16]``) as int64 ``[N]``, -1 where it is not among them."""
        if not len(ids) or not len(self.high):
            return np.full(len(ids), -1)
        first = int(np.searchsorted(self.high, _halves(ids[:1])[0][0]))
        if np.array_equal(self.ids[first : first + len(ids)], ids):  # the usual case: sorted, and all are live
            return np.arange(first, first + len(ids))
        high, low = _halves(ids)
        where = np.searchsorted(self.high, high)
        last = len(self.high) - 1
        while True:
            inside = np.minimum(where, last)
            same_start = (where <= last) & (self.high[inside] == high)
            further = same_start & (self.low[inside] != low)
            if not further.any():
                return np.where(same_start, where, -1)
            where = where + further


def _halves(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last 8 bytes of ids as uint64 ``[N]`` that sort as the bytes do."""
    words = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2).astype(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def wide_query(columns: Sequence[Column], scored: str) -> str:
    """Return the SELECT of ``scores_wide``; ``scored`` joins ``documents`` with ``s``: doc_id and a column a scorer."""
    names = [column.scorer for column in columns]
    scorers = "".join(f', s."{name}"' for name in names if name != "influence")
    checkpoint = next((column.checkpoint for column in columns if column.scorer == "influence"), None)
    influence, where = "NULL::DOUBLE", "NULL::VARCHAR"
    if "influence" in names:
        influence = "s.influence"
        where = f"CASE WHEN s.influence IS NOT NULL THEN '{quoted(checkpoint or '')}' END"
    return f"""
        SELECT doc_id, source, {influence} AS influence, {where} AS influence_checkpoint,
               gopher_passed, c.cluster, d.keeper_id, coalesce(k.contaminated, false) AS contaminated{scorers}
        FROM {scored}
        LEFT JOIN signals USING (doc_id)
        LEFT JOIN clusters c USING (doc_id)
        LEFT JOIN (SELECT doc_id, keeper_id FROM duplicates WHERE kind = 'near') d USING (doc_id)
        LEFT JOIN (
            SELECT doc_id, bool_or(contaminated) AS contaminated FROM contamination GROUP BY doc_id
        ) k USING (doc_id)
    """  # noqa: S608


def described(columns: Sequence[Column]) -> tuple[tuple[str, str, str], ...]:
    """Return the columns of ``scores_wide`` with type and meaning, in their order."""
    scorers = ((column.scorer, "DOUBLE", column.meaning) for column in columns if column.scorer != "influence")
    return (*COLUMNS, *scorers)


def grouped_wide_query(columns: Sequence[Column], storage: PartStorage) -> str:
    """Return the SELECT of ``scores_wide`` in which DuckDB groups the scores."""
    return wide_query(columns, f"documents LEFT JOIN ({grouping_query(columns, storage)}) s USING (doc_id)")


def make_scores_wide(connection: Connection, columns: Sequence[Column], storage: PartStorage) -> None:
    """Create the table ``scores_wide`` in a database that has the tables it is made of."""
    if not _fits(connection, len(columns)):
        connection.execute(f"CREATE TABLE scores_wide AS {grouped_wide_query(columns, storage)}")
        return
    connection.register("placed_scores", placed_scores(connection, columns, storage))
    # The wide side is streamed past the narrow ones: it holds every live document.
    query = wide_query(columns, "placed_scores s JOIN documents USING (doc_id)")
    connection.execute(f"CREATE TABLE scores_wide AS {query}")
    connection.unregister("placed_scores")


def _fits(connection: Connection, columns: int) -> bool:
    counted, limit = connection.execute(
        "SELECT (SELECT count(*) FROM documents), parse_formatted_bytes(current_setting('memory_limit'))"
    ).fetchone() or (0, 0)
    return bool(9 * counted * (columns + 4) <= limit / 4)
