"""Near duplicates in the store: the keeper of every document, derived from all verified pairs.

What is derived is of one state: :func:`require_grouped` refuses to go on from another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.config import Config
from winnow.dedup.positions import Positions
from winnow.errors import UserError
from winnow.identity import digest, ids_from_numpy, ids_to_numpy
from winnow.stages.corpus_digest import stored_digest
from winnow.stages.duplicate_pairing import pairing_method
from winnow.stages.priorities import priority_of, source_priorities
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Store, insert

if TYPE_CHECKING:
    from winnow.dedup.sketch import SketchPlan

STAGE = "duplicates"
GROUPING_VERSION = "2"


def grouping_key(store: Store, plan: SketchPlan, priorities: Mapping[str, int]) -> str:
    """Return the key of the stage ``duplicates``."""
    with store.read() as connection:
        corpus = stored_digest(connection)
    return stage_key(STAGE, GROUPING_VERSION, corpus=corpus, pairing=pairing_method(plan), priorities=dict(priorities))


def require_grouped(store: Store, config: Config) -> None:
    """Raise :class:`UserError` when near duplicates are not those of the present documents and configuration."""
    from winnow.dedup.sketch import make_plan

    key = grouping_key(store, make_plan(config.duplicates), source_priorities(config))
    if Stage(store, STAGE, "", key).done is None:
        raise UserError(
            "near duplicates are not those of the present documents and configuration: run `winnow run`, or "
            f"materialize `{STAGE}`"
        )


PAIRS = "SELECT doc_a, doc_b, similarity FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme"
MEMBERS = """
SELECT doc_id, source, characters, dup_count FROM documents
SEMI JOIN (
    SELECT doc_a AS doc_id FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme
    UNION ALL
    SELECT doc_b FROM duplicate_pairs WHERE kind = 'near' AND scheme = $scheme
) m USING (doc_id)
ORDER BY doc_id
"""
COPIES = "SELECT doc_id, dup_count FROM documents WHERE dup_count > 1 ORDER BY doc_id"


def group_duplicates(store: Store, stage: Stage, plan: SketchPlan, priorities: Mapping[str, int]) -> pa.Table:
    """Give every document its keeper and write the rows of kind exact and near of ``duplicates`` anew; return the near.

    ``priorities`` are the sources' (smaller wins, 0 where one is not named).
    """
    from winnow.dedup.keepers import assign_keepers

    with store.read() as connection:
        pairs = connection.execute(PAIRS, {"scheme": plan.scheme}).to_arrow_table()
        members = connection.execute(MEMBERS, {"scheme": plan.scheme}).to_arrow_table()
        copies = connection.execute(COPIES).to_arrow_table()
        (count,) = connection.execute("SELECT count(*) FROM documents").fetchone() or (0,)
        corpus = stored_digest(connection)
    ids = ids_to_numpy(members["doc_id"])
    positions = Positions(ids)
    edges = np.stack([positions.of(ids_to_numpy(pairs[side])) for side in ("doc_a", "doc_b")], axis=1)
    keepers = assign_keepers(
        ids,
        edges,
        pairs["similarity"].to_numpy(),
        priority_of(members["source"], priorities),
        members["characters"].to_numpy(),
    )
    occurrences = np.zeros(len(ids), np.int64)
    np.add.at(occurrences, keepers.keeper, members["dup_count"].to_numpy())
    state = {
        "pairing": pairing_method(plan),
        "corpus": corpus,
        "copies": _digest_of(copies),
        "method": GROUPING_VERSION,
    }
    version = digest({**state, "priorities": dict(priorities)})[:32]
    near = pa.table(
        {
            "doc_id": members["doc_id"],
            "kind": pa.repeat("near", len(ids)),
            "component": ids_from_numpy(ids[keepers.component]),
            "keeper_id": ids_from_numpy(ids[keepers.keeper]),
            "similarity": keepers.similarity,
            "group_size": keepers.group_size.astype(np.int64),
            "occurrences": occurrences[keepers.keeper],
            "version": pa.repeat(version, len(ids)),
        }
    )
    exact = pa.table(
        {
            "doc_id": copies["doc_id"],
            "kind": pa.repeat("exact", len(copies)),
            "component": copies["doc_id"],
            "keeper_id": copies["doc_id"],
            "similarity": np.ones(len(copies)),
            "group_size": copies["dup_count"],
            "occurrences": copies["dup_count"],
            "version": pa.repeat(version, len(copies)),
        }
    )
    with store.write() as connection:
        connection.execute("DELETE FROM duplicates WHERE kind IN ('exact', 'near')")
        insert(connection, "duplicates", near)
        insert(connection, "duplicates", exact)
        forget_keys(connection, STAGE)
        stage.finish(connection, count, output=plan.scheme)
    return near


def _digest_of(copies: pa.Table) -> str:
    hasher = hashlib.sha256(ids_to_numpy(copies["doc_id"]).tobytes())
    hasher.update(copies["dup_count"].to_numpy().astype("<i8").tobytes())
    return hasher.hexdigest()
