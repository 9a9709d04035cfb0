"""What a checkpoint was trained on, as far as it is recorded, and the texts of it, from what is published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.stages.checkpoints import StoredCheckpoint, lineage
from winnow.stages.pool import VERDICTS
from winnow.store.store import load

if TYPE_CHECKING:
    from winnow.store.store import Connection

BATCH_ROWS = 1_024

RECORDED = """
SELECT doc_id, sum(repeats)::BIGINT AS times, bool_or(d.doc_id IS NULL)::INTEGER AS gone
FROM manifest_rows LEFT JOIN documents d USING (doc_id)
WHERE list_contains($manifests, version) GROUP BY doc_id ORDER BY doc_id
"""
POOL = f"{VERDICTS} SELECT doc_id, NULL::BIGINT AS times FROM verdicts WHERE stage IS NULL ORDER BY doc_id"  # noqa: S608
TEXTS = "SELECT doc_id, text FROM texts SEMI JOIN wanted_texts USING (doc_id)"


@dataclass(frozen=True)
class TrainedOn:
    """The documents to look for influence in: doc_id and times (how often trained on, null in a pool), by doc_id.

    ``manifests`` are those that the checkpoint and the ones before it were trained on; none: the documents are the
    pool's. ``unrecorded`` are the checkpoints of the line of which nothing is recorded; ``gone``: documents of the
    manifests that the store does not have any more.
    """

    documents: pa.Table
    manifests: tuple[str, ...]
    unrecorded: tuple[str, ...]
    gone: int = 0

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def ids(self) -> np.ndarray:
        """uint8 ``[N, 16]``"""
        return ids_to_numpy(self.documents["doc_id"])

    @property
    def summary(self) -> str:
        """What the documents are, in words."""
        if not self.manifests:
            return f"{len(self):,} documents of the pool, as it is not recorded what the checkpoint was trained on"
        several = "s" if len(self.manifests) > 1 else ""
        gone = f" ({self.gone:,} more are not in the store any more)" if self.gone else ""
        earlier = f"; what {', '.join(self.unrecorded)} was trained on is not recorded" if self.unrecorded else ""
        return f"{len(self):,} documents of manifest{several} {', '.join(self.manifests)}{gone}{earlier}"


def trained_on(connection: Connection, config: Config, checkpoint: StoredCheckpoint) -> TrainedOn:
    """Return the documents of the manifests that a checkpoint's line was trained on, or else those of the pool.

    The pool are the documents that no stage before the selection objects to. ``connection`` sees the published tables.
    Raises :class:`UserError` when there are none.
    """
    line = lineage(connection, checkpoint.name)
    known = {version for (version,) in connection.execute("SELECT version FROM manifests").fetchall()}
    manifests = tuple(dict.fromkeys(one.manifest for one in line if one.manifest in known and one.manifest))
    unrecorded = tuple(one.name for one in line if one.manifest not in known)
    if manifests:
        rows = connection.execute(RECORDED, {"manifests": list(manifests)}).to_arrow_table()
        documents = rows.filter(pc.equal(rows["gone"], 0)).select(["doc_id", "times"])
        found = TrainedOn(documents, manifests, unrecorded, len(rows) - len(documents))
    else:
        parameters = {"filter": config.quality.filter, "semantic": False}
        found = TrainedOn(connection.execute(POOL, parameters).to_arrow_table(), (), unrecorded)
    if not len(found):
        raise UserError(
            f"the published store has no document that checkpoint '{checkpoint.name}' can have been trained on: run "
            "`winnow run` first"
        )
    return found


def texts_of_documents(connection: Connection, ids: np.ndarray) -> Iterator[pa.Table]:
    """Yield (doc_id, text) of documents (uint8 ``[N, 16]``), some at a time, in whatever order the parts have them."""
    load(connection, "wanted_texts", pa.table({"doc_id": ids_from_numpy(ids)}))
    reader = connection.execute(TEXTS).to_arrow_reader(BATCH_ROWS)
    for batch in reader:
        yield pa.Table.from_batches([batch])
