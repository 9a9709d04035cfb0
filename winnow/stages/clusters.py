"""Clusterings in the store: centroids fitted once and pinned, assignments of new documents, summaries."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.config import Config
from winnow.embed.rows import vectors_of
from winnow.identity import ids_to_numpy, seeded_keys
from winnow.store.judgements import all_texts
from winnow.store.stage import Stage, pinned, stage_key
from winnow.store.store import Store, insert

if TYPE_CHECKING:
    from winnow.store.store import Connection

CLUSTERING_VERSION = "1"
MOST_CLUSTERS = 128
"""A planned clustering has no more arms than a thousand probes can tell apart; ``clusters.count`` may ask for more."""

LABELLED_DOCUMENTS = 20_000
"""Labels are made from at most so many documents, drawn by a seeded hash."""


@dataclass(frozen=True)
class Clustering:
    """Pinned centroids: ``name`` is their stage key, ``model`` the encoder they belong to."""

    name: str
    model: str
    centroids: np.ndarray
    labels: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.centroids)

    @property
    def digest(self) -> str:
        """Digest of the centroids themselves: what the arms are, whatever they are called."""
        return hashlib.sha256(np.ascontiguousarray(self.centroids, "<f4").tobytes()).hexdigest()[:32]

    def write(self, connection: Connection, assigned: pa.Table) -> None:
        """Store new assignments; those of other clusterings go, as the arms are the current one's."""
        connection.execute("DELETE FROM clusters WHERE clustering <> $name", {"name": self.name})
        insert(connection, "clusters", assigned)


def clustering_key(config: Config, model: str) -> str:
    """Return the key that pins a clustering: encoder, settings, and which corpus locations it was fitted for."""
    locations = config.corpus.model_dump(mode="json")["locations"]
    return stage_key(
        "clustering", CLUSTERING_VERSION, model=model, locations=locations, **config.semantic_settings("clusters")
    )


def current_clustering(store: Store, config: Config, model: str) -> Clustering | None:
    """Return the pinned clustering of this configuration, or None before it is fitted."""
    name = pinned(store, "clustering", clustering_key(config, model))
    return _load(store, name) if name else None


def stored_clustering(store: Store) -> Clustering:
    """Return the clustering that the documents are assigned to. Raises ``LookupError`` before there is one."""
    names = store.query("SELECT DISTINCT clustering FROM clusters")
    if len(names) != 1:
        raise LookupError("documents are assigned to no clustering: materialize `clusters` first")
    return _load(store, names[0][0])


def _load(store: Store, name: str) -> Clustering:
    from safetensors.numpy import load_file

    folder = store.home.artifacts / f"clustering-{name}"
    facts = json.loads((folder / "clustering.json").read_text())
    return Clustering(
        name, facts["model"], load_file(folder / "centroids.safetensors")["centroids"], tuple(facts["labels"])
    )


def fit_clustering(store: Store, config: Config, model: str, run_id: str) -> Clustering:
    """Fit centroids and labels on all documents embedded so far, save them, and pin them under their key."""
    from safetensors.numpy import save_file

    from winnow.embed.clusters import assign, default_k, fit_centroids
    from winnow.embed.labels import label_clusters

    stage = Stage(store, "clustering", run_id, clustering_key(config, model))
    rows = _embedded(store, model)
    vectors = vectors_of(rows["vector"])
    count = min(config.clusters.count or min(default_k(len(rows)), MOST_CLUSTERS), len(rows))
    centroids = fit_centroids(vectors, count, config.clusters.seed, config.clusters.iterations)
    keys = seeded_keys(ids_to_numpy(rows["doc_id"]), config.clusters.seed, "labels")
    drawn = np.sort(np.argsort(keys, kind="stable")[:LABELLED_DOCUMENTS])
    texts = all_texts(store, rows.select(["doc_id"]).take(pa.array(drawn)))
    cluster, _ = assign(vectors[drawn], centroids)
    labels = label_clusters(texts["text"].to_pylist(), cluster, len(centroids))
    name = stage.key[:12]
    folder = store.home.artifacts / f"clustering-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"centroids": centroids}, folder / "centroids.safetensors")
    (folder / "clustering.json").write_text(json.dumps({"model": model, "labels": labels}))
    with store.write() as connection:
        stage.finish(connection, len(rows), output=name)
    return Clustering(name, model, centroids, tuple(labels))


def _embedded(store: Store, model: str) -> pa.Table:
    with store.scratch("embeddings", only={"model": model}) as connection:
        return connection.execute("SELECT doc_id, vector FROM embeddings ORDER BY doc_id").to_arrow_table()


def assign_new(store: Store, clustering: Clustering) -> pa.Table:
    """Return ``clusters`` rows of the documents that have none in this clustering."""
    from winnow.embed.clusters import assign

    with store.scratch(
        "embeddings", "clusters", only={"model": clustering.model, "clustering": clustering.name}
    ) as scratch:
        rows = scratch.execute(
            "SELECT doc_id, vector FROM embeddings ANTI JOIN clusters USING (doc_id) ORDER BY doc_id"
        ).to_arrow_table()
    vectors = vectors_of(rows["vector"]) if len(rows) else np.zeros((0, clustering.centroids.shape[1]), np.float32)
    cluster, distance = assign(vectors, clustering.centroids)
    return pa.table(
        {
            "doc_id": rows["doc_id"],
            "clustering": pa.array([clustering.name] * len(rows), pa.string()),
            "cluster": cluster,
            "distance": distance.astype(np.float64),
        }
    )


def summarise(connection: Connection, clustering: Clustering) -> None:
    """Write the clusters' sizes, labels and means anew."""
    labels = pa.table({"cluster": np.arange(clustering.count, dtype=np.int32), "label": list(clustering.labels)})
    connection.register("cluster_labels", labels)
    connection.execute("DELETE FROM cluster_summary WHERE clustering = $name", {"name": clustering.name})
    connection.execute(SUMMARISE, {"name": clustering.name})
    connection.unregister("cluster_labels")


SUMMARISE = """
INSERT INTO cluster_summary BY NAME
SELECT $name AS clustering,
       l.cluster,
       count(c.doc_id) AS documents,
       any_value(l.label) AS label,
       avg(c.distance) AS mean_distance,
       avg(CASE WHEN s.gopher_passed THEN 1.0 ELSE 0.0 END) FILTER (WHERE c.doc_id IS NOT NULL) AS gopher_pass_share,
       avg(CASE WHEN d.keeper_id <> d.doc_id THEN 1.0 ELSE 0.0 END) FILTER (WHERE c.doc_id IS NOT NULL)
           AS duplicate_share
FROM cluster_labels l
LEFT JOIN clusters c ON c.cluster = l.cluster AND c.clustering = $name
LEFT JOIN signals s USING (doc_id)
LEFT JOIN duplicates d ON d.doc_id = c.doc_id AND d.kind = 'near'
GROUP BY l.cluster
"""
