"""A column of numbers by a user's own query: a reward, or a score, that only SQL knows how to ask for."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import UUID, ids_as_keys, ids_to_numpy


def sql_column(home: Home, sql: str, ids: np.ndarray) -> np.ndarray:
    """Return the number that ``sql`` gives for each document, float64 ``[N]``; NaN for null and where it has no row.

    ``sql`` is one SELECT of two columns, ``doc_id`` and a number, run as ``winnow sql`` runs it: on the published
    store, read-only, never part of another query. ``ids`` uint8 ``[N, 16]`` in any order. Raises :class:`UserError`
    when it fails, has other columns, gives a document twice, or knows none of ``ids``.
    """
    from winnow.store.asking import ask_table, open_for_questions

    with closing(open_for_questions(home)) as connection:
        rows = ask_table(connection, sql)
    told = ", ".join(f"{field.name} {field.type}" for field in rows.schema)
    if len(rows.column_names) != 2 or rows.column_names[0] != "doc_id" or rows.schema.field(0).type != UUID:
        raise UserError(f"the query gives {told}; expected two columns, doc_id (UUID) and a number")
    kind = rows.schema.field(1).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise UserError(f"the query gives {told}; expected a number in the second column")
    rows = rows.filter(rows["doc_id"].is_valid())
    given = ids_as_keys(ids_to_numpy(rows["doc_id"]))
    column = rows.column(1).cast(pa.float64())
    order = np.argsort(given)
    given, values = given[order], column.to_numpy()[order]
    if len(given) and (given[1:] == given[:-1]).any():
        twice = given[int(np.argmax(given[1:] == given[:-1]))].tobytes().hex()
        raise UserError(f"the query gives document {twice} more than once; aggregate it to one row a document")
    wanted = ids_as_keys(ids)
    place = np.minimum(np.searchsorted(given, wanted), max(len(given) - 1, 0))
    present = given[place] == wanted if len(given) else np.zeros(len(wanted), dtype=bool)
    if len(wanted) and not present.any():
        raise UserError(f"the query gives {len(given):,} documents, none of the {len(wanted):,} asked for")
    return np.where(present, values[place], np.nan) if len(given) else np.full(len(wanted), np.nan)
