"""The bench of the estimators between library and store: the bank among the artifacts, the leaderboard as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.config import Encoder
from winnow.home import Home
from winnow.store.store import insert, now

if TYPE_CHECKING:
    from winnow.attribution.bench import Prepared
    from winnow.attribution.leaderboard import Row
    from winnow.store.store import Connection

TABLE = "attribution_bench"
KEY = ("bench", "bank", "estimator", "seed", "runs", "checkpoints")


def open_bench(
    home: Home, name: str, encoder: Encoder, runs: int = 1, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Return a bench whose bank lies in the home's artifacts; what it lacks is trained now, a process a core."""
    from winnow.attribution.bench import get_bench, prepare

    return prepare(
        get_bench(name),
        bench_folder(home),
        runs=runs,
        workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        encode=_encode(home, encoder),
        progress=progress,
    )


def bench_folder(home: Home) -> Path:
    """Return the folder of the banks."""
    return home.artifacts / TABLE


def replace_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Write the rows of a leaderboard; earlier ones of the same key go."""
    for row in rows:
        connection.execute(
            "DELETE FROM attribution_bench WHERE bench = $bench AND bank = $bank AND estimator = $estimator"
            " AND seed = $seed AND runs = $runs AND checkpoints = $checkpoints",
            {name: getattr(row, name) for name in KEY},
        )
    measured = now()
    insert(connection, TABLE, pa.Table.from_pylist([{**row.record(), "measured_at": measured} for row in rows]))


def _encode(home: Home, settings: Encoder) -> Callable[[Sequence[str]], np.ndarray]:
    """Return the configured encoder as a function, loaded when first asked."""

    def run(texts: Sequence[str]) -> np.ndarray:
        from winnow.embed.encoder import encode, load_encoder

        local = home.resolve(settings.name)
        loaded = load_encoder(str(local) if local.is_dir() else settings.name, settings.dtype, settings.max_tokens)
        return encode(loaded, texts)

    return run
