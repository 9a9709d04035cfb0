"""Stage keys: a stage whose inputs, method and settings were already worked through is skipped, and says so.

The key is recorded in the transaction that writes the stage's rows, so a killed run leaves either both or neither.
"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

from winnow.identity import digest
from winnow.store.store import Store, insert_row, now

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection


def stage_key(stage: str, version: str, **inputs: Any) -> str:
    """Return the key of a stage: digest of its name, the version of its method, its inputs and settings."""
    return digest({"stage": stage, "version": version, "inputs": inputs})


class Stage:
    """One stage in one run: asks whether it is done, times it, and records it with its rows.

    ``done`` is the recorded output (a digest or a name) when the key is already in the store, else None.
    """

    def __init__(self, store: Store, stage: str, run_id: str, key: str = "", partition: str = "") -> None:
        self.store, self.stage, self.run_id, self.key, self.partition = store, stage, run_id, key, partition
        self._started = time.monotonic()
        self.done: str | None = None
        self.processed = 0
        self.seconds = 0.0
        if key:
            rows = store.query(
                "SELECT output FROM stage_keys WHERE stage = $stage AND partition = $partition AND key = $key",
                {"stage": stage, "partition": partition, "key": key},
            )
            self.done = rows[0][0] if rows else None

    def finish(
        self, connection: Connection, processed: int, output: str = "", flops: float = 0.0, bytes: int | None = None
    ) -> None:
        """Record cost and key inside the transaction that writes the stage's rows."""
        self.processed = processed
        self.seconds = time.monotonic() - self._started
        if self.key:
            insert_row(
                connection,
                "stage_keys",
                stage=self.stage,
                partition=self.partition,
                key=self.key,
                output=output,
                finished_at=now(),
            )
        insert_row(
            connection,
            "costs",
            stage=self.stage,
            partition=self.partition,
            run_id=self.run_id,
            key=self.key,
            processed=processed,
            bytes=bytes,
            seconds=self.seconds,
            peak_mb=max(map(_peak_mb, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))),
            flops=flops,
            finished_at=now(),
        )


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def forget_keys(connection: Connection, *stages: str) -> None:
    """Forget that these stages were done, inside the transaction that changes the rows they would write.

    A stage that keeps one state of a table, not one for each key, is done only while its last key is the newest word.
    """
    connection.execute("DELETE FROM stage_keys WHERE list_contains($stages, stage)", {"stages": list(stages)})


def pinned(store: Store, stage: str, key: str) -> str | None:
    """Return the output of a stage that was fitted once for this key, else None."""
    rows = store.query(
        "SELECT output FROM stage_keys WHERE stage = $stage AND key = $key", {"stage": stage, "key": key}
    )
    return rows[0][0] if rows else None
