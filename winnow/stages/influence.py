"""From probes to a score for every document: the opening round, the influence model, its scores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.embed.rows import vectors_of
from winnow.identity import digest_file, ids_as_keys, ids_to_numpy, seeded_keys
from winnow.quality.judge import signals_digest
from winnow.quality.signals import COLUMNS
from winnow.selection import opening_probes
from winnow.stages.loop import Loop
from winnow.stages.probes import gradient_method, oracle_method
from winnow.store.stage import pinned, stage_key
from winnow.store.store import Store, insert_row, load

if TYPE_CHECKING:
    from winnow.attribution.surrogate import InfluenceModel
    from winnow.store.store import Connection

SIGNALS = tuple(COLUMNS)
OPENING_VERSION = "1"
OPENING_SHARE = 0.6


def choose_opening(loop: Loop) -> np.ndarray:
    """Return the ids (uint8 ``[P, 16]``) of the opening round: seeded documents of every cluster.

    It spends at most ``OPENING_SHARE`` of ``max_probes`` (and one probe an arm), the rest is the bandit's.
    """
    arms = loop.arms()
    affordable = int(OPENING_SHARE * loop.config.selection.max_probes) // max(len(arms), 1)
    per_arm = max(1, min(loop.config.influence.probes_per_cluster, affordable))
    return arms.doc_ids[opening_probes(arms, per_arm, loop.config.selection.seed)]


def opening_key(loop: Loop) -> str:
    """Return the key under which the opening round of a checkpoint is remembered in ``judged``: what it depends on."""
    influence, selection = loop.config.influence, loop.config.selection
    return stage_key(
        "probes",
        OPENING_VERSION,
        **loop.inputs,
        methods=[gradient_method(loop.config), oracle_method(loop.config)],
        probes=[influence.probes_per_cluster, influence.oracle_probes, selection.max_probes],
        seeds=[influence.seed, selection.seed],
    )


def opening_stands(store: Store, loop: Loop) -> bool:
    """Return whether at least half of the documents that opened the checkpoint's bandit are still candidates."""
    chosen = store.arrow(
        "SELECT doc_id FROM judged WHERE stage = 'probes' AND version = $opening", {"opening": opening_key(loop)}
    )
    known = np.isin(ids_as_keys(ids_to_numpy(chosen["doc_id"])), ids_as_keys(loop.pool.ids))
    return bool(len(known)) and 2 * int(known.sum()) >= len(known)


OPENING = """
SELECT doc_id, influence FROM probes SEMI JOIN (
    SELECT doc_id FROM judged WHERE stage = 'probes' AND version = $opening
) opening USING (doc_id) SEMI JOIN documents USING (doc_id)
WHERE checkpoint = $checkpoint AND reference = $reference AND method = $method
ORDER BY doc_id
"""


def opening_round(store: Store, loop: Loop, method: str) -> pa.Table:
    """Return doc_id and influence, by one method, of the documents that the checkpoint's opening round chose."""
    return store.arrow(
        OPENING,
        {
            "opening": opening_key(loop),
            "checkpoint": loop.checkpoint.name,
            "reference": loop.reference.digest,
            "method": method,
        },
    )


def oracle_sample(loop: Loop, opening: np.ndarray) -> np.ndarray:
    """Return which of the opening probes the oracle measures too: positions, drawn by a seeded hash."""
    keys = seeded_keys(opening, loop.config.influence.seed, "oracle")
    return np.sort(np.argsort(keys, kind="stable")[: loop.config.influence.oracle_probes])


@dataclass(frozen=True)
class FittedModel:
    """An influence model with what it is called, where it lies, and whether selection may rank by it."""

    name: str
    loop: Loop
    model: InfluenceModel
    path: Path
    oracle_probes: int
    oracle_spearman: float

    @property
    def used(self) -> bool:
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        floor = self.loop.config.influence.spearman_floor
        if self.model.reason:
            return self.model.reason
        if self.model.spearman < floor:
            return f"held-out Spearman {self.model.spearman:.3f} is below the floor {floor:g}"
        return None

    @property
    def summary(self) -> str:
        interval = f"[{self.model.spearman_low:.3f}, {self.model.spearman_high:.3f}]"
        verdict = "used" if self.used else f"not used: {self.why_not}"
        return (
            f"influence model {self.name}: held-out Spearman {self.model.spearman:.3f} {interval} "
            f"on {self.model.probes} probes ({verdict}); "
            f"gradient against oracle {self.oracle_spearman:.3f} on {self.oracle_probes}"
        )

    def write(self, connection: Connection) -> None:
        connection.execute("DELETE FROM influence_models WHERE model = $name", {"name": self.name})
        insert_row(
            connection,
            "influence_models",
            model=self.name,
            checkpoint=self.loop.checkpoint.name,
            reference=self.loop.reference.digest,
            method=gradient_method(self.loop.config),
            probes=self.model.probes,
            spearman=self.model.spearman,
            spearman_low=self.model.spearman_low,
            spearman_high=self.model.spearman_high,
            oracle_probes=self.oracle_probes,
            oracle_spearman=self.oracle_spearman,
            used=self.used,
            reason=self.why_not,
            path=f"artifacts/{self.path.name}",
        )


def fit_model(store: Store, loop: Loop) -> FittedModel:
    """Fit the influence model to the opening probes of the loop's checkpoint and save it under its digest."""
    from winnow.attribution.surrogate import fit_influence_model, spearman

    measured = opening_round(store, loop, gradient_method(loop.config))
    oracle = opening_round(store, loop, oracle_method(loop.config))
    embeddings, signals = features(store, loop, measured)
    model = fit_influence_model(
        ids_to_numpy(measured["doc_id"]),
        embeddings,
        signals,
        _floats(measured["influence"]),
        signal_names=SIGNALS,
        seed=loop.config.influence.seed,
    )
    by_gradient = dict(zip(measured["doc_id"].to_pylist(), _floats(measured["influence"]), strict=True))
    by_oracle = dict(zip(oracle["doc_id"].to_pylist(), _floats(oracle["influence"]), strict=True))
    pairs = [
        (by_gradient[doc], value) for doc, value in by_oracle.items() if np.isfinite([by_gradient[doc], value]).all()
    ]
    agreement = spearman(*map(np.array, zip(*pairs, strict=True))) if len(pairs) > 2 else 0.0
    store.home.artifacts.mkdir(parents=True, exist_ok=True)
    temporary = store.home.artifacts / f".influence-model-{os.getpid()}.tmp"
    model.save(temporary)
    name = digest_file(temporary)[:16]
    path = store.home.artifacts / f"influence-model-{name}.safetensors"
    temporary.replace(path)
    return FittedModel(name, loop, model, path, len(pairs), agreement)


def features(store: Store, loop: Loop, documents: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings float32 ``[N, D]`` and signals float64 ``[N, S]`` of documents sorted by doc_id."""
    columns = ", ".join(f's."{name}"' for name in SIGNALS)
    with store.scratch("embeddings", "signals", only={"model": loop.clustering.model}) as connection:
        load(connection, "wanted", documents.select(["doc_id"]))
        rows = connection.execute(
            f"SELECT doc_id, e.vector, {columns} FROM wanted JOIN embeddings e USING (doc_id)"  # noqa: S608
            " LEFT JOIN signals s USING (doc_id) ORDER BY doc_id"
        ).to_arrow_table()
    if len(rows) != len(documents):
        raise LookupError(f"{len(documents) - len(rows)} documents have no embedding: materialize embeddings first")
    signals = np.stack([_floats(rows[name]) for name in SIGNALS], axis=1) if len(rows) else np.zeros((0, len(SIGNALS)))
    return vectors_of(rows["vector"]), signals


def influence_model_key(loop: Loop) -> str:
    """Return the key that pins a checkpoint's influence model: its probes and the definition of its features."""
    floor = loop.config.influence.spearman_floor
    return stage_key(
        "influence_models", OPENING_VERSION, opening=opening_key(loop), signals=signals_digest(), spearman_floor=floor
    )


def model_name(store: Store, loop: Loop) -> str:
    """Return the influence model of the loop's checkpoint. Raises ``LookupError`` before it is fitted."""
    name = pinned(store, "influence_models", influence_model_key(loop))
    if name is None:
        raise LookupError(
            f"no influence model for checkpoint {loop.checkpoint.name}: materialize influence_models first"
        )
    return name


def pending_scores(store: Store, loop: Loop) -> pa.Table:
    """Return the documents that the checkpoint's influence model has not scored, sorted by doc_id."""
    with store.scratch("scores", "documents", only={"version": model_name(store, loop)}) as connection:
        return connection.execute(
            "SELECT doc_id FROM documents ANTI JOIN scores USING (doc_id) ORDER BY doc_id"
        ).to_arrow_table()


def score_documents(store: Store, loop: Loop, documents: pa.Table, rows: int = 50_000) -> pa.Table:
    """Return ``scores`` rows: the influence model's prediction for each document; positive = helpful."""
    from winnow.attribution.surrogate import InfluenceModel

    name = model_name(store, loop)
    model = InfluenceModel.load(store.home.artifacts / f"influence-model-{name}.safetensors")
    predicted = [
        model.predict(*features(store, loop, documents.slice(start, rows))) for start in range(0, len(documents), rows)
    ]
    count = len(documents)
    return pa.table(
        {
            "doc_id": documents["doc_id"],
            "scorer": pa.array(["influence"] * count, pa.string()),
            "version": pa.array([name] * count, pa.string()),
            "checkpoint": pa.array([loop.checkpoint.name] * count, pa.string()),
            "reference": pa.array([loop.reference.digest] * count, pa.string()),
            "score": np.concatenate(predicted) if predicted else np.zeros(0),
        }
    )


def candidate_scores(store: Store, loop: Loop) -> np.ndarray | None:
    """Return the scores of the candidates in their order, float64 ``[N]``; None when the model is below its floor."""
    name = model_name(store, loop)
    used = store.query("SELECT used FROM influence_models WHERE model = $name", {"name": name})
    if not used or not used[0][0]:
        return None
    with store.scratch("scores", only={"version": name}) as connection:
        load(connection, "candidates", loop.pool.candidates.select(["doc_id"]))
        rows = connection.execute(
            "SELECT score FROM candidates LEFT JOIN scores USING (doc_id) ORDER BY doc_id"
        ).to_arrow_table()
    return _floats(rows["score"])


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
