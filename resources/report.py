"""What an asset shows in the UI: rows, schema, timing, and a picture where it helps."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from winnow.stages.progress import Count
from winnow.store import Store
from winnow.store.schema import tables
from winnow.store.stage import Stage

OBSERVE_SECONDS = 30.0


def materialized(
    store: Store, stage: Stage, table: str, metadata: Mapping[str, Any] | None = None, version: str = ""
) -> dg.MaterializeResult:
    """Report an asset whose rows are ``table``: its row count and columns, what was processed, how long it took."""
    return dg.MaterializeResult(
        asset_key=table,
        data_version=dg.DataVersion(version) if version else None,
        metadata={
            "dagster/row_count": row_count(store, table),
            "dagster/column_schema": column_schema(table),
            "processed": stage.processed,
            "seconds": round(stage.seconds, 2),
            **(metadata or {}),
        },
    )


def skipped(context: dg.AssetExecutionContext, store: Store, table: str, why: str) -> dg.MaterializeResult:
    """Say that there was nothing to do, and why."""
    context.log.info(f"{table}: nothing to do, {why}")
    return dg.MaterializeResult(
        asset_key=table,
        metadata={
            "dagster/row_count": row_count(store, table),
            "dagster/column_schema": column_schema(table),
            "processed": 0,
            "skipped": why,
        },
    )


def live(context: dg.AssetExecutionContext, asset: str) -> Callable[[Count], None]:
    """Return what shows a stage's live counters: in the run's log, and every half minute with the asset in the UI."""
    last = time.monotonic()

    def report(count: Count) -> None:
        nonlocal last
        context.log.info(str(count))
        if time.monotonic() - last >= OBSERVE_SECONDS:
            last = time.monotonic()
            metadata = {
                "documents": count.documents,
                "quarantined": count.quarantined,
                "bytes": count.done,
                "bytes in all": count.total,
                "MB/s": round(count.rate / 1e6, 1),
                "seconds left": round(count.left or 0),
            }
            context.log_event(dg.AssetObservation(asset, metadata=metadata))

    return report


def row_count(store: Store, table: str) -> int:
    if tables()[table].parts:
        return int(store.query("SELECT coalesce(sum(rows), 0) FROM parts WHERE kind = $kind", {"kind": table})[0][0])
    return int(store.query(f"SELECT count(*) FROM {tables()[table].name}")[0][0])  # noqa: S608


def column_schema(table: str) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[dg.TableColumn(name, kind, description=meaning) for name, kind, meaning in tables()[table].columns]
    )


def picture(png: bytes) -> dg.MetadataValue:
    """Show a small PNG inline; it is kept in the event log, so keep it to tens of kilobytes."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")


def table_of(rows: list[dict[str, Any]]) -> dg.MetadataValue:
    """Show rows as a table."""
    records = [
        dg.TableRecord(
            {
                key: value if isinstance(value, int | float | str | bool) or value is None else str(value)
                for key, value in row.items()
            }
        )
        for row in rows
    ]
    if not records:
        return dg.MetadataValue.text("no rows")
    return dg.MetadataValue.table(records=records)
