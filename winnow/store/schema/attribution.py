"""Tables of the estimators of influence: how well each predicts what retraining shows."""

from __future__ import annotations

from winnow.store.schema.table import Table


def attribution() -> tuple[Table, ...]:
    """Return these tables."""
    return (
        Table(
            "attribution_bench",
            "How well an estimator ranks subsets by what models trained on them lose: the linear datamodelling score.",
            (
                ("bench", "VARCHAR", "tiny, small or mixed"),
                ("bank", "VARCHAR", "digest of documents, queries, model, training and how subsets are drawn"),
                ("estimator", "VARCHAR", "the attribution method"),
                ("scope", "VARCHAR", "the parameters whose gradients count; null where it uses none"),
                ("damping", "DOUBLE", "relative to a layer's mean curvature; null where it uses none"),
                ("projection", "BIGINT", "rows and columns that a layer's gradient is projected to; 0 = not projected"),
                ("seed", "BIGINT", "of projections and sampled labels"),
                ("runs", "BIGINT", "trainings, of different seeds, whose scores were averaged"),
                ("checkpoints", "BIGINT", "states of each training whose scores were averaged"),
                ("subsets", "BIGINT", "subsets that it was judged on"),
                ("seeds", "BIGINT", "models trained on each subset, whose losses were averaged"),
                ("lds", "DOUBLE", "mean rank correlation over the judging queries; null when not measured"),
                ("se", "DOUBLE", "its standard error over subsets and queries together"),
                ("subsets_se", "DOUBLE", "its standard error over subsets"),
                ("queries_se", "DOUBLE", "its standard error over queries"),
                ("tuning_lds", "DOUBLE", "the same subsets on the queries that scope and damping were chosen on"),
                (
                    "ceiling",
                    "DOUBLE",
                    "what the noiseless losses of these subsets would reach, from the agreement of seeds",
                ),
                ("share", "DOUBLE", "lds / ceiling"),
                ("seconds", "DOUBLE", "to fit it and to score the judging queries"),
                ("tuned", "BOOLEAN", "scope or damping was chosen among others on the tuning queries"),
                ("reason", "VARCHAR", "why it was not measured"),
                ("measured_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("bench", "bank", "estimator", "seed", "runs", "checkpoints", "subsets", "seeds"),
            "attribution",
        ),
    )
