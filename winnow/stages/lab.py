"""The lab on the store's own documents: pool and references from the store, runs among the artifacts, results in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import digest, ids_to_numpy, seeded_keys
from winnow.presets import load_preset
from winnow.stages.features import SIGNALS, features
from winnow.stages.influence import texts_in_order
from winnow.stages.loop import open_loop
from winnow.stages.training import model_sizes
from winnow.store.store import Store, insert, now

if TYPE_CHECKING:
    from winnow.lab.kept import RunResult
    from winnow.lab.runs import Lab
    from winnow.lab.targets import Target
    from winnow.store.store import Connection
    from winnow.train.model import ModelConfig

VERSION = "1"
CORE = ("random", "stratified", "dsir", "top_k_influence", "quad", "mates", "default")
DOCUMENTS = 50_000
"""The lab's pool is so many candidates at most, drawn by seeded hash."""


@dataclass(frozen=True)
class LabRequest:
    """What is asked of the lab: presets and model sizes by name, further reference files, seeds and tokens a run.

    Model sizes: ``proxy``, the configured small model, and ``half``, of half its width and depth.
    """

    presets: tuple[str, ...] = CORE
    references: tuple[str, ...] = ()
    seeds: int = 3
    tokens: int = 1_000_000
    models: tuple[str, ...] = ("proxy",)

    def checked(self) -> LabRequest:
        """Return the same with random among the presets. Raises :class:`UserError` for what cannot be meant."""
        for name in self.presets:
            load_preset(name)
        if wrong := sorted(set(self.models) - {"proxy", "half"}):
            raise UserError(f"lab: no model size '{wrong[0]}'; choose proxy, half or both")
        if self.seeds < 1 or self.tokens < 1:
            raise UserError(f"lab: {self.seeds} seeds of {self.tokens} tokens; give at least 1 of each")
        return replace(self, presets=tuple(dict.fromkeys(("random", *self.presets))))


def open_store_lab(store: Store, config: Config, checkpoint: str, request: LabRequest) -> Lab:
    """Return the lab of a store's candidates and references, with the tokenizer of a checkpoint.

    Raises :class:`UserError` or ``LookupError`` naming what is missing, or a reference that the pool holds.
    """
    from winnow.embed.encoder import load_encoder
    from winnow.lab.pool import make_pool
    from winnow.lab.runs import LabSettings, open_lab
    from winnow.lab.targets import without_leaks
    from winnow.train.tokenizer import load_tokenizer, tokenise

    loop = open_loop(store, config, checkpoint)
    rows = loop.pool.candidates
    drawn = np.argsort(seeded_keys(loop.pool.ids, config.selection.seed, "lab"), kind="stable")[:DOCUMENTS]
    rows = rows.take(pa.array(np.sort(drawn)))
    tokenizer = load_tokenizer(loop.checkpoint.path)

    def tokens_of(texts: Sequence[str]) -> list[np.ndarray]:
        return list(tokenise(tokenizer, list(texts)))

    local = store.home.resolve(config.encoder.name)
    encoder = load_encoder(str(local) if local.is_dir() else config.encoder.name, config.encoder.dtype,
                           config.encoder.max_tokens)  # fmt: skip
    texts = texts_in_order(store, rows)
    vectors, signals = features(store, loop.clustering.model, rows)
    body = sum(value.numel() for name, value in encoder.model.named_parameters() if "embeddings" not in name)
    pool = make_pool(
        texts,
        rows["source"].to_pylist(),
        tokens_of(texts),
        ids=ids_to_numpy(rows["doc_id"]),
        vectors=vectors,
        clusters=rows["cluster"].to_numpy(),
        centroids=loop.clustering.centroids,
        signals=pa.table({name: signals[:, place] for place, name in enumerate(SIGNALS)}),
        embedding_flops=float(np.minimum(rows["tokens"].to_numpy(), config.encoder.max_tokens).sum()) * 2.0 * body,
    )
    models = sizes(config, len(tokenizer), request.models)
    context = next(iter(models.values())).context
    given = [(loop.reference.name, loop.reference.texts("selecting"), loop.reference.texts("judging"))]
    for path in request.references:
        given.append(_read(Path(path).expanduser(), config))
    targets = [_target(*one, tokens_of, context, encoder, loop.clustering.centroids) for one in given]
    pool, targets = without_leaks(pool, targets)
    settings = LabSettings(
        tokens=request.tokens,
        warm_tokens=config.model.warmup_tokens,
        eval_tokens=max(1, request.tokens // 20),
        seed=config.selection.seed,
    )
    return open_lab(pool, targets, models, settings, store.home.artifacts / "lab", int(tokenizer.eos_token_id))


def sizes(config: Config, vocabulary: int, names: Sequence[str]) -> dict[str, ModelConfig]:
    """Return the model sizes by name."""
    proxy = replace(model_sizes(config), vocab=vocabulary)
    heads = max(1, proxy.heads // 2)
    half = replace(
        proxy,
        hidden=max(2 * heads, proxy.hidden // 2 // (2 * heads) * 2 * heads),
        layers=max(1, proxy.layers // 2),
        heads=heads,
        intermediate=max(1, proxy.intermediate // 2),
    )
    found = {"proxy": proxy, "half": half}
    return {name: found[name] for name in names}


def run_lab(
    lab: Lab, request: LabRequest, workers: int = 1, say: Callable[[str], None] | None = None
) -> tuple[list[RunResult], dict[str, str]]:
    """Make or read every run that is asked for, seed by seed; ``say`` is told of each."""
    from winnow.lab.runs import Request, run_all

    def tell(done: int, total: int, one: Request, result: RunResult | str) -> None:
        if say is not None:
            told = f"not made, {result}" if isinstance(result, str) else f"loss {result.loss:.4f}"
            say(f"{done} of {total}: {one.preset.name} on {one.target}, seed {one.seed}, {one.model}: {told}")

    asked = [
        Request(load_preset(name), target, seed, model)
        for model in request.models
        for seed in range(request.seeds)
        for target in lab.targets
        for name in request.presets
    ]
    return run_all(lab, asked, workers, tell)


def write_runs(connection: Connection, lab: str, runs: Sequence[RunResult]) -> None:
    """Write runs and their curves; those of the same digest are replaced."""
    written = now()
    keys = [run.key for run in runs] or [""]
    for table in ("lab_runs", "lab_curves"):
        connection.execute(f"DELETE FROM {table} WHERE list_contains($keys, run)", {"keys": keys})  # noqa: S608
    insert(connection, "lab_runs", pa.Table.from_pylist([
        {
            "run": run.key, "lab": lab, "preset": run.preset, "reference": run.target, "model": run.model,
            "parameters": run.parameters, "seed": run.seed, "documents": len(np.unique(run.positions)),
            "tokens": int(run.tokens[-1]), "loss": run.loss, "training_flops": run.training_flops,
            "scoring_flops": float(run.scoring_flops()), "scoring_seconds": float(run.scoring_seconds()),
            "pulls": run.pulls, "trained_at": written,
        }
        for run in runs
    ]))  # fmt: skip
    insert(connection, "lab_curves", pa.Table.from_pylist([
        {"run": run.key, "tokens": tokens, "measured": name, "loss": loss}
        for run in runs for tokens, name, loss in _points(run)
    ]))  # fmt: skip


def write_results(
    connection: Connection, lab: str, runs: Sequence[RunResult], failed: dict[str, str]
) -> list[dict[str, Any]]:
    """Write and return the presets' rows of one lab; earlier ones of it go."""
    from winnow.lab.speed import speeds

    measured = now()
    rows = []
    for row in speeds(runs):
        record = row.record()
        rows.append(
            {"lab": lab, **{("reference" if name == "target" else name): value for name, value in record.items()}}
        )
    rows += [{"lab": lab, "preset": name, "failed": why} for name, why in sorted(failed.items())]
    connection.execute("DELETE FROM lab_results WHERE lab = $lab", {"lab": lab})
    if rows:
        insert(
            connection,
            "lab_results",
            pa.Table.from_pylist([{**_empty(), **row, "measured_at": measured} for row in rows]),
        )
    return rows


def lab_digest(lab: Lab) -> str:
    """Return what a lab's results belong to: pool, references, models and settings."""
    models = {name: asdict(config) for name, config in lab.models.items()}
    targets = {name: target.digest for name, target in lab.targets.items()}
    return digest([VERSION, lab.pool.digest, targets, models, asdict(lab.settings)])[:16]


def _points(run: RunResult) -> list[tuple[int, str, float]]:
    found = {(int(tokens), run.target): float(loss) for tokens, loss in zip(run.tokens, run.losses, strict=True)}
    found |= {(tokens, name): loss for tokens, losses in run.out for name, loss in losses.items()}
    return [(tokens, name, loss) for (tokens, name), loss in sorted(found.items())]


def _empty() -> dict[str, Any]:
    from winnow.store.schema import tables

    return {name: None for name, _, _ in tables()["lab_results"].columns}


def _read(path: Path, config: Config) -> tuple[str, list[str], list[str]]:
    from winnow.contamination.sets import read_reference

    found = read_reference(path, config.reference.model_copy(update={"name": path.name.partition(".")[0]}))
    return found.name, found.texts("selecting"), found.texts("judging")


def _target(
    name: str,
    selecting: Sequence[str],
    judging: Sequence[str],
    tokens_of: Callable[[Sequence[str]], list[np.ndarray]],
    context: int,
    encoder: Any,
    centroids: np.ndarray,
) -> Target:
    from winnow.embed.clusters import assign
    from winnow.embed.encoder import encode
    from winnow.lab.targets import Target, with_tokens

    found = with_tokens(Target(name, tuple(selecting), tuple(judging)), tokens_of, context)
    vectors = encode(encoder, list(found.selecting))
    return replace(found, vectors=vectors, clusters=assign(vectors, centroids)[0].astype(np.int64))
