"""Making a manifest: rows from the decisions, digest, folder, and its place in the store."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from winnow.dedup.semantic import semantic_version
from winnow.dedup.sketch import make_plan
from winnow.dedup.spans import make_span_plan
from winnow.errors import UserError
from winnow.identity import canonical_json, digest, ids_to_numpy
from winnow.mixture.environment import recorded_environment
from winnow.mixture.manifest import Manifest, build_manifest
from winnow.mixture.manifest_files import draft_rows, manifest_versions, place_manifest, read_manifest
from winnow.quality.judge import quality_version
from winnow.stages.contamination import overlap_versions
from winnow.stages.corpus_digest import digest_of, lanes_of, recomputed_corpus_digest
from winnow.stages.estimates import gradient_method
from winnow.stages.influence import model_name
from winnow.stages.loop import Loop
from winnow.stages.manifests import SEMANTIC, curation_state, funnel
from winnow.stages.references import stored_sets
from winnow.stages.selection import Selected, selection_name
from winnow.stages.spans import require_spans
from winnow.store.garbage import keeping_parts
from winnow.store.judgements import row_groups
from winnow.store.snapshots import committing_snapshot
from winnow.store.stage import Stage, stage_key
from winnow.store.store import Store, get_meta, insert_row, now

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

CHANGED = "changed while the manifest was made: run again from `signals` (`winnow run` does)"


@dataclass(frozen=True)
class Made:
    """A manifest that has been written."""

    manifest: Manifest
    folder: Path


def manifest_key(store: Store, loop: Loop) -> str:
    """Return the key of a manifest: the selection, the state of corpus and configuration, and the version before it.

    So a state that returns after another manifest was made gets a version of its own.
    """
    with store.read() as connection:
        state = curation_state(connection, loop.config, store.home, loop.checkpoint.name)
        answer = connection.execute(
            "SELECT parent FROM manifests WHERE version = $version", {"version": state.manifest}
        ).fetchone()
        parent = answer[0] if answer else _newest(connection)
    return stage_key("manifests", "1", selection=selection_name(store, loop), state=state.key, parent=parent)


@keeping_parts
def make_manifest(store: Store, selected: Selected, stage: Stage) -> Made:
    """Write the next manifest version from a selection: its rows and the store's state as parts, its folder, its place.

    The store's state is that which the manifest's own transaction adds to: where another one came between, it is taken
    again. Raises :class:`UserError`, and makes none, when the documents, what else decides the choice, or the newest
    manifest are then not those that the selection was made from: a document that is withdrawn meanwhile is in none.
    """
    loop = selected.loop
    config, name, model = loop.config, selection_name(store, loop), model_name(store, loop)
    require_spans(store, config)
    # Dtype and CPU class decide the bits of embeddings and influence; they are recorded, not digested.
    environment = recorded_environment(_dtypes(config))
    chosen_from = digest_of(lanes_of(ids_to_numpy(loop.pool.documents["doc_id"]), loop.pool.documents["source"]))
    with store.read("decisions") as connection:
        parent = _newest(connection)
        state = curation_state(connection, config, store.home, loop.checkpoint.name)
        _require_corpus(connection, chosen_from)
        counted = funnel(connection, name, loop.checkpoint.tokenizer)
        corpus = get_meta(connection, "corpus_digest") or digest([])
    rows = selected.manifest_rows()
    got = selected.mixture_rows(name)
    weights = {row["source"]: row["weight"] for row in got.to_pylist() if row["method"] == "selected"}
    manifest = build_manifest(
        rows,
        version="",
        token_budget=selected.budget,
        seed=config.selection.seed,
        configuration=config.semantic_settings(*SEMANTIC),
        inputs={
            "corpus": corpus,
            **loop.inputs,
            "evaluation_sets": {one.name: one.digest for one in stored_sets(store) if one.kind != "reference"},
            "influence_model": model,
            "influence_model_used": selected.influence_model_used,
            "methods": {
                "signals": quality_version(config.quality),
                "duplicates": make_plan(config.duplicates).scheme,
                "semantic": semantic_version(config.semantic),
                "contamination": overlap_versions(stored_sets(store), config.contamination),
                "gradient": gradient_method(config, loop.checkpoint),
                "spans": make_span_plan(config.spans).version,
            },
        },
        weights=weights,
        parent=parent,
        funnel=counted,
        control={
            "documents": selected.control.documents,
            "tokens": selected.control.tokens,
            "digest": selected.control.digest,
        },
        environment=environment,
    )
    version = _version(store, manifest.digest)
    versioned = manifest.rows.append_column("version", pa.array([version] * len(manifest.rows), pa.string()))
    parts = store.write_parts("manifest_rows", row_groups(versioned))
    made_at = now()
    with (
        draft_rows(manifest.rows, store.home.manifests) as draft,
        committing_snapshot(store, version, parts, made_at) as (connection, snapshot),
    ):
        _require_corpus(connection, chosen_from)
        if curation_state(connection, config, store.home, loop.checkpoint.name).key != state.key:
            raise UserError(f"the reference or an evaluation set {CHANGED}")
        if _newest(connection) != parent:
            raise UserError("another run made a manifest meanwhile: run `manifests` again")
        manifest = replace(manifest, version=version, snapshot=snapshot.digests)
        folder = place_manifest(manifest, draft, unlisted=True)
        insert_row(
            connection,
            "manifests",
            version=version,
            digest=manifest.digest,
            parent=parent,
            selection=name,
            state=state.key,
            checkpoint=loop.checkpoint.name,
            documents=manifest.documents,
            tokens=manifest.tokens,
            budget_tokens=manifest.token_budget,
            control_tokens=selected.control.tokens,
            influence_model=model,
            influence_model_used=selected.influence_model_used,
            path=store.home.name(folder),
            snapshot=list(snapshot.digests),
            configuration=canonical_json(dict(manifest.configuration)),
            environment=canonical_json(environment),
            made_at=made_at,
        )
        stage.finish(connection, manifest.documents, output=version)
    return Made(manifest, folder)


def _require_corpus(connection: Connection, expected: str) -> None:
    """Raise :class:`UserError` unless the documents and their sources are still those with this digest."""
    recorded = get_meta(connection, "corpus_lanes")  # an older Winnow recorded only a digest, in its own way
    found = recomputed_corpus_digest(connection) if recorded is None else get_meta(connection, "corpus_digest")
    if found != expected:
        raise UserError(f"the corpus {CHANGED}")


def _newest(connection: Connection) -> str | None:
    row = connection.execute(
        "SELECT version FROM manifests ORDER BY len(version) DESC, version DESC LIMIT 1"
    ).fetchone()
    return row[0] if row else None


def _version(store: Store, digest: str) -> str:
    """Return the version that a manifest gets: the next after all in the store and in the folder.

    A folder that the store does not list was left by a run that was killed (or belongs to a store that is gone): one
    with the same digest is adopted, another is left alone.
    """
    with store.read() as connection:
        listed = {version for (version,) in connection.execute("SELECT version FROM manifests").fetchall()}
    for version in manifest_versions(store.home.manifests):
        if version not in listed:
            try:
                if read_manifest(store.home.manifests / version).digest == digest:
                    return version
            except UserError as error:
                log.warning("%s", error)
    numbers = [int(version[1:]) for version in {*listed, *manifest_versions(store.home.manifests)}]
    return f"v{max(numbers, default=0) + 1:04d}"


def _dtypes(config: Any) -> str:
    from winnow.forward import resolve_dtype

    encoder, train = resolve_dtype(config.encoder.dtype), resolve_dtype(config.train.dtype)
    return f"embeddings {encoder}, influence float32, training {train}"
