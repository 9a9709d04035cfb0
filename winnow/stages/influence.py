"""From probes to a score for every document: the opening round, the influence model, its scores."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from winnow.identity import ids_as_keys, ids_to_numpy, seeded_keys
from winnow.quality.judge import signals_digest
from winnow.selection import opening_probes
from winnow.stages.estimates import gradient_estimate, gradient_method, oracle_method
from winnow.stages.features import floats, stored_features
from winnow.stages.loop import Loop
from winnow.store.judgements import all_texts
from winnow.store.stage import pinned, stage_key
from winnow.store.store import Store, load

log = logging.getLogger(__name__)

OPENING_VERSION = "1"
MODEL_VERSION = "4"
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
        methods=[gradient_method(loop.config, loop.checkpoint), oracle_method(loop.config, loop.checkpoint)],
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


def texts_in_order(store: Store, documents: pa.Table) -> list[str]:
    """Return the texts of documents sorted by doc_id."""
    return all_texts(store, documents.select(["doc_id"]))["text"].to_pylist()


def model_path(store: Store, name: str) -> Path:
    """Return where an influence model lies."""
    return store.home.artifacts / f"influence-model-{name}.safetensors"


def influence_model_key(loop: Loop) -> str:
    """Return the key that pins a checkpoint's influence model: its probes and the definition of its features."""
    from winnow.attribution.surrogates import make_surrogate

    influence = loop.config.influence
    reads = loop.config.encoder.max_tokens if make_surrogate(influence.surrogate).reads_texts else None
    fit = [influence.surrogate, influence.surrogate_loss, influence.warm_start, reads]
    return stage_key(
        "influence_models",
        MODEL_VERSION,
        opening=opening_key(loop),
        signals=signals_digest(),
        fit=fit,
        limits=[influence.spearman_floor, influence.stale_below],
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


def score_documents(store: Store, loop: Loop, documents: pa.Table, encoder: str = "", rows: int = 50_000) -> pa.Table:
    """Return ``scores`` rows: the influence model's prediction for each document; positive = helpful."""
    from winnow.attribution.surrogates.files import load_model

    name = model_name(store, loop)
    model = load_model(model_path(store, name), encoder)
    count = len(documents)
    score, spread = np.empty(count), np.empty(count)
    for found, embeddings, signals in stored_features(store, loop.clustering.model, documents, rows):
        order = np.argsort(found)
        places, texts = found[order], None
        if model.reads_texts:
            texts = texts_in_order(store, documents.take(places))
        score[places] = model.predict(embeddings[order], signals[order], texts)
        spread[places] = model.spread(embeddings[order], signals[order], texts)
    return pa.table(
        {
            "doc_id": documents["doc_id"],
            "scorer": pa.array(["influence"] * count, pa.string()),
            "version": pa.array([name] * count, pa.string()),
            "checkpoint": pa.array([loop.checkpoint.name] * count, pa.string()),
            "reference": pa.array([loop.reference.digest] * count, pa.string()),
            **gradient_estimate(loop.config).columns(count),
            "score": score,
            "spread": pa.array(spread, mask=np.isnan(spread)),
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
    return floats(rows["score"])
