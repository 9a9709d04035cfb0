"""One turn of the loop: checkpoint, reference, arms and candidate pool, taken from the store together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from winnow.config import Config
from winnow.dedup.sketch import make_plan
from winnow.errors import UserError
from winnow.quality.judge import quality_version
from winnow.selection import Arms, build_arms
from winnow.stages.checkpoints import StoredCheckpoint, stored_checkpoint
from winnow.stages.clusters import Clustering, stored_clustering
from winnow.stages.pool import Pool, candidate_pool
from winnow.stages.references import StoredSet, stored_reference
from winnow.stages.semantic import require_semantic
from winnow.store.judgements import pending
from winnow.store.stage import stage_key
from winnow.store.store import Connection, Store


@dataclass(frozen=True)
class Loop:
    """What influence, selection and manifest of one checkpoint start from."""

    config: Config
    checkpoint: StoredCheckpoint
    reference: StoredSet
    clustering: Clustering
    pool: Pool

    @property
    def inputs(self) -> dict[str, Any]:
        """Digests of what influence is measured with: no paths, no names."""
        return {
            "checkpoint": self.checkpoint.weights_digest,
            "tokenizer": self.checkpoint.tokenizer,
            "reference": self.reference.digest,
            "encoder": self.clustering.model,
            "clustering": self.clustering.digest,
        }

    def key(self, stage: str, version: str, *sections: str, **more: Any) -> str:
        """Return a stage key over :attr:`inputs`, the influence settings and the named configuration sections."""
        settings = self.config.semantic_settings("influence", *sections)
        return stage_key(stage, version, **self.inputs, settings=settings, seed=self.config.selection.seed, **more)

    def arms(self) -> Arms:
        """Return the clusters of the candidates as the bandit's arms."""
        candidates = self.pool.candidates
        return build_arms(self.pool.ids, candidates["cluster"].to_numpy(), candidates["tokens"].to_numpy())


def judged_versions(config: Config, encoder_location: str) -> list[tuple[str, str, str]]:
    """Return table, version column and present version of every judgement that the ``ingest`` job makes."""
    from winnow.embed.encoder import encoder_digest, resolve_encoder

    plan = make_plan(config.duplicates)
    encoder = encoder_digest(resolve_encoder(encoder_location), config.encoder.dtype, config.encoder.max_tokens)
    return [
        ("signals", "version", quality_version(config.quality)),
        ("sketches", "scheme", plan.sketch_scheme),
        ("bands", "scheme", plan.scheme),
        ("embeddings", "model", encoder),
    ]


def unjudged_tables(connection: Connection, versions: list[tuple[str, str, str]]) -> list[str]:
    """Return the tables that lack a judgement of the present version on some document, in the published store."""
    lacking = []
    for table, column, version in versions:
        row = connection.execute(
            f"SELECT 1 FROM documents ANTI JOIN (SELECT doc_id FROM {table} WHERE {column} = $version) USING (doc_id) LIMIT 1",  # noqa: S608, E501
            {"version": version},
        ).fetchone()
        if row:
            lacking.append(table)
    return lacking


def require_judged(store: Store, table: str, version_column: str, version: str) -> None:
    """Raise :class:`UserError` when documents lack a judgement of a ``shards`` partition as it is configured now.

    After a change of the configuration the old judgements say nothing any more.
    """
    missing = len(pending(store, table, version_column, version))
    if missing:
        raise UserError(
            f"{missing} documents have no {table} of the present configuration: run `winnow run`, or materialize "
            f"`{table}` for every `shards` partition"
        )


def open_loop(store: Store, config: Config, checkpoint: str) -> Loop:
    """Gather the state of one checkpoint. Raises ``LookupError`` or ``UserError`` naming what is not materialized."""
    require_judged(store, "signals", "version", quality_version(config.quality))
    found = stored_checkpoint(store, checkpoint)
    clustering = stored_clustering(store)
    require_semantic(store, config, clustering.model)
    pool = candidate_pool(store, config, clustering.name, found.tokenizer)
    return Loop(config, found, stored_reference(store), clustering, pool)
