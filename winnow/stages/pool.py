"""The candidate pool: which documents may be selected, and why the others may not.

Every document gets a verdict from the first stage that objects: signals, then duplicates, then contamination, then
semantic duplicates where these decide. What is left are the candidates, each with its source, tokens and cluster.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.config import Config
from winnow.identity import digest_ids, ids_to_numpy
from winnow.stages.contamination import require_contamination
from winnow.stages.duplicate_alarms import require_reason
from winnow.stages.duplicate_groups import require_grouped
from winnow.stages.semantic import is_filtering
from winnow.store.store import Store

VERDICTS = """
WITH leaking AS (
    SELECT doc_id,
           first({
               'set': evaluation_set, 'words': longest_match, 'score': score, 'part': part, 'gapped': method = 'gapped'
           } ORDER BY score DESC, longest_match DESC, evaluation_set) AS worst
    FROM contamination WHERE contaminated GROUP BY doc_id
),
verdicts AS (
    SELECT doc_id,
           d.source,
           d.shard,
           d.row,
           CASE WHEN $filter AND NOT s.gopher_passed THEN 'signals'
                WHEN n.keeper_id <> doc_id THEN 'duplicates'
                WHEN l.doc_id IS NOT NULL THEN 'contamination'
                WHEN $semantic AND (m.keeper_id <> doc_id OR p.doc_id IS NOT NULL) THEN 'semantic'
           END AS stage,
           CASE stage WHEN 'signals' THEN 'low_quality'
                      WHEN 'duplicates' THEN 'near_duplicate'
                      WHEN 'contamination' THEN 'contaminated'
                      WHEN 'semantic' THEN if(p.doc_id IS NULL, 'semantic_duplicate', 'semantic_prototype')
           END AS reason,
           CASE stage WHEN 'signals' THEN s.gopher_reason
                      WHEN 'duplicates' THEN format('Jaccard {:.3f} with the keeper', n.similarity)
                      WHEN 'contamination'
                          THEN if(l.worst.gapped,
                                  format('{:.2f} of the {} of an item of {}', l.worst.score, l.worst.part, l.worst.set),
                                  format('{} words in a row with {}', l.worst.words, l.worst.set))
                      WHEN 'semantic' THEN if(p.doc_id IS NULL, format('cosine {:.3f} with the keeper', m.similarity),
                                              format('distance {:.3f} from its centroid', p.distance))
           END AS detail,
           CASE stage WHEN 'duplicates' THEN n.keeper_id
                      WHEN 'semantic' THEN if(p.doc_id IS NULL, m.keeper_id, NULL)
           END AS matched_doc
    FROM documents d
    JOIN signals s USING (doc_id)
    LEFT JOIN (SELECT * FROM duplicates WHERE kind = 'near') n USING (doc_id)
    LEFT JOIN leaking l USING (doc_id)
    LEFT JOIN (SELECT * FROM duplicates WHERE kind = 'semantic') m USING (doc_id)
    LEFT JOIN (SELECT doc_id, prototype_distance AS distance FROM semantic_duplicates WHERE prototype) p USING (doc_id)
)
"""
JUDGED = ("documents", "signals", "duplicates", "contamination", "semantic_duplicates")


@dataclass(frozen=True)
class Pool:
    """Every document with its verdict so far; ``candidates`` are those without a stage that objected.

    Both tables are sorted by doc_id: doc_id, source, shard, row, tokens, cluster, stage, reason, detail, matched_doc.
    """

    documents: pa.Table
    candidates: pa.Table

    @property
    def tokens(self) -> int:
        return int(self.candidates["tokens"].to_numpy().sum())

    @property
    def digest(self) -> str:
        """Digest of the set of candidates."""
        return digest_ids(self.ids)

    @property
    def verdicts(self) -> str:
        """Digest of every document's verdict so far, with its reason."""
        hasher = hashlib.sha256(ids_to_numpy(self.documents["doc_id"]).tobytes())
        for column in ("stage", "detail", "matched_doc"):
            hasher.update(json.dumps([str(value) for value in self.documents[column].to_pylist()]).encode())
        return hasher.hexdigest()

    @property
    def ids(self) -> np.ndarray:
        return ids_to_numpy(self.candidates["doc_id"])


def candidate_pool(store: Store, config: Config, clustering: str, tokenizer: str) -> Pool:
    """Judge every document by the stages so far. Raises ``LookupError`` when some lack a judgement.

    Raises :class:`~winnow.errors.UserError` while near duplicates are not of the present state, or beyond reason,
    and while documents wait to be compared with a set.
    """
    require_grouped(store, config)
    require_reason(store, config.duplicates)
    require_contamination(store, config.contamination)
    only = {"clustering": clustering, "tokenizer": tokenizer}
    with store.scratch(*JUDGED, "token_counts", "clusters", only=only) as connection:
        documents = connection.execute(
            f"""
            {VERDICTS} SELECT v.*, t.tokens, c.cluster FROM verdicts v
            JOIN token_counts t USING (doc_id) JOIN clusters c USING (doc_id) ORDER BY doc_id
            """,  # noqa: S608
            {"filter": config.quality.filter, "semantic": is_filtering(config)},
        ).to_arrow_table()
        total = connection.execute("SELECT count(*) FROM documents").fetchone()
    if total and len(documents) != total[0]:
        raise LookupError(
            f"{total[0] - len(documents)} of {total[0]} documents lack signals, tokens or a cluster: "
            "materialize signals, embeddings, clusters and token_counts for every partition first"
        )
    return Pool(documents, documents.filter(pc.is_null(documents["stage"])))


def admissible(store: Store, config: Config) -> pa.Table:
    """Return the doc_id of every document that no stage objects to, sorted: what tokenizer and warm-up may see.

    Semantic duplicates are admissible: these two are pinned, whether or not the semantic stage has run before them.
    Raises :class:`~winnow.errors.UserError` while near duplicates are not of the present state, or beyond reason,
    and while documents wait to be compared with a set.
    """
    require_grouped(store, config)
    require_reason(store, config.duplicates)
    require_contamination(store, config.contamination)
    with store.scratch(*JUDGED) as connection:
        return connection.execute(
            f"{VERDICTS} SELECT doc_id FROM verdicts WHERE stage IS NULL ORDER BY doc_id",  # noqa: S608
            {"filter": config.quality.filter, "semantic": False},
        ).to_arrow_table()


def budget_tokens(config: Config, pool: Pool) -> int:
    """Return the budget: as configured, else a quarter of the pool."""
    return config.selection.budget_tokens or pool.tokens // 4
