"""The bench of the estimators between library and store: the bank among the artifacts, the leaderboard as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.attribution.run import Settings
from winnow.config import Encoder
from winnow.errors import UserError
from winnow.home import Home
from winnow.store.stage import stage_key
from winnow.store.store import insert, now

if TYPE_CHECKING:
    from winnow.attribution.bench import Prepared
    from winnow.attribution.leaderboard import Row
    from winnow.store.store import Connection

TABLE = "attribution_bench"
VERSION = "1"
KEY = ("bench", "bank", "estimator", "seed", "runs", "checkpoints", "subsets", "seeds")


@dataclass(frozen=True)
class Request:
    """A leaderboard that is asked for.

    ``bench`` by name; ``estimators`` by name, none: all; ``runs``: trainings whose scores are averaged; ``average``:
    over every checkpoint of each too.
    """

    bench: str
    estimators: tuple[str, ...] = ()
    runs: int = 1
    average: bool = False
    settings: Settings = field(default_factory=Settings)

    def checked(self) -> Request:
        """Return the same with each estimator named once, in the order given.

        Raises :class:`UserError` for a name or number that cannot be meant, before anything is trained.
        """
        from winnow.attribution.bench import get_bench
        from winnow.attribution.estimators import estimator_names, make_estimator

        get_bench(self.bench)
        names = tuple(dict.fromkeys(name.strip() for name in self.estimators)) or estimator_names()
        for name in names:
            make_estimator(name)
        if self.runs < 1:
            raise UserError(f"{self.runs} runs: there is nothing to average; ask for at least 1")
        if self.settings.projection < 0:
            raise UserError(f"projection {self.settings.projection}: give 0 (none) or a number of rows and columns")
        return replace(self, estimators=names)


def open_bench(
    home: Home, request: Request, encoder: Encoder, progress: Callable[[int, int], None] | None = None
) -> tuple[Request, Prepared]:
    """Return the request as checked, and its bench, whose bank lies in the home's artifacts.

    What the bank lacks is trained now, a process a core. Raises :class:`UserError` before that for a wrong request.
    """
    from winnow.attribution.bench import get_bench, prepare

    request = request.checked()
    prepared = prepare(
        get_bench(request.bench),
        bench_folder(home),
        runs=request.runs,
        workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        encode=_encode(home, encoder),
        progress=progress,
    )
    return request, prepared


def bench_key(home: Home, request: Request, encoder: Encoder) -> str:
    """Return the stage key of a leaderboard, without training anything: its bank, its request and its code."""
    from winnow.attribution.bank import bank_digest
    from winnow.attribution.bench import get_bench
    from winnow.embed.encoder import encoder_digest, resolve_encoder

    request = request.checked()
    bench = get_bench(request.bench)
    corpus = bench.corpus()
    return stage_key(
        TABLE,
        VERSION,
        bank=bank_digest(corpus.documents, corpus.queries, bench.recipe, bench.plan),
        plan=asdict(bench.plan),
        halves=bench.tuning,
        checkpoints=bench.checkpoints,
        request={**asdict(request), "estimators": sorted(request.estimators)},
        encoder=encoder_digest(resolve_encoder(_located(home, encoder)), encoder.dtype, encoder.max_tokens),
        code=[version("winnow"), version("torch")],
    )


def bench_folder(home: Home) -> Path:
    """Return the folder of the banks."""
    return home.artifacts / TABLE


def replace_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Write the rows of a leaderboard; earlier ones of the same key go."""
    for row in rows:
        connection.execute(
            "DELETE FROM attribution_bench WHERE bench = $bench AND bank = $bank AND estimator = $estimator"
            " AND seed = $seed AND runs = $runs AND checkpoints = $checkpoints AND subsets = $subsets"
            " AND seeds = $seeds",
            {name: getattr(row, name) for name in KEY},
        )
    measured = now()
    insert(connection, TABLE, pa.Table.from_pylist([{**row.record(), "measured_at": measured} for row in rows]))


def _located(home: Home, settings: Encoder) -> str:
    local = home.resolve(settings.name)
    return str(local) if local.is_dir() else settings.name


def _encode(home: Home, settings: Encoder) -> Callable[[Sequence[str]], np.ndarray]:
    """Return the configured encoder as a function, loaded when first asked."""

    def run(texts: Sequence[str]) -> np.ndarray:
        from winnow.embed.encoder import encode, load_encoder

        return encode(load_encoder(_located(home, settings), settings.dtype, settings.max_tokens), texts)

    return run
