"""Manifests in the store, and the question that triggers everything: does one answer to the present state?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from winnow.config import Config
from winnow.contamination.sets import state_of
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest, digest_file
from winnow.stages.checkpoints import current_checkpoint
from winnow.store.store import get_meta

if TYPE_CHECKING:
    from winnow.store.store import Connection

SEMANTIC = (
    "corpus", "reference", "quality", "duplicates", "semantic", "contamination", "encoder", "clusters", "model",
    "influence", "selection", "mixture", "spans",
)  # fmt: skip
"""The sections of the configuration that decide what is chosen."""


@dataclass(frozen=True)
class CurationState:
    """The present state: documents, checkpoint, reference, configuration; ``manifest`` answers to it, if any does.

    Only the checkpoint's newest manifest can answer: a state that returns after another one (a file is withdrawn again)
    gets a version of its own. ``newest`` is that manifest, whatever it answers to.
    """

    key: str
    checkpoint: str
    documents: int
    reference: str
    manifest: str | None
    newest: str | None


def curation_state(connection: Connection, config: Config, home: Home, checkpoint: str | None = None) -> CurationState:
    """Compare the present state with the manifests; ``checkpoint`` is the current one unless named."""
    checkpoint = checkpoint or current_checkpoint(connection, config)
    reference = _digest(home, config.reference.path)
    key = digest(
        {
            "corpus": get_meta(connection, "corpus_digest"),
            "checkpoint": checkpoint,
            "reference": reference,
            "evaluation_sets": {
                name: state_of(settings, home.root) for name, settings in config.contamination.evaluation_sets.items()
            },
            "encoder": config.encoder.name,
            "configuration": config.semantic_settings(*SEMANTIC),
        }
    )
    found = connection.execute(
        "SELECT version, state FROM manifests WHERE checkpoint = $checkpoint"
        " ORDER BY len(version) DESC, version DESC LIMIT 1",
        {"checkpoint": checkpoint},
    ).fetchone()
    newest, answers_to = found or (None, None)
    documents = connection.execute("SELECT count(*) FROM documents").fetchone()
    manifest = newest if answers_to == key else None
    return CurationState(key, checkpoint, documents[0] if documents else 0, reference, manifest, newest)


def _digest(home: Home, path: str) -> str:
    place = home.resolve(path) if path else None
    return digest_file(place) if place and place.is_file() else ""


def manifest_row(connection: Connection, version: str | None = None, checkpoint: str | None = None) -> dict[str, Any]:
    """Return the row of a manifest: the named version, else the newest (of a checkpoint). Raises :class:`UserError`."""
    cursor = connection.execute(
        """
        SELECT * FROM manifests
        WHERE ($version IS NULL OR version = $version) AND ($checkpoint IS NULL OR checkpoint = $checkpoint)
        ORDER BY len(version) DESC, version DESC LIMIT 1
        """,
        {"version": version, "checkpoint": checkpoint},
    )
    row = cursor.fetchone()
    if row is None:
        known = [name for (name,) in connection.execute("SELECT version FROM manifests ORDER BY version").fetchall()]
        have = (
            f"the store has {', '.join(known)}"
            if known
            else "the store has none yet: run `winnow demo` or `winnow run`"
        )
        raise UserError(f"no manifest {version or ''}".rstrip() + f"; {have}")
    return dict(zip([column[0] for column in cursor.description or ()], row, strict=True))


FUNNEL = """
WITH judged AS (
    SELECT o.source,
           CASE WHEN (o.shard, o.row) <> (d.shard, d.row) THEN 'exact_duplicate'
                WHEN v.verdict = 'selected' THEN 'kept'
                ELSE coalesce(v.reason, 'not_judged')
           END AS outcome,
           t.tokens
    FROM occurrences o
    JOIN documents d USING (doc_id)
    LEFT JOIN (SELECT * FROM decisions WHERE selection = $selection) v USING (doc_id)
    LEFT JOIN token_counts t ON t.doc_id = o.doc_id AND t.tokenizer = $tokenizer
)
SELECT source, outcome, count(*) AS records, coalesce(sum(tokens), 0)::BIGINT AS tokens FROM judged GROUP BY ALL
UNION ALL
SELECT source, 'quarantined', sum(q.records)::BIGINT, 0
FROM quarantine q JOIN shards USING (shard) GROUP BY ALL
ORDER BY source, outcome
"""


def funnel(connection: Connection, selection: str, tokenizer: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return source -> outcome -> records and tokens, and under 'records' what was delivered, for the *present* corpus.

    Outcomes: kept, quarantined, and every reason of removal; a copy that is not the canonical occurrence is an
    ``exact_duplicate`` of its own source. Tokens are counted over readable records.
    """
    result: dict[str, dict[str, dict[str, int]]] = {}
    parameters = {"selection": selection, "tokenizer": tokenizer}
    for source, outcome, records, tokens in connection.execute(FUNNEL, parameters).fetchall():
        result.setdefault(source, {})[outcome] = {"records": records, "tokens": tokens}
    delivered = connection.execute("SELECT source, sum(records)::BIGINT FROM shards GROUP BY source").fetchall()
    for source, records in delivered:
        outcomes = result.setdefault(source, {})
        tokens = sum(count["tokens"] for count in outcomes.values())
        outcomes["records"] = {"records": records, "tokens": tokens}
    return result


def funnel_problems(counted: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """Return a sentence for every source whose records are not the sum of their outcomes."""
    problems = []
    for source, outcomes in sorted(counted.items()):
        total = outcomes.get("records", {}).get("records", 0)
        accounted = sum(count["records"] for outcome, count in outcomes.items() if outcome != "records")
        if total != accounted:
            problems.append(f"source '{source}': {total} records delivered, {accounted} accounted for")
    return problems
