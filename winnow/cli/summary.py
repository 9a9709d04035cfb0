"""What a run tells at its end, read back from the published store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from winnow.cli.read import funnel_rows
from winnow.cli.show import aligned
from winnow.home import Home
from winnow.stages.manifests import funnel, manifest_row
from winnow.store.published import open_published
from winnow.store.schema import tables

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

GROUPS = {
    "clustering": "embeddings",
    "tokenizer": "model",
    "train_stage": "training",
    "validations": "training",
}
"""Stages whose group is not their table's."""


def print_summary(home: Home, run_ids: Sequence[str], plan: Mapping[str, int], seconds: float) -> None:
    """Print funnel, duplicate groups, clusters, influence model, manifest, validation; actual beside planned time."""
    with open_published(home) as connection:
        for title, text in (
            ("Funnel (records by source)", _funnel(connection)),
            ("Largest duplicate groups", _duplicates(connection)),
            ("Clusters by reward", _clusters(connection)),
            ("Influence model", _influence(connection)),
            ("Manifest", _manifest(connection)),
            ("Validation", _validation(connection)),
            ("Cost of this run", _costs(connection, run_ids, plan, seconds)),
        ):
            print(f"\n{title}\n{text}")
    print(f'\nAsk further:  winnow sql "FROM manifests"   winnow explain DOC_ID   make ui   ({home.published})')


def _rows(connection: Connection, query: str, parameters: dict[str, Any] | None = None) -> tuple[list[str], list[Any]]:
    cursor = connection.execute(query, parameters or {})
    return [column[0] for column in cursor.description or ()], cursor.fetchall()


def _funnel(connection: Connection) -> str:
    manifest = manifest_row(connection)
    tokenizer = connection.execute(
        "SELECT tokenizer FROM checkpoints WHERE checkpoint = $name", {"name": manifest["checkpoint"]}
    ).fetchone()
    rows = funnel_rows(funnel(connection, manifest["selection"], tokenizer[0] if tokenizer else ""))
    columns = list(rows[0])
    total = ["all", *(sum(int(str(row[column])) for row in rows) for column in columns[1:])]
    return aligned(columns, [[row[column] for column in columns] for row in rows] + [total])


def _duplicates(connection: Connection) -> str:
    columns, rows = _rows(
        connection,
        """
        SELECT kind, group_size AS documents, source, original_id AS kept
        FROM duplicates JOIN documents USING (doc_id)
        WHERE doc_id = keeper_id
        QUALIFY row_number() OVER (PARTITION BY kind ORDER BY group_size DESC, doc_id) <= 3
        ORDER BY kind, group_size DESC, doc_id
        """,
    )
    return aligned(columns, rows) if rows else "none"


def _clusters(connection: Connection) -> str:
    columns, rows = _rows(
        connection,
        """
        WITH rewards AS (
            SELECT cluster, clustering, sum(tokens_granted) AS granted,
                   sum(reward * (probes - excluded)) / nullif(sum(probes - excluded), 0) AS reward
            FROM bandit_rounds WHERE selection = $selection GROUP BY ALL
        ),
        examples AS (
            SELECT cluster, arg_min(text, distance) AS example FROM clusters JOIN texts USING (doc_id) GROUP BY cluster
        ),
        ranked AS (
            SELECT *, row_number() OVER (ORDER BY reward DESC NULLS LAST, cluster) AS best,
                      row_number() OVER (ORDER BY reward ASC NULLS LAST, cluster) AS worst
            FROM rewards
        )
        SELECT CASE WHEN best <= 3 THEN 'best' ELSE 'worst' END AS which, cluster, reward, granted, label,
               left(regexp_replace(example, '\\s+', ' ', 'g'), 70) AS example
        FROM ranked JOIN examples USING (cluster) LEFT JOIN cluster_summary USING (clustering, cluster)
        WHERE best <= 3 OR worst <= 3 ORDER BY reward DESC NULLS LAST
        """,
        {"selection": manifest_row(connection)["selection"]},
    )
    return aligned(columns, rows)


def _influence(connection: Connection) -> str:
    manifest = manifest_row(connection)
    columns, rows = _rows(
        connection,
        """
        SELECT model, probes, spearman, spearman_low, spearman_high, oracle_probes, oracle_spearman, used, reason
        FROM influence_models WHERE model = $model
        """,
        {"model": manifest["influence_model"]},
    )
    return aligned(columns, rows)


def _manifest(connection: Connection) -> str:
    manifest = manifest_row(connection)
    return (
        f"{manifest['version']}  digest {manifest['digest']}\n"
        f"{manifest['documents']:,} documents, {manifest['tokens']:,} of {manifest['budget_tokens']:,} tokens, "
        f"checkpoint {manifest['checkpoint']}, parent {manifest['parent'] or 'none'}\n{manifest['path']}"
    )


def _validation(connection: Connection) -> str:
    _, rows = _rows(
        connection,
        """
        SELECT arm, min(tokens) AS "from", max(tokens) AS tokens, max_by(loss, -tokens) AS loss_before,
               max_by(loss, tokens) AS judging_loss
        FROM validations WHERE version = $version GROUP BY arm ORDER BY arm
        """,
        {"version": manifest_row(connection)["version"]},
    )
    if len(rows) < 2:
        return "not trained"
    losses = {row[0]: row[4] for row in rows}
    difference = losses["manifest"] - losses["random"]
    verdict = "the manifest teaches more" if difference < 0 else "random teaches as much or more"
    return (
        aligned(
            ["trained on", "tokens", "loss before", "judging loss"], [(row[0], row[2], row[3], row[4]) for row in rows]
        )
        + f"\n{difference:+.4f} nats a token on the judging part: {verdict}"
    )


def _costs(connection: Connection, run_ids: Sequence[str], plan: Mapping[str, int], seconds: float) -> str:
    rows = connection.execute(
        "SELECT stage, sum(seconds), sum(processed)::BIGINT, max(peak_mb) FROM costs"
        " WHERE list_contains($runs, run_id) GROUP BY stage",
        {"runs": list(run_ids)},
    ).fetchall()
    stage_of = {table.name: table.stage for table in tables().values()} | GROUPS | {"corpus": "corpus"}
    spent: dict[str, list[float]] = {}
    for stage, took, processed, peak in rows:
        group = spent.setdefault(stage_of.get(stage, stage), [0.0, 0.0, 0.0])
        group[0] += took
        group[1] += processed
        group[2] = max(group[2], peak)
    lines = [(name, took, int(processed), round(peak)) for name, (took, processed, peak) in spent.items()]
    order = list(dict.fromkeys([table.stage for table in tables().values()] + ["training"]))
    lines.sort(key=lambda line: order.index(line[0]) if line[0] in order else len(order))
    table = aligned(["stage", "seconds", "processed", "peak MiB"], lines) if lines else "nothing was recomputed"
    if plan:
        planned = sum(plan.values())
        actual = {name: sum(took for group, took, _, _ in lines if group in name) for name in plan}
        actual["start"] = seconds - sum(took for _, took, _, _ in lines)
        compared = aligned(
            ["part", "planned s", "actual s"], [(name, limit, round(actual[name], 1)) for name, limit in plan.items()]
        )
        table += f"\n\n{compared}"
        return f"{table}\n{seconds:.0f} s in all, {planned} planned"
    return f"{table}\n{seconds:.0f} s in all"
